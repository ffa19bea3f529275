//! Slots: the values that an object itself puts into its maps: `.values = {&inner}` of a map of maps, `.values =
//! {&function}` of a program array. They are relocations of `.maps`, which libbpf reads in
//! `bpf_object__collect_map_relos`.

use super::{Map, MapError, MapForm, Slot};
use crate::{
    kinds::map_type::PROG_ARRAY,
    object::{
        functions::Functions,
        image::{Image, Symbol, SymbolKind},
    },
};

/// The size of a pointer in the object.
const POINTER: u64 = 8;
/// The most values that an object puts into one map.
const MAX_SLOTS: usize = 65_536;

/// Reads the slots of all maps.
pub(super) fn read(image: &Image<'_>, maps: &mut [Map<'_>], functions: &Functions<'_>) {
    let Some(section) = maps.iter().find(|map| map.form == MapForm::Btf).map(|map| map.section) else { return };
    // Maps with definitions lie side by side, ordered by offset.
    let typed: Vec<usize> = (0..maps.len()).filter(|i| maps.get(*i).is_some_and(|m| m.form == MapForm::Btf)).collect();
    for relocation in image.relocations(section) {
        let after = typed.partition_point(|i| maps.get(*i).is_some_and(|map| map.offset <= relocation.offset));
        let Some(holder) = after.checked_sub(1).and_then(|i| typed.get(i)).copied() else { continue };
        let held = image
            .symbol(relocation.symbol)
            .ok_or("it refers to something that has no symbol")
            .and_then(|symbol| held(maps, holder, &symbol, functions));
        let Some(map) = maps.get_mut(holder) else { continue };
        let slot = index(map, relocation.offset).ok_or("it refers to something outside its values");
        match slot.and_then(|slot| Ok((slot, held?))) {
            Ok(_) if map.slots.len() >= MAX_SLOTS => {
                map.fault = Some(MapError::Slot("it holds too much from the start"))
            }
            Ok(slot) => map.slots.push(slot),
            Err(fault) => drop(map.fault.get_or_insert(MapError::Slot(fault))),
        }
    }
    for map in maps {
        // A later value of one slot takes the place of an earlier one.
        map.slots.reverse();
        map.slots.sort_by_key(|(slot, _)| *slot);
        map.slots.dedup_by_key(|(slot, _)| *slot);
    }
}

/// Returns the index of the map's value at an offset in the section.
fn index(map: &Map<'_>, offset: u64) -> Option<u32> {
    let first = map.offset.checked_add(map.definition.values_at?.into())?;
    let at = offset.checked_sub(first).filter(|at| at % POINTER == 0)?;
    u32::try_from(at / POINTER).ok()
}

fn held(maps: &[Map<'_>], holder: usize, symbol: &Symbol<'_>, functions: &Functions<'_>) -> Result<Slot, &'static str> {
    let holder = maps.get(holder).ok_or("it is not there")?;
    let definition = &holder.definition;
    if definition.map_type == PROG_ARRAY {
        let section = symbol.section().filter(|_| symbol.kind == SymbolKind::Function);
        let start = usize::try_from(symbol.offset).ok();
        let found = section.zip(start).and_then(|(section, start)| functions.at(section, start));
        let begins = |index: &usize| {
            functions.get(*index).is_some_and(|function| function.is_program() && Some(function.start) == start)
        };
        return found.filter(begins).map(Slot::Program).ok_or("it holds what is no program, or a static one");
    }
    if !definition.holds_maps() || definition.key_size != 4 {
        return Err("a map of its type, or with keys of its size, can't hold anything from the start");
    }
    let there = |map: &Map<'_>| Some(map.section) == symbol.section() && map.offset == symbol.offset;
    let is_inner = |map: &Map<'_>| map.form == MapForm::Btf && there(map) && symbol.kind != SymbolKind::Section;
    maps.iter().position(is_inner).map(Slot::Map).ok_or("it holds what is no map, or a static one")
}
