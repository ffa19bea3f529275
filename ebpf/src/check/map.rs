//! `spec.maps[]`: each map's settings checked against the object.

use sockeye_crds::{
    MapInfo, ObjectInfo, Reason, Refusal,
    names::{self, printable},
    program::{MapRef, MapSpec},
};

use super::rules::{DNS_LABEL, PIN_NAME, check_count, invalid, list, refuse};

/// Checks the settings of a map.
pub(super) fn check_map(field: &str, map: &MapSpec, object: &ObjectInfo) -> Result<(), Refusal> {
    check_count(&format!("{field}.entries"), map.entries.len(), 0, 1024)?;
    let name = &map.name;
    let Some(found) = object.maps.iter().find(|m| m.name == *name) else {
        let there = list(object.maps.iter().map(|m| m.name.as_str()));
        let message = format!("{field}.name: the object has no map {}; it has: {there}", printable(name));
        return Err(refuse(Reason::MapNotFound, message));
    };
    if let Some(entries) = map.max_entries {
        check_max_entries(&format!("{field}.maxEntries"), entries, found)?;
    }
    match &map.map_ref {
        Some(map_ref) => check_map_ref(&format!("{field}.mapRef"), map, map_ref, found),
        None => check_pinned(field, map, found),
    }
}

fn check_max_entries(field: &str, entries: i64, found: &MapInfo) -> Result<(), Refusal> {
    let MapInfo { name, map_type, definition, .. } = found;
    if definition.is_data() {
        return Err(invalid(format!("{field}: {name} is global data, whose size the object says: leave it out")));
    }
    if !(1..=i64::from(u32::MAX)).contains(&entries) {
        return Err(invalid(format!("{field} is {entries}; it must be 1 to {}", u32::MAX)));
    }
    if map_type.ends_with("Storage") {
        return Err(invalid(format!("{field}: {name} is of type {map_type}, which has no size: leave it out")));
    }
    Ok(())
}

/// Checks the settings that need a map that is pinned and outlives its revision.
fn check_pinned(field: &str, map: &MapSpec, found: &MapInfo) -> Result<(), Refusal> {
    if !map.is_pinned() && found.map_type == "ProgArray" {
        return Err(invalid(format!(
            "{field}.pinning: a program array loses its entries with its last descriptor or pin, and tail calls would \
             fall through silently: leave it pinned"
        )));
    }
    for (given, setting, unpinned) in [
        (
            map.is_retained(),
            "reclaimPolicy",
            "can't be retained, since only its pin would keep it: pin it, or leave this out",
        ),
        (map.is_recreated(), "onIncompatible", "is made anew with every load: leave it out"),
        (map.is_shared(), "sharing", "can't be shared, since others take it from its pin: pin it, or leave this out"),
    ] {
        if given && !map.is_pinned() {
            return Err(invalid(format!("{field}.{setting}: a map with pinning: None {unpinned}")));
        }
    }
    for (given, setting, fate) in [
        (map.is_retained(), "reclaimPolicy", "goes with it: leave this out"),
        (map.is_shared(), "sharing", "can't be another BpfProgram's, too: leave this out"),
    ] {
        if given && found.is_of_load() {
            let because = found.of_load_because();
            let name = &map.name;
            return Err(invalid(format!(
                "{field}.{setting}: {name} is {because}: it belongs to one revision and {fate}"
            )));
        }
    }
    Ok(())
}

/// Checks that maps of sockets are pinned: only a pin keeps a map until the sockets in it are closed.
pub(super) fn check_sockets_pinned(maps: &[MapSpec], object: &ObjectInfo) -> Result<(), Refusal> {
    let of_sockets = |m: &MapInfo| matches!(m.map_type.as_str(), "Sockmap" | "Sockhash");
    let holds_sockets = |name: &str| object.maps.iter().any(|found| found.name == name && of_sockets(found));
    let Some(i) = maps.iter().position(|map| !map.is_pinned() && holds_sockets(&map.name)) else { return Ok(()) };
    Err(invalid(format!(
        "spec.maps[{i}].pinning: {} holds sockets, and without a pin it ends with its programs: connections would lose \
         what they have not read. Leave it pinned, so that it stays until they are closed",
        maps[i].name
    )))
}

/// Checks the settings of a map that is another BpfProgram's, which has all other settings. `maxEntries` is the size
/// expected of it, if not the object's own. Each node checks that the map exists and has the same shape.
fn check_map_ref(field: &str, map: &MapSpec, map_ref: &MapRef, found: &MapInfo) -> Result<(), Refusal> {
    let MapSpec {
        name,
        pinning,
        max_entries: _,
        reclaim_policy,
        on_incompatible,
        entries,
        entries_from,
        entries_policy,
        sharing,
        map_ref: _,
        stream,
    } = map;
    for (setting, given) in [
        ("pinning", pinning.is_some()),
        ("reclaimPolicy", reclaim_policy.is_some()),
        ("onIncompatible", on_incompatible.is_some()),
        ("entries", !entries.is_empty()),
        ("entriesFrom", entries_from.is_some()),
        ("entriesPolicy", entries_policy.is_some()),
        ("sharing", sharing.is_some()),
        ("stream", stream.is_some()),
    ] {
        if given {
            return Err(invalid(format!(
                "{field}: {name} is {map_ref}, which says all of it: only name and maxEntries go with mapRef, so set \
                 {setting} there"
            )));
        }
    }
    if found.is_of_load() {
        return Err(invalid(format!(
            "{field}: {name} is {}: it belongs to one revision, and can't be another's: leave this out",
            found.of_load_because()
        )));
    }
    let MapRef { program, name } = map_ref;
    if !names::is_dns_label(program) {
        return Err(invalid(format!("{field}.program: {} is no BpfProgram's name: {DNS_LABEL}", printable(program))));
    }
    if !names::is_pin_name(name) {
        return Err(invalid(format!(
            "{field}.name: {} is no name of a map that can be shared: {PIN_NAME}",
            printable(name)
        )));
    }
    Ok(())
}
