//! The steps that remove links and pins: those that a revision does not need, all links, or everything. Pure.

use super::{
    attach::Attaching, context::PlanContext, desired_attachments::detach_order, draining, kept_pods, pins::keeps_map,
    step::Step, switch,
};
use crate::model::{
    desired::Desired,
    observed::{Observed, ObservedMap},
};

/// Removes what the desired state lacks after the steps of `attaching`, links first, so that nothing runs half removed.
pub(super) fn remove_stale(
    desired: &Desired,
    observed: &Observed,
    attaching: &Attaching,
    context: &PlanContext,
) -> Vec<Step> {
    let Attaching { steps: _, keys, detached } = attaching;
    let links = detach_order(observed).filter(|key| !keys.contains(key) && !detached.contains(key));
    let functions = observed.functions.keys().filter(|function| !desired.functions.contains_key(*function));
    let maps = observed.maps.iter().filter(|(pin, _)| !keeps_map(desired, observed, pin));
    let detach = links.cloned().map(Step::Detach);
    let unpin_programs = functions.cloned().map(Step::UnpinProgram);
    let unpin_maps = maps.flat_map(|(pin, map)| unpin(pin, map, desired.force_detach, context));
    let is_synced = |pin: &&String| desired.map_by_pin(pin).is_some_and(|(_, map)| map.sync);
    let forget = observed.recorded.iter().filter(|pin| !is_synced(pin)).cloned().map(Step::ForgetEntries);
    let forget_pods = kept_pods::forget(desired, observed);
    detach.chain(forget_pods).chain(unpin_programs).chain(unpin_maps).chain(forget).collect()
}

/// Returns the steps that detach all links, tell the programs, and change nothing else. Keepers go on selecting their
/// pods.
pub fn detach(observed: &Observed) -> Vec<Step> {
    detach_order(observed).cloned().map(Step::Detach).chain(switch::off(observed)).collect()
}

/// Unpins a map. One with sockets in it stays elsewhere.
fn unpin(pin: &str, map: &ObservedMap, force: bool, context: &PlanContext) -> impl Iterator<Item = Step> {
    draining::keep(pin, map, force, context).into_iter().chain([Step::UnpinMap(pin.to_owned())])
}

/// Removes everything but the maps to retain, whose pins it restores.
pub(super) fn remove_all(observed: &Observed, context: &PlanContext) -> Vec<Step> {
    let Observed { revision, trial, functions, maps, kept_pods, retained, recorded, force_detach, stray, .. } =
        observed;
    let unpinned = maps.iter().filter(|(pin, map)| retained.contains(*pin) && !map.pinned);
    let mut steps: Vec<Step> = unpinned.map(|(pin, _)| Step::RepinMap(pin.clone())).collect();
    if observed.is_empty() || observed.is_retained_only() {
        steps.extend(draining::take_out(observed, *force_detach, context));
        return steps;
    }
    steps.extend(stray.then_some(Step::RemoveStray));
    steps.extend(detach(observed));
    steps.extend(kept_pods.keys().cloned().map(Step::ForgetPod));
    steps.extend(functions.keys().cloned().map(Step::UnpinProgram));
    let gone = maps.iter().filter(|(pin, _)| !retained.contains(*pin));
    steps.extend(gone.flat_map(|(pin, map)| unpin(pin, map, *force_detach, context)));
    steps.extend(recorded.iter().cloned().map(Step::ForgetEntries));
    if maps.keys().any(|pin| retained.contains(pin)) {
        steps.extend((revision.is_some() || trial.is_some()).then_some(Step::SetRevision(None)));
    } else {
        steps.push(Step::Leave);
    }
    steps
}
