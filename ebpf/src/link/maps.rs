//! The maps to create, with their sizes fixed as libbpf fixes them.

use std::borrow::Cow;

use super::{Kernel, LinkError, MapAttributes, MapRequest, PlannedMap, PlannedSlot, Request, externs::Externs};
use crate::{
    kinds::map_type::{
        ARENA, ARRAY_OF_MAPS, CGROUP_ARRAY, CPUMAP, DEVMAP, DEVMAP_HASH, F_MMAPABLE, HASH_OF_MAPS, PERF_EVENT_ARRAY,
        QUEUE, SOCKHASH, SOCKMAP, STACK, STACK_TRACE, XSKMAP,
    },
    object::{
        Object, Selection,
        maps::{Definition, Map, MapForm, Slot, entries},
    },
    values::settings::Settings,
};

/// The most bytes of a section without initial content that values can be set in.
const MAX_SET: u32 = 16 << 20;

/// Plans the maps of a selection, in order.
pub(super) fn plan<'a>(
    object: &'a Object<'a>,
    selection: &Selection,
    (request, settings, externs): (&Request<'_>, &'a Settings, &Externs),
    kernel: &dyn Kernel,
) -> Result<Vec<PlannedMap<'a>>, LinkError> {
    let maps = selection.maps.iter().filter_map(|index| object.maps.get(*index));
    maps.map(|map| {
        let wanted = request.maps.get(map.name).copied().unwrap_or_default();
        let data = match map.form {
            MapForm::Kconfig => Some(Cow::Owned(externs.config.clone())),
            _ => data(map, settings)?,
        };
        Ok(PlannedMap {
            name: map.name,
            attributes: attributes(object, (&map.definition, map.form), wanted, kernel),
            inner: map
                .definition
                .inner
                .as_deref()
                .map(|inner| attributes(object, (inner, MapForm::Btf), MapRequest::default(), kernel)),
            data,
            entries: settings.entries.get(map.name).map(Vec::as_slice).unwrap_or_default(),
            is_frozen: map.form.is_constant(),
            slots: slots(object, map),
        })
    })
    .collect()
}

fn attributes(
    object: &Object<'_>,
    (definition, form): (&Definition, MapForm),
    wanted: MapRequest,
    kernel: &dyn Kernel,
) -> MapAttributes {
    let Definition { map_type, key_size, value_size, flags, numa_node, extra, key_type, value_type, .. } = *definition;
    let features = kernel.features();
    let max_entries = match wanted.max_entries.unwrap_or(definition.max_entries) {
        0 if map_type == PERF_EVENT_ARRAY => kernel.cpus(),
        given => entries(map_type, given, kernel.page()),
    };
    let can_be_mapped = features.array_mmap || !form.is_data();
    let takes_types = features.btf && object.btf().is_some() && takes_types(map_type);
    MapAttributes {
        map_type,
        key_size,
        value_size,
        max_entries,
        flags: if can_be_mapped { flags } else { flags & !F_MMAPABLE },
        numa_node,
        extra,
        types: takes_types.then_some((key_type, value_type)),
    }
}

/// Returns whether libbpf gives maps of a type the types of their keys and values (`bpf_object__create_map`).
const fn takes_types(map_type: u32) -> bool {
    !matches!(
        map_type,
        PERF_EVENT_ARRAY
            | STACK_TRACE
            | CGROUP_ARRAY
            | ARRAY_OF_MAPS
            | HASH_OF_MAPS
            | DEVMAP
            | SOCKMAP
            | CPUMAP
            | XSKMAP
            | SOCKHASH
            | QUEUE
            | STACK
            | DEVMAP_HASH
            | ARENA
    )
}

/// Returns the initial value of global data, with the values that the spec sets.
fn data<'a>(map: &Map<'a>, settings: &Settings) -> Result<Option<Cow<'a, [u8]>>, LinkError> {
    let own = (!map.data.is_empty()).then_some(Cow::Borrowed(map.data));
    let Some(values) = settings.globals.get(map.name) else { return Ok(own) };
    let refuse = |what: String| LinkError::Values { map: map.name.to_owned(), what };
    let size = map.definition.value_size;
    let mut content = match own {
        Some(own) => own.into_owned(),
        None if size <= MAX_SET => vec![0; size as usize],
        None => return Err(refuse(format!("it has {size} bytes; values can be set in one of at most {MAX_SET}"))),
    };
    for (offset, value) in values {
        let place = offset.checked_add(value.len()).and_then(|end| content.get_mut(*offset..end));
        place.ok_or_else(|| refuse("a value lies outside it".to_owned()))?.copy_from_slice(value);
    }
    Ok(Some(Cow::Owned(content)))
}

fn slots<'a>(object: &Object<'a>, map: &Map<'a>) -> Vec<(u32, PlannedSlot<'a>)> {
    let slots = map.slots.iter().filter_map(|(slot, held)| {
        let held = match held {
            Slot::Map(index) => PlannedSlot::Map(object.maps.get(*index)?.name),
            Slot::Program(index) => PlannedSlot::Program(object.functions.get(*index)?.name),
        };
        Some((*slot, held))
    });
    slots.collect()
}
