//! Maps that are variables in `.maps`, whose types are the definitions: libbpf's `parse_btf_map_def`.

use std::collections::BTreeMap;

use super::{Definition, Map, MapError, MapForm};
use crate::{
    btf::{Btf, Kind, Member, SectionVar},
    kinds::map_type::{ARENA, PROG_ARRAY, RINGBUF, USER_RINGBUF},
    object::image::{Image, Section, SymbolKind},
};

/// The section of map definitions. Old compilers' macros put annotations of legacy maps into `.maps.NAME`.
const SECTION: &str = ".maps";
/// `BTF_VAR_GLOBAL_ALLOCATED`
const GLOBAL: u32 = 1;

type Result<T> = std::result::Result<T, MapError>;

/// Reads the maps.
pub(super) fn read<'a>(image: &Image<'a>, btf: Option<&Btf<'a>>) -> Vec<Map<'a>> {
    let Some(section) = image.last_section_named(SECTION) else { return Vec::new() };
    let Some(btf) = btf else { return without_btf(image, section) };
    let Some(variables) = btf.find(SECTION.as_bytes(), Kind::Datasec) else { return without_btf(image, section) };
    let symbols: Vec<_> = image.symbols().filter(|symbol| symbol.section() == Some(section.index)).collect();
    let by_name: BTreeMap<&[u8], u64> =
        symbols.iter().map(|symbol| (symbol.name().as_bytes(), symbol.offset)).collect();
    let mut maps: Vec<Map<'a>> = variables
        .vars()
        .filter_map(|entry| {
            let variable = btf.get(entry.type_id)?;
            let name = str::from_utf8(variable.name()).ok().filter(|name| !name.is_empty())?;
            let found = by_name.get(variable.name()).copied();
            let read = match found {
                _ if variable.kind != Kind::Var => Err(MapError::Definition("its section names what is no variable")),
                _ if variable.linkage() != GLOBAL => Err(MapError::Static),
                None => Err(MapError::Definition("it has no symbol")),
                Some(offset) => definition(btf, section, (offset, entry), variable.type_id()),
            };
            let (definition, fault) = match read {
                Ok(definition) => (definition, None),
                Err(fault) => (Definition::default(), Some(fault)),
            };
            let offset = found.unwrap_or_else(|| entry.offset.into());
            Some(Map { fault, ..map(name, section.index, offset, definition) })
        })
        .collect();
    // The linker and libbpf order the variables of a section by their offsets.
    maps.sort_by_key(|map| map.offset);
    maps
}

fn map<'a>(name: &'a str, section: usize, offset: u64, definition: Definition) -> Map<'a> {
    Map { name, form: MapForm::Btf, section, offset, definition, data: &[], slots: Vec::new(), fault: None }
}

/// Returns the maps of a section whose definitions can't be read.
fn without_btf<'a>(image: &Image<'a>, section: &Section<'a>) -> Vec<Map<'a>> {
    let symbols = image.symbols();
    symbols
        .filter(|symbol| symbol.section() == Some(section.index) && symbol.kind == SymbolKind::Object)
        .map(|symbol| Map {
            fault: Some(MapError::NoBtf),
            ..map(symbol.name(), section.index, symbol.offset, Definition::default())
        })
        .collect()
}

/// Reads the definition of a variable at an offset.
fn definition(
    btf: &Btf<'_>,
    section: &Section<'_>,
    (offset, entry): (u64, SectionVar),
    type_id: u32,
) -> Result<Definition> {
    let structure = btf.skip_modifiers(type_id).filter(|one| one.kind == Kind::Struct);
    let structure = structure.ok_or(MapError::Definition("its type is no struct"))?;
    if offset.checked_add(entry.size.into()).is_none_or(|end| end > section.size) {
        return Err(MapError::Definition("it lies outside its section"));
    }
    if structure.size() > entry.size {
        return Err(MapError::Definition("it is smaller than its type"));
    }
    let definition = parse(btf, structure.id, true)?;
    match definition.map_type {
        0 => Err(MapError::Definition("it says no type: __uint(type, BPF_MAP_TYPE_...)")),
        ARENA => Err(MapError::Type("Arena", "memory that a process maps at an address of the definition's")),
        _ => Ok(definition),
    }
}

/// Reads the fields of a definition; `is_outer` says that it is no inner map's.
fn parse(btf: &Btf<'_>, type_id: u32, is_outer: bool) -> Result<Definition> {
    let mut parsed = Definition::default();
    let structure = btf.get(type_id).ok_or(MapError::Definition("its type is not there"))?;
    let count = structure.members().len();
    for (i, member) in structure.members().enumerate() {
        field(btf, &mut parsed, &member, is_outer)?;
        if parsed.values_at.is_some() && i + 1 != count {
            return Err(MapError::Definition("values must be the last of its fields"));
        }
    }
    Ok(parsed)
}

