//! The pins of a BpfProgram: which are restored, and which maps stay. Pure.

use super::step::Step;
use crate::model::{desired::Desired, observed::Observed};

/// Restores removed pins of maps and programs from the agent's descriptors; before the load, which takes maps from
/// their pins.
pub(super) fn repin(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let maps = observed.maps.iter().filter(|(pin, map)| !map.pinned && keeps_map(desired, observed, pin));
    let maps = maps.map(|(pin, _)| Step::RepinMap(pin.clone()));
    let unpinned = observed.functions.iter().filter(|(_, program)| !program.pinned);
    let programs = unpinned.filter(|(function, _)| desired.functions.contains_key(*function));
    let programs = programs.map(|(function, _)| Step::RepinProgram(function.clone()));
    // The pin in a link's place, or else the function's pin, tells which program a map runs. The load replaces the
    // latter.
    let links = observed.links.iter().filter(|(_, link)| !link.is_link() && link.in_effect && !link.pinned);
    let links = links.map(|(key, _)| Step::RepinLink(key.clone()));
    maps.chain(programs).chain(links).collect()
}

/// Returns whether a map's pin stays.
pub(super) fn keeps_map(desired: &Desired, observed: &Observed, pin: &str) -> bool {
    desired.map_by_pin(pin).is_some_and(|(_, map)| map.pin) || observed.retained.contains(pin)
}

/// Notes which maps are retained, and removes the notes of maps that no longer are. A map that left the object stays
/// retained.
pub(super) fn retention(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let retains = |pin: &str| desired.map_by_pin(pin).is_none_or(|(_, map)| map.retain && map.pin);
    let retained = desired.maps.values().filter(|map| map.retain && map.pin).map(|map| &map.pin_name);
    let retain = retained.filter(|pin| !observed.retained.contains(*pin)).cloned().map(Step::Retain);
    let release = observed.retained.iter().filter(|pin| !retains(pin)).cloned().map(Step::Release);
    retain.chain(release).collect()
}
