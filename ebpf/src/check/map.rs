//! `spec.maps[]`: each map's settings checked against the object.

use sockeye_crds::{
    MapInfo, ObjectInfo, Reason, Refusal,
    names::{self, printable},
    program::{MapRef, MapSpec, OnDelete, OnShapeChange},
};

use super::rules::{check_count, invalid, list, refuse};

/// Checks the settings of a map.
pub(super) fn check_map(field: &str, map: &MapSpec, object: &ObjectInfo) -> Result<(), Refusal> {
    let MapSpec { name, pin, max_entries, on_delete, on_shape_change, initial, from } = map;
    check_count(&format!("{field}.initial"), initial.len(), 0, 1024)?;
    let Some(found) = object.maps.iter().find(|m| m.name == *name) else {
        let there = list(object.maps.iter().map(|m| m.name.as_str()));
        let message = format!("{field}.name: the object has no map {}; it has: {there}", printable(name));
        return Err(refuse(Reason::NoSuchMap, message));
    };
    if let Some(entries) = max_entries {
        if found.definition.is_data() {
            return Err(invalid(format!(
                "{field}.maxEntries: {name} is global data, whose size the object alone says"
            )));
        }
        if !(1..=i64::from(u32::MAX)).contains(entries) {
            return Err(invalid(format!("{field}.maxEntries is {entries}; it must be 1 to {}", u32::MAX)));
        }
        if found.map_type.ends_with("Storage") {
            return Err(invalid(format!(
                "{field}.maxEntries: {name} is of type {}, which has no size",
                found.map_type
            )));
        }
    }
    if let Some(from) = from {
        return check_shared(&format!("{field}.from"), map, from, found);
    }
    if !pin && *on_delete == OnDelete::Retain {
        return Err(invalid(format!(
            "{field}.onDelete: a map that is not pinned can't be retained: only its pin would keep it"
        )));
    }
    if !pin && found.map_type == "ProgArray" {
        return Err(invalid(format!(
            "{field}.pin: a program array loses its entries with its last descriptor or pin, and tail calls would fall \
             through silently: leave it pinned"
        )));
    }
    if !pin && *on_shape_change == OnShapeChange::Recreate {
        return Err(invalid(format!(
            "{field}.onShapeChange: a map that is not pinned is made anew with every load: leave it out"
        )));
    }
    if *on_delete == OnDelete::Retain && found.is_of_load() {
        return Err(invalid(format!(
            "{field}.onDelete: {name} is {}: it belongs to one revision and goes with it",
            found.of_load_because()
        )));
    }
    Ok(())
}

/// Checks the settings of a map that is another BpfProgram's, which has all other settings. `maxEntries` is the size
/// expected of it, if not the object's own. Each node checks that the map exists and has the same shape.
fn check_shared(field: &str, map: &MapSpec, from: &MapRef, found: &MapInfo) -> Result<(), Refusal> {
    let MapSpec { name, pin, max_entries: _, on_delete, on_shape_change, initial, from: _ } = map;
    for (setting, given) in [
        ("pin: false", !pin),
        ("onDelete: Retain", *on_delete == OnDelete::Retain),
        ("onShapeChange: Recreate", *on_shape_change == OnShapeChange::Recreate),
        ("initial", !initial.is_empty()),
    ] {
        if given {
            return Err(invalid(format!(
                "{field}: {name} is {from}, which says all of it: leave out {setting} here, or set it there"
            )));
        }
    }
    if found.is_of_load() {
        return Err(invalid(format!(
            "{field}: {name} is {}: it belongs to one revision, and can't be another's",
            found.of_load_because()
        )));
    }
    let MapRef { program, map } = from;
    if !names::is_dns_label(program) {
        return Err(invalid(format!("{field}.program: {} is no BpfProgram's name", printable(program))));
    }
    if !names::is_pin_name(map) {
        return Err(invalid(format!("{field}.map: {} is no name of a map that can be shared", printable(map))));
    }
    Ok(())
}
