//! The steps for the sockets in maps: which are taken out, and which maps are kept for them. Pure.
//!
//! A socket keeps the programs that it found in the map, and bytes may lie in the map's queues for it. Once it leaves
//! the map, or the map ends, these bytes are lost; on some kernels the connection then never reads again. So sockets
//! are taken out only of maps to which nothing but `sk_msg` programs that pass what is sent was ever attached, or if
//! the spec says so. All other maps are kept until their sockets are closed.

use std::collections::BTreeSet;

use sockeye_crds::names::pin_name;

use super::{context::PlanContext, step::Step};
use crate::model::{
    desired::{Desired, DesiredMap},
    draining_map::SocketFate,
    observed::{Observed, ObservedMap},
};

/// Notes what the programs may do to the sockets in the BpfProgram's maps, those that `making` takes from others among
/// them: before they are attached.
pub(super) fn note(desired: &Desired, observed: &Observed, making: &[Step]) -> Vec<Step> {
    let force = (observed.force_detach != desired.force_detach).then_some(Step::SetForceDetach(desired.force_detach));
    let holds_sockets = |name: &String| desired.maps.get(name).is_some_and(DesiredMap::holds_sockets);
    let taken = making.iter().filter_map(|step| match step {
        Step::BorrowMap { pin, .. } => Some(pin.clone()),
        Step::ShareMap { name, .. } => holds_sockets(name).then(|| pin_name(name)),
        _ => None,
    });
    let lossless = observed.maps.iter().filter(|(_, map)| map.lossless).map(|(pin, _)| pin.clone());
    let lossy: BTreeSet<String> = lossless.chain(taken).filter(|_| desired.diverts()).collect();
    force.into_iter().chain(lossy.into_iter().map(Step::NoteLossy)).collect()
}

/// Takes sockets out of the maps of a BpfProgram that has nothing attached, where that is right. `force` takes them
/// out of all its maps.
pub fn take_out(observed: &Observed, force: bool, context: &PlanContext) -> Vec<Step> {
    if !observed.links.is_empty() {
        return Vec::new();
    }
    let maps = observed.maps.iter().filter(|(_, map)| map.from.is_none() && map.sockets.is_some_and(|n| n > 0));
    let right = maps.filter(|(_, map)| !context.lent.contains(&map.info.id) && (map.lossless || force));
    right.map(|(pin, _)| Step::TakeSocketsOut(pin.clone())).collect()
}

/// Keeps a map that its BpfProgram gives up for the sockets in it. If another BpfProgram has the map too, that one
/// keeps it.
pub(super) fn keep(pin: &str, map: &ObservedMap, force: bool, context: &PlanContext) -> Option<Step> {
    let fate = if map.lossless || force { SocketFate::TakeOut } else { SocketFate::Keep };
    let is_last = map.holds_sockets() && !context.lent.contains(&map.info.id);
    is_last.then(|| Step::KeepForSockets { pin: pin.to_owned(), fate })
}