fn field(btf: &Btf<'_>, parsed: &mut Definition, member: &Member<'_>, is_outer: bool) -> Result<()> {
    match member.name() {
        b"type" => parsed.map_type = number(btf, member)?,
        b"max_entries" => parsed.max_entries = number(btf, member)?,
        b"map_flags" => parsed.flags = number(btf, member)?,
        b"numa_node" => parsed.numa_node = number(btf, member)?,
        b"map_extra" => parsed.extra = long(btf, member)?,
        b"key_size" => set(&mut parsed.key_size, number(btf, member)?, "key_size")?,
        b"value_size" => set(&mut parsed.value_size, number(btf, member)?, "value_size")?,
        b"key" => {
            parsed.key_type = pointed(btf, member)?;
            set(&mut parsed.key_size, btf.resolve_size(parsed.key_type).ok_or(MapError::NoSize("key"))?, "key")?;
        }
        b"value" => {
            parsed.value_type = pointed(btf, member)?;
            set(
                &mut parsed.value_size,
                btf.resolve_size(parsed.value_type).ok_or(MapError::NoSize("value"))?,
                "value",
            )?;
        }
        b"values" if !is_outer => return Err(MapError::Definition("its inner maps hold maps, which no kernel allows")),
        b"values" => values(btf, parsed, member)?,
        b"pinning" if !is_outer => return Err(MapError::Definition("its inner maps ask to be pinned")),
        b"pinning" => match number(btf, member)? {
            0 => {}
            1 => parsed.is_pinned = true,
            _ => return Err(MapError::Definition("it asks for a pinning that is not known")),
        },
        _ => return Err(MapError::Unknown(member.text().into_owned())),
    }
    Ok(())
}

/// Sets a size, which another field may have said before.
fn set(size: &mut u32, to: u32, field: &'static str) -> Result<()> {
    if *size != 0 && *size != to {
        return Err(MapError::Conflict(field));
    }
    *size = to;
    Ok(())
}

/// Reads a number that `__uint` declares: the length of an array that the type points to.
fn number(btf: &Btf<'_>, member: &Member<'_>) -> Result<u32> {
    let pointer = btf.skip_modifiers(member.type_id).filter(|one| one.kind == Kind::Ptr);
    let array = pointer.and_then(|pointer| btf.get(pointer.type_id())).and_then(|one| one.array());
    array.map(|array| array.len).ok_or_else(|| MapError::Field(member.text().into_owned(), "__uint(name, number)"))
}

/// Reads a number that `__uint` or `__ulong` declares. The latter is an enum with one value.
fn long(btf: &Btf<'_>, member: &Member<'_>) -> Result<u64> {
    let one = btf.skip_modifiers(member.type_id);
    match one.filter(|one| one.kind.is_any_enum() && one.vlen() == 1).and_then(|one| one.enumerators().next()) {
        Some(enumerator) => Ok(enumerator.value),
        None => number(btf, member).map(u64::from),
    }
}

/// Returns the type that a field's type points to.
fn pointed(btf: &Btf<'_>, member: &Member<'_>) -> Result<u32> {
    let pointer = btf.get(member.type_id).filter(|one| one.kind == Kind::Ptr);
    pointer
        .map(|pointer| pointer.type_id())
        .ok_or_else(|| MapError::Field(member.text().into_owned(), "__type(name, type)"))
}

/// Reads `__array(values, ...)`: what the map holds, maps of a definition or programs.
fn values(btf: &Btf<'_>, parsed: &mut Definition, member: &Member<'_>) -> Result<()> {
    if !parsed.holds_maps() && parsed.map_type != PROG_ARRAY {
        return Err(MapError::Definition("it has values, which only maps of maps and program arrays have"));
    }
    set(&mut parsed.value_size, 4, "values")?;
    parsed.values_at = Some(member.bit_offset / 8);
    let wrong = || MapError::Field("values".to_owned(), "__array(values, type)");
    let array = btf.get(member.type_id).and_then(|one| one.array()).filter(|array| array.len == 0);
    let pointer = array.and_then(|array| btf.skip_modifiers(array.element)).filter(|one| one.kind == Kind::Ptr);
    let held = pointer.and_then(|pointer| btf.skip_modifiers(pointer.type_id())).ok_or_else(wrong)?;
    match held.kind {
        Kind::FuncProto if parsed.map_type == PROG_ARRAY => Ok(()),
        Kind::Struct if parsed.holds_maps() => {
            let inner = parse(btf, held.id, false)?;
            if inner.map_type == 0 {
                return Err(MapError::Definition("its inner maps say no type: __uint(type, BPF_MAP_TYPE_...)"));
            }
            parsed.inner = Some(Box::new(inner));
            Ok(())
        }
        _ => Err(wrong()),
    }
}

/// Returns the size that a ring buffer is created with: libbpf's `adjust_ringbuf_sz`, a power of two of pages. Other
/// maps have theirs.
pub(crate) fn entries(map_type: u32, entries: u32, page: u32) -> u32 {
    let is_ring = matches!(map_type, RINGBUF | USER_RINGBUF);
    if !is_ring || entries == 0 || page == 0 {
        return entries;
    }
    let pages = entries.div_ceil(page).checked_next_power_of_two();
    pages.and_then(|pages| pages.checked_mul(page)).unwrap_or(entries)
}
