//! Maps of the time before BTF: each symbol in a section `maps` is a `struct bpf_map_def`.
//!
//! Three layouts are in use, which begin alike: libbpf's of five words, aya's of seven (with `id` and `pinning`), and
//! iproute2's of nine (`struct bpf_elf_map`, with `id`, `pinning`, `inner_id` and `inner_idx`). The kernel's samples
//! had one of seven with `inner_map_idx` and `numa_node`. libbpf takes none of them since 1.0; sockeye does.

use std::collections::BTreeMap;

use super::{Definition, Map, MapError, MapForm};
use crate::{
    btf::{Btf, Kind},
    bytes::word,
    object::image::{Image, Section, Symbol, SymbolKind},
};

/// `BPF_F_NUMA_NODE`
const F_NUMA_NODE: u32 = 1 << 2;
/// The prefix of the variables that name the types of a legacy map's keys and values: libbpf's
/// `BPF_ANNOTATE_KV_PAIR` before 0.7.
const ANNOTATION: &[u8] = b"____btf_map_";

/// Reads the maps.
pub(super) fn read<'a>(image: &Image<'a>, btf: Option<&Btf<'a>>) -> Vec<Map<'a>> {
    let is_legacy = |section: &&Section<'a>| section.name == "maps" || section.name.starts_with("maps/");
    let sections: Vec<&Section<'a>> = image.sections().iter().filter(is_legacy).collect();
    if sections.is_empty() {
        return Vec::new();
    }
    let annotations = btf.map(annotations).unwrap_or_default();
    let mut maps = Vec::new();
    let mut words = Vec::new();
    for symbol in image.symbols().filter(|symbol| matches!(symbol.kind, SymbolKind::Object | SymbolKind::Untyped)) {
        let section = sections.iter().find(|section| symbol.section() == Some(section.index));
        let Some(section) = section.filter(|_| !symbol.name().is_empty()) else { continue };
        let read = bytes(section, &symbol);
        let (definition, fault) = match &read {
            Ok(bytes) => (definition(bytes, annotations.get(symbol.name().as_bytes())), None),
            Err(fault) => (Definition::default(), Some(fault.clone())),
        };
        words.push(read.unwrap_or_default());
        maps.push(Map {
            name: symbol.name(),
            form: MapForm::Legacy,
            section: section.index,
            offset: symbol.offset,
            definition,
            data: &[],
            slots: Vec::new(),
            fault,
        });
    }
    inner(&mut maps, &words);
    maps
}

fn bytes<'a>(section: &Section<'a>, symbol: &Symbol<'_>) -> Result<&'a [u8], MapError> {
    let data = section.data().map_err(|_| MapError::Outside)?;
    let start = usize::try_from(symbol.offset).ok();
    let end = start.zip(usize::try_from(symbol.size).ok()).and_then(|(start, size)| start.checked_add(size));
    let bytes = start.zip(end).and_then(|(start, end)| data.get(start..end)).ok_or(MapError::Outside)?;
    if bytes.len() < 20 {
        return Err(MapError::Definition("its definition is shorter than five words"));
    }
    Ok(bytes)
}

fn definition(bytes: &[u8], types: Option<&(u32, u32, u32, u32)>) -> Definition {
    let at = |i: usize| word(bytes, 4 * i).unwrap_or_default();
    let mut definition = Definition {
        map_type: at(0),
        key_size: at(1),
        value_size: at(2),
        max_entries: at(3),
        flags: at(4),
        ..Definition::default()
    };
    if definition.flags & F_NUMA_NODE != 0 && bytes.len() == 28 {
        definition.numa_node = at(6);
    } else {
        definition.is_pinned = at(6) != 0;
    }
    if let Some((key_type, key_size, value_type, value_size)) = types
        && (*key_size, *value_size) == (definition.key_size, definition.value_size)
    {
        (definition.key_type, definition.value_type) = (*key_type, *value_type);
    }
    definition
}

/// Gives each map of maps the shape of its inner maps, which iproute2's layout names by their `id`.
fn inner(maps: &mut [Map<'_>], words: &[&[u8]]) {
    const IPROUTE2: usize = 36;
    let ids: Vec<Option<(u32, u32)>> =
        words.iter().map(|bytes| word(bytes, 20).zip(word(bytes, 28)).filter(|_| bytes.len() == IPROUTE2)).collect();
    for i in 0..maps.len() {
        let Some((_, wanted)) = ids.get(i).copied().flatten().filter(|(_, wanted)| *wanted != 0) else { continue };
        let found = ids.iter().position(|ids| ids.is_some_and(|(id, _)| id == wanted));
        let inner = found.and_then(|found| maps.get(found)).map(|map| Box::new(map.definition.clone()));
        if let Some(map) = maps.get_mut(i).filter(|map| map.definition.holds_maps()) {
            map.definition.inner = inner.filter(|inner| inner.inner.is_none());
        }
    }
}

/// Returns the types and sizes of keys and values by the name of the legacy map that they are of.
fn annotations<'a>(btf: &Btf<'a>) -> BTreeMap<&'a [u8], (u32, u32, u32, u32)> {
    let annotated = btf.types().filter(|one| one.kind == Kind::Struct).filter_map(|one| {
        let map = one.name().strip_prefix(ANNOTATION)?;
        let mut members = one.members();
        let (key, value) = (members.next()?.type_id, members.next()?.type_id);
        Some((map, (key, btf.resolve_size(key)?, value, btf.resolve_size(value)?)))
    });
    annotated.collect()
}
