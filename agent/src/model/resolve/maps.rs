//! Resolution of maps: pin names, shapes, and the spec's settings. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfRevisionSpec, MapDefinition, MapInfo, Reason,
    names::{is_dns_label, is_pin_name, pin_names},
    program::{MapRef, MapSpec},
};

use crate::model::{
    desired::DesiredMap,
    map_shape::MapShape,
    node_context::NodeContext,
    refusal::{Refusal, kernel_unsupported, unsupported},
};

/// Resolves every map of the object.
pub(super) fn resolve(
    spec: &BpfRevisionSpec,
    node_context: &NodeContext,
) -> Result<BTreeMap<String, DesiredMap>, Refusal> {
    let own = spec.template.object.maps.iter();
    let mut pins = pin_names(own.clone().map(|info| info.name.as_str()));
    let own = own.map(|info| {
        let pin = pins.remove(info.name.as_str()).unwrap_or_default();
        Ok((info.name.clone(), map(spec, info, pin, node_context)?))
    });
    let targets = spec.template.targets().filter(|_| !spec.template.suspend);
    let borrowed = targets.filter_map(|target| target.map()?.map_ref());
    own.chain(borrowed.map(|from| Ok((borrowed_pin(&from), borrowed_map(from))))).collect()
}

/// Returns the pin name of another BpfProgram's map that programs are only attached to. No name of an object's map has
/// its `~`.
pub(super) fn borrowed_pin(MapRef { program, name }: &MapRef) -> String {
    format!("{program}~{name}")
}

/// Returns another BpfProgram's map that programs are only attached to. That one decides all else of it.
fn borrowed_map(from: MapRef) -> DesiredMap {
    DesiredMap {
        pin_name: borrowed_pin(&from),
        pin: true,
        retain: false,
        definition: MapDefinition::Btf,
        of_load: false,
        sync: false,
        shape: MapShape::default(),
        recreate: false,
        from: Some(from),
        attach_only: true,
        used_by: Vec::new(),
    }
}

fn map(
    spec: &BpfRevisionSpec,
    info: &MapInfo,
    pin_name: String,
    node_context: &NodeContext,
) -> Result<DesiredMap, Refusal> {
    let MapInfo { name, map_type, max_entries, definition, used_by, .. } = info;
    let settings = spec.template.map(name);
    let map_type = supported_type(name, map_type, node_context)?;
    check_pin_name(name, &pin_name)?;
    let word = |n: i64| u32::try_from(n).map_err(|_| unsupported(format!("map {name}: {n} is out of bounds")));
    let declared = MapShape {
        map_type,
        key_size: word(info.key_size_bytes)?,
        value_size: word(info.value_size_bytes)?,
        max_entries: word(settings.and_then(|settings| settings.max_entries).unwrap_or(*max_entries))?,
        flags: word(info.flags)?,
    };
    let map_ref = settings.and_then(|settings| settings.map_ref.as_ref());
    Ok(DesiredMap {
        pin_name,
        pin: settings.is_none_or(MapSpec::is_pinned),
        retain: settings.is_some_and(MapSpec::is_retained),
        definition: *definition,
        of_load: info.is_of_load(),
        sync: settings.is_some_and(MapSpec::is_synced),
        shape: declared.normalized(&node_context.machine),
        recreate: settings.is_some_and(MapSpec::is_recreated),
        from: map_ref
            .map(|map_ref| checked_source(spec, &format!("map {name}: mapRef"), map_ref.clone()))
            .transpose()?,
        attach_only: false,
        used_by: used_by.clone(),
    })
}

/// Returns the number of a map type, and refuses one that this agent does not support or this kernel lacks.
fn supported_type(name: &str, map_type: &str, node_context: &NodeContext) -> Result<u32, Refusal> {
    let number = sockeye_ebpf::kinds::map_type::number(map_type)
        .ok_or_else(|| unsupported(format!("map {name}: this agent does not support map type {map_type}")))?;
    match node_context.missing_features.maps.get(&number) {
        Some(release) => Err(kernel_unsupported(&format!("map {name}"), &format!("map type {map_type}"), *release)),
        None => Ok(number),
    }
}

/// Refuses a map whose pin's name must not become part of a path.
fn check_pin_name(name: &str, pin: &str) -> Result<(), Refusal> {
    if is_pin_name(pin) {
        return Ok(());
    }
    let message = format!("map {name:?} has a name that can't be pinned: letters, digits and _, at most 128");
    Err(Refusal { reason: Reason::InvalidObject, message })
}

/// Returns the map that a map is shared from, and refuses names that must not become part of a path.
pub(super) fn checked_source(spec: &BpfRevisionSpec, field: &str, map_ref: MapRef) -> Result<MapRef, Refusal> {
    let MapRef { program, name: map } = &map_ref;
    if *program == spec.program_ref.name || !is_dns_label(program) || !is_pin_name(map) {
        let message =
            format!("{field} names {map_ref}, which is no map of another BpfProgram: name one of another's maps");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(map_ref)
}
