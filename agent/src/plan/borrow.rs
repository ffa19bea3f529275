//! The maps of other BpfPrograms that programs are attached to, without use in this object. Pure.

use sockeye_crds::{Reason, program::MapRef};
use sockeye_ebpf::kinds::map_type;

use super::{
    context::PlanContext,
    draining,
    load::{absent, is_right_map},
    step::Step,
};
use crate::model::{desired::Desired, observed::Observed, refusal::Refusal};

/// Returns the steps that pin such maps here too.
pub(super) fn borrow(desired: &Desired, observed: &Observed, context: &PlanContext) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    for map in desired.maps.values().filter(|map| map.attach_only) {
        let Some(from) = &map.from else { continue };
        if observed.maps.get(&map.pin_name).is_some_and(|pinned| is_right_map(map, pinned, context)) {
            continue;
        }
        let other = context.maps.get(from).ok_or_else(|| absent("attach", from, context))?;
        if !other.holds_sockets() {
            return Err(no_sockmap(from, other.map_type));
        }
        let replaced = observed.maps.get(&map.pin_name);
        steps.extend(replaced.and_then(|old| draining::keep(&map.pin_name, old, desired.force_detach, context)));
        steps.push(Step::BorrowMap { pin: map.pin_name.clone(), from: from.clone() });
    }
    Ok(steps)
}

fn no_sockmap(from: &MapRef, map_type: u32) -> Refusal {
    let message = format!(
        "attach: {from} is of type {}; sk_msg and sk_skb programs attach to a Sockmap or a Sockhash",
        map_type::name(map_type)
    );
    Refusal { reason: Reason::MapIncompatible, message }
}
