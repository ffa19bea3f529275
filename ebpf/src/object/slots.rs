//! `Slots`: the values that an object itself puts into its maps: `.values = {&inner}` of a map of maps, `.values =
//! {&function}` of a program array. They are relocations in `.maps`, which libbpf reads in
//! `bpf_object__collect_map_relos`.
//!
//! aya-obj does not support them and refuses definitions whose values are functions. So it gets a copy of the object in
//! which the BTF field `values` has no name, and skips the field.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind,
    read::elf::ElfSymbol64,
};
use sockeye_crds::ProgramInfo;

use crate::object::{
    elf::{Elf, Role},
    error::{ObjectError, at_most},
    limits::MAX_SLOTS,
    maps::Map,
};

type Symbol<'a, 'f> = ElfSymbol64<'a, 'f, LittleEndian>;

/// By the map's name: indices with the name of the map or program to put there.
pub type Slots = BTreeMap<String, Vec<(u32, String)>>;

/// The size of a pointer in the object.
const POINTER: u64 = 8;

/// Reads the slots, and adds to each map's information what it holds.
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
                "ArrayOfMaps" | "HashOfMaps" if map.info.key_size_bytes == 4 => {
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

/// Returns the index of the map's value at an offset in the section.
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

/// Returns the file offsets of the words that refer to the name of the field `values` of program arrays, which aya-obj
/// must not see.
pub(crate) fn hidden(elf: &Elf<'_>, maps: &[Map]) -> Vec<usize> {
    let btf = elf.section_by_name(".BTF").and_then(|section| section.file_range());
    let values = maps.iter().filter(|map| map.info.map_type == "ProgArray").filter_map(|map| map.values);
    let places: BTreeSet<usize> = values.map(|values| values.named_at).collect();
    btf.map(|(start, _)| places.into_iter().filter_map(|at| usize::try_from(start).ok()?.checked_add(at)).collect())
        .unwrap_or_default()
}
