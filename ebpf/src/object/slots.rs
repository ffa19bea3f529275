//! `Slots`: what an object puts into its maps itself: `.values = {&inner}` of a map of maps, `.values = {&function}` of a
//! program array. As libbpf reads them (`bpf_object__collect_map_relos`): relocations within `.maps`.
//!
//! aya-obj knows nothing of them, and refuses definitions whose values are functions. So it is given a copy in whose BTF that
//! one field has no name, which it skips.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind,
    read::elf::ElfSymbol64,
};
use sockeye_crds::ProgramInfo;

use crate::object::{
    elf::{Elf, Role},
    error::ObjectError,
    limits::{MAX_SLOTS, at_most},
    maps::Map,
};

type Symbol<'a, 'f> = ElfSymbol64<'a, 'f, LittleEndian>;

/// By the map's name: indices, and the name of the map or program that is to stand there.
pub type Slots = BTreeMap<String, Vec<(u32, String)>>;

/// A pointer, as the object has it.
const POINTER: u64 = 8;

/// Reads them, and notes with each map what it holds.
pub(crate) fn read(elf: &Elf<'_>, maps: &mut [Map], programs: &[ProgramInfo]) -> Result<Slots, ObjectError> {
    let mut slots = Slots::new();
    let mut count = 0;
    for section in elf.sections() {
        if Role::of(&section)? != Role::TypedMaps {
            continue;
        }
        for (offset, relocation) in section.relocations() {
            let before = |map: &&Map| map.section == section.index() && map.address.is_some_and(|at| at <= offset);
            let map = maps.iter().filter(before).max_by_key(|map| map.address);
            let map = map.ok_or(ObjectError::Malformed("a relocation of .maps belongs to no map"))?;
            let bad = |what| ObjectError::Map { name: map.info.name.clone(), what };
            let index = index(map, offset).ok_or_else(|| bad("it refers to something outside its values"))?;
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return Err(bad("it refers to something that has no symbol"));
            };
            let symbol = elf.symbol_by_index(symbol).map_err(ObjectError::elf)?;
            let held = match map.info.map_type.as_str() {
                "ProgArray" => program(&symbol, programs)?.ok_or("it holds what is no program, or a static one"),
                "ArrayOfMaps" | "HashOfMaps" if map.info.key_size == 4 => {
                    inner(&symbol, maps).ok_or("it holds what is no map, or a static one")
                }
                _ => Err("a map of its type, or with keys of its size, can't hold anything from the start"),
            };
            count += 1;
            at_most("values in maps", count, MAX_SLOTS)?;
            slots.entry(map.info.name.clone()).or_default().push((index, held.map_err(bad)?.to_owned()));
        }
    }
    for map in maps {
        let held = slots.get(&map.info.name).into_iter().flatten().map(|(_, name)| name.clone());
        map.info.holds = held.collect::<BTreeSet<_>>().into_iter().collect();
    }
    Ok(slots)
}

/// Which of a map's values stands there in the section.
fn index(map: &Map, offset: u64) -> Option<u32> {
    let first = map.address?.checked_add(map.values?.offset.into())?;
    let at = offset.checked_sub(first).filter(|at| at % POINTER == 0)?;
    u32::try_from(at / POINTER).ok()
}

fn program<'p>(symbol: &Symbol<'_, '_>, programs: &'p [ProgramInfo]) -> Result<Option<&'p str>, ObjectError> {
    let name = symbol.name().map_err(ObjectError::elf)?;
    let named = programs.iter().find(|program| program.name == name && symbol.kind() == SymbolKind::Text);
    Ok(named.map(|program| program.name.as_str()))
}

fn inner<'m>(symbol: &Symbol<'_, '_>, maps: &'m [Map]) -> Option<&'m str> {
    let there = |map: &&Map| Some(map.section) == symbol.section_index() && map.address == Some(symbol.address());
    let map = maps.iter().find(there).filter(|_| symbol.kind() != SymbolKind::Section);
    map.map(|map| map.info.name.as_str())
}

/// Where in the file the names of fields stand that aya-obj must not see: values of program arrays.
pub(crate) fn hidden(elf: &Elf<'_>, maps: &[Map]) -> Vec<usize> {
    let btf = elf.section_by_name(".BTF").and_then(|section| section.file_range());
    let values = maps.iter().filter(|map| map.info.map_type == "ProgArray").filter_map(|map| map.values);
    let places: BTreeSet<usize> = values.map(|values| values.named_at).collect();
    btf.map(|(start, _)| places.into_iter().filter_map(|at| usize::try_from(start).ok()?.checked_add(at)).collect())
        .unwrap_or_default()
}
