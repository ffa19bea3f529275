//! The load of the object: whether it is needed, and which of its maps are carried over, shared or created. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, program::MapRef};

use super::{context::PlanContext, draining, step::Step};
use crate::model::{
    desired::{Desired, DesiredMap},
    map_shape::MapShape,
    observed::{Observed, ObservedMap},
    refusal::Refusal,
};

/// Returns the steps that load the object and pin its maps and programs; none if everything desired is loaded and
/// pinned.
pub(super) fn load(desired: &Desired, observed: &Observed, context: &PlanContext) -> Result<Vec<Step>, Refusal> {
    if is_loaded(desired, observed, context) {
        return Ok(Vec::new());
    }
    let (mut reuse, mut shared, mut pin_maps) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for (name, map) in desired.maps.iter().filter(|(_, map)| !map.attach_only) {
        let source = source(name, map, observed, context)?;
        let replaced = observed.maps.get(&map.pin_name).filter(|_| !matches!(source, MapSource::Pinned));
        pin_maps.extend(replaced.and_then(|old| draining::keep(&map.pin_name, old, desired.force_detach, context)));
        match source {
            MapSource::Pinned => drop(reuse.insert(map.pin_name.clone())),
            MapSource::Shared(from) => {
                shared.insert(name.clone(), from.clone());
                pin_maps.push(Step::ShareMap { name: name.clone(), from: from.clone() });
            }
            MapSource::New => pin_maps.extend(map.pin.then(|| Step::PinMap(map.pin_name.clone()))),
        }
    }
    let mut steps = vec![Step::Load { reuse, shared }];
    // An agent killed between these steps leaves programs that use other maps than the pinned ones.
    let known = observed.functions.iter().filter(|(_, program)| program.load_key.is_some() && !pin_maps.is_empty());
    steps.extend(known.map(|(function, _)| Step::ForgetLoad(function.clone())));
    steps.extend(pin_maps);
    steps.extend(desired.functions.keys().cloned().map(Step::PinProgram));
    Ok(steps)
}

/// Returns whether all desired programs come from the desired load, and all desired pins are the right maps.
fn is_loaded(desired: &Desired, observed: &Observed, context: &PlanContext) -> bool {
    let has_load_key = |function: &String| {
        let program = observed.functions.get(function);
        program.is_some_and(|program| program.load_key.as_ref() == Some(&desired.load_key))
    };
    let is_pinned = |map: &DesiredMap| match observed.maps.get(&map.pin_name) {
        Some(pinned) => is_right_map(map, pinned, context) && (!map.pin || is_used(map, pinned, observed)),
        None => !map.pin,
    };
    let mut maps = desired.maps.values().filter(|map| !map.attach_only);
    desired.functions.keys().all(has_load_key) && maps.all(is_pinned)
}

/// Returns whether the pinned map has the desired origin: this BpfProgram's own map, or the current map of another. If
/// the other one no longer has the map, the pinned one is what it left.
pub(super) fn is_right_map(map: &DesiredMap, pinned: &ObservedMap, context: &PlanContext) -> bool {
    let other = map.from.as_ref().and_then(|from| context.maps.get(from));
    pinned.from == map.from && other.is_none_or(|other| other.id == pinned.info.id)
}

/// Returns whether the programs use the pinned map. They do not if someone pinned another one, or after a revert, since
/// the restored programs use their own maps.
fn is_used(map: &DesiredMap, pinned: &ObservedMap, observed: &Observed) -> bool {
    let mut functions = map.used_by.iter().filter_map(|function| observed.functions.get(function));
    functions.all(|function| function.info.map_ids.contains(&pinned.info.id))
}

/// The source of a map for a load.
enum MapSource<'a> {
    /// The pinned map, with its content.
    Pinned,
    /// The map of another BpfProgram.
    Shared(&'a MapRef),
    /// A new map.
    New,
}

/// Decides where a map comes from.
fn source<'a>(
    name: &str,
    map: &'a DesiredMap,
    observed: &Observed,
    context: &PlanContext,
) -> Result<MapSource<'a>, Refusal> {
    let pinned = observed.maps.get(&map.pin_name).filter(|pinned| is_right_map(map, pinned, context));
    let has_shape = pinned.is_some_and(|pinned| pinned.shape() == map.shape);
    match (&map.from, pinned) {
        (Some(_), _) if has_shape => Ok(MapSource::Pinned),
        (Some(from), _) => check_shared(name, map, from, context).map(|()| MapSource::Shared(from)),
        (None, _) if map.of_load || !map.pin => Ok(MapSource::New),
        (None, Some(_)) if has_shape => Ok(MapSource::Pinned),
        (None, Some(pinned)) if !map.recreate => Err(incompatible(name, map, pinned)),
        (None, _) => Ok(MapSource::New),
    }
}

/// Refuses to share a map that does not exist or has another shape.
fn check_shared(name: &str, map: &DesiredMap, from: &MapRef, context: &PlanContext) -> Result<(), Refusal> {
    let other = context.maps.get(from).ok_or_else(|| absent(&format!("map {name}"), from, context))?;
    let other = MapShape::of(other);
    if other == map.shape {
        return Ok(());
    }
    let message = format!(
        "map {name}: {from} is {other}, the object wants {}: both objects must define the map alike; if only \
         max_entries differs, set maxEntries beside mapRef to the other's",
        map.shape
    );
    Err(Refusal { reason: Reason::MapIncompatible, message })
}

/// Refuses a map that is not there to be shared.
pub(super) fn absent(field: &str, from: &MapRef, context: &PlanContext) -> Refusal {
    let why = context.absent.get(from).map_or("it is not pinned on this node", String::as_str);
    Refusal { reason: Reason::SharedMapNotFound, message: format!("{field}: {from}: {why}") }
}

fn incompatible(name: &str, map: &DesiredMap, pinned: &ObservedMap) -> Refusal {
    let message = format!(
        "map {name}: the pinned map is {}, the object wants {}; its content can't be carried over: rename the map, or \
         set its onIncompatible to Recreate, which loses the content",
        pinned.shape(),
        map.shape
    );
    Refusal { reason: Reason::MapIncompatible, message }
}
