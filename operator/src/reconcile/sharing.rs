//! Sharing: refuses a spec that borrows a map which its lender does not share, or attaches programs to it. IO: none.
//!
//! - A map is shared if the lender's current revision says so. The lender's latest spec may not be accepted.
//! - What agents run already keeps its maps: a lender that stops sharing a map takes it from nobody. It keeps others
//!   from beginning to use it, and the next edit of those that do is refused.

use sockeye_crds::{
    Reason, Refusal,
    program::{MapRef, map_refs},
};

use crate::{
    reconcile::{
        gather::Gathered,
        plan::undispatched,
        validate::{CheckOutcome, Validated},
    },
    watch::sharing::Lender,
};

/// Turns the acceptance of a spec into a refusal if it would dispatch a revision with a map that is not shared.
pub fn refuse_unshared(gathered: &Gathered, validated: &mut Validated) {
    let Some(accepted) = validated.accepted() else { return };
    if gathered.intent.is_deleted() || undispatched(gathered, accepted).is_none() {
        return;
    }
    let refusal =
        map_refs(&accepted.maps, &accepted.programs).find_map(|(field, map_ref)| refusal(gathered, &field, &map_ref));
    if let Some(refusal) = refusal {
        validated.outcome = CheckOutcome::Rejected(refusal);
    }
}

fn refusal(gathered: &Gathered, field: &str, map_ref: &MapRef) -> Option<Refusal> {
    let MapRef { program, name } = map_ref;
    if *program == gathered.intent.program.name {
        let message = format!("{field}: program must be another BpfProgram; leave it out to name a map of this one");
        return Some(Refusal { reason: Reason::InvalidSpec, message });
    }
    let why = match gathered.lenders.get(program) {
        Some(Lender::Sharing(maps)) if maps.contains(name) => return None,
        Some(Lender::Sharing(maps)) => map_ref.unshared_message(maps.iter().map(String::as_str)),
        Some(Lender::NotDispatched) => {
            format!("BpfProgram {program} shares no map {name} yet, because none of its specs was accepted: see there")
        }
        Some(Lender::Missing) | None => {
            format!("there is no BpfProgram {program} that could share map {name}: create it, or correct the name")
        }
    };
    Some(Refusal { reason: Reason::MapNotShared, message: format!("{field}: {why}") })
}
