//! What is loaded, and what stays pinned of it: maps that are carried over, another's, or made anew.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, program::MapRef};

use super::Step;
use crate::{
    around::Around,
    held::{Held, HeldMap},
    shape::Shape,
    wanted::{Refusal, Wanted, WantedMap},
};

/// Whether the wanted functions and maps are not there, or not from the wanted load.
pub(super) fn needs_load(wanted: &Wanted, held: &Held, around: &Around) -> bool {
    let loaded =
        |function: &String| held.functions.get(function).is_some_and(|f| f.load_key.as_ref() == Some(&wanted.load_key));
    let pinned = |map: &WantedMap| match held.maps.get(&map.pin_name) {
        Some(pinned) => is_the(map, pinned, around) && (!map.pin || is_used(map, pinned, held)),
        None => !map.pin,
    };
    !wanted.functions.keys().all(loaded) || !wanted.maps.values().all(pinned)
}

/// Whether what is pinned is what is wanted: this BpfProgram's own, or the very map of another. Where that other one is not
/// there any more, its map is the one that it left.
fn is_the(map: &WantedMap, pinned: &HeldMap, around: &Around) -> bool {
    let other = map.from.as_ref().and_then(|from| around.maps.get(from));
    pinned.from == map.from && other.is_none_or(|other| other.id == pinned.info.id)
}

/// Whether the functions use what is pinned: someone may have put another map there, and a program that was gone back to has its
/// own.
fn is_used(map: &WantedMap, pinned: &HeldMap, held: &Held) -> bool {
    let mut functions = map.used_by.iter().filter_map(|function| held.functions.get(function));
    functions.all(|function| function.info.map_ids.contains(&pinned.info.id))
}

pub(super) fn load(wanted: &Wanted, held: &Held, around: &Around) -> Result<Vec<Step>, Refusal> {
    let (mut reuse, mut shared) = (BTreeSet::new(), BTreeMap::new());
    let mut pins = Vec::new();
    for (name, map) in &wanted.maps {
        let pinned = held.maps.get(&map.pin_name).filter(|pinned| is_the(map, pinned, around));
        if let Some(from) = &map.from {
            if pinned.is_some_and(|pinned| pinned.shape() == map.shape) {
                reuse.insert(map.pin_name.clone());
            } else {
                share(name, map, from, around)?;
                shared.insert(name.clone(), from.clone());
                pins.push(Step::ShareMap { name: name.clone(), from: from.clone() });
            }
            continue;
        }
        match pinned.filter(|_| !map.of_load && map.pin) {
            Some(pinned) if pinned.shape() == map.shape => drop(reuse.insert(map.pin_name.clone())),
            Some(_) if map.recreate => pins.push(Step::PinMap(name.clone())),
            Some(pinned) => {
                return Err(Refusal {
                    reason: Reason::MapShapeChanged,
                    message: format!(
                        "map {name}: the pinned map is {}, the object wants {}; its content can't be carried over: \
                         rename the map, or set its onShapeChange to Recreate, which loses the content",
                        pinned.shape(),
                        map.shape
                    ),
                });
            }
            None if map.pin => pins.push(Step::PinMap(name.clone())),
            None => {}
        }
    }
    // An agent that is killed among these leaves programs that use other maps than those pinned.
    let known = held.functions.iter().filter(|(_, f)| f.load_key.is_some() && !pins.is_empty());
    let forget: Vec<Step> = known.map(|(function, _)| Step::ForgetLoad(function.clone())).collect();
    let programs = wanted.functions.keys().cloned().map(Step::PinProgram);
    Ok([Step::Load { reuse, shared }].into_iter().chain(forget).chain(pins).chain(programs).collect())
}

/// Whether another's map can be taken.
fn share(name: &str, map: &WantedMap, from: &MapRef, around: &Around) -> Result<(), Refusal> {
    let Some(other) = around.maps.get(from) else {
        let why = around.absent.get(from).map_or("it is not there", String::as_str);
        return Err(Refusal { reason: Reason::SharedMapMissing, message: format!("map {name}: {from}: {why}") });
    };
    let other = Shape::of(other);
    if other != map.shape {
        let message = format!(
            "map {name}: {from} is {other}, wanted is {}: both objects must define it alike; where only max_entries differs, \
             give the other's as maxEntries beside from",
            map.shape
        );
        return Err(Refusal { reason: Reason::MapShapeChanged, message });
    }
    Ok(())
}

/// Maps and programs that the agent alone still holds. Before a load, which takes maps from their pins.
pub(super) fn repin(wanted: &Wanted, held: &Held) -> Vec<Step> {
    let maps = held.maps.iter().filter(|(pin, map)| !map.pinned && keeps(wanted, held, pin));
    let programs = held.functions.iter().filter(|(name, f)| !f.pinned && wanted.functions.contains_key(*name));
    // What a map holds is told by this pin, or by the function's, which a load replaces.
    let links = held.links.iter().filter(|(_, link)| !link.is_link() && link.in_effect && !link.pinned);
    let maps = maps.map(|(pin, _)| Step::RepinMap(pin.clone()));
    let programs = programs.map(|(name, _)| Step::RepinProgram(name.clone()));
    maps.chain(programs).chain(links.map(|(key, _)| Step::RepinLink(key.clone()))).collect()
}

/// Whether a map's pin is to stay.
pub(super) fn keeps(wanted: &Wanted, held: &Held, pin: &str) -> bool {
    wanted.map_by_pin(pin).is_some_and(|(_, map)| map.pin) || held.retained.contains(pin)
}

pub(super) fn retention(wanted: &Wanted, held: &Held) -> impl Iterator<Item = Step> {
    let wants = |pin: &String| wanted.map_by_pin(pin).is_none_or(|(_, map)| map.retain && map.pin);
    let retain = wanted.maps.values().filter(|map| map.retain && map.pin && !held.retained.contains(&map.pin_name));
    let release = held.retained.iter().filter(|pin| !wants(pin)).cloned();
    retain
        .map(|map| Step::Retain(map.pin_name.clone()))
        .chain(release.map(Step::Release))
        .collect::<Vec<_>>()
        .into_iter()
}
