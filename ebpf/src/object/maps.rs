//! The maps that an object defines: by legacy definitions, by definitions with BTF, and as global data. Names and sizes
//! agree with aya-obj's.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex};
use sockeye_crds::{MapDefinition, MapInfo};

use crate::{
    btf::{Btf, BtfError, Field, word},
    kinds::map_type,
    object::{
        elf::{Elf, ElfSection, Role},
        error::{ObjectError, at_most},
        limits::MAX_MAPS,
    },
};

/// A map, with the place that instructions' relocations refer to.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) info: MapInfo,
    pub(crate) section: SectionIndex,
    /// The address of the symbol in the section. Absent for global data, which is the whole section.
    pub(crate) address: Option<u64>,
    /// True if the object asks to have the map pinned by its name.
    pub(crate) asks_to_be_pinned: bool,
    /// The BTF type of keys, if the definition has one.
    pub(crate) key_type: Option<u32>,
    /// The BTF type of values, if the definition has one.
    pub(crate) value_type: Option<u32>,
    /// The `values` field of the definition, if it has one.
    pub(crate) values: Option<Values>,
}

/// A field `__array(values, ...)` of a definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    /// The offset from the definition's start, in bytes.
    pub(crate) offset: u32,
    /// The offset in `.BTF` of the word that refers to the field's name.
    pub(crate) named_at: usize,
}

/// A map's definition.
#[derive(Clone, Copy, Debug, Default)]
struct Definition {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    pinning: u32,
    key_type: Option<u32>,
    value_type: Option<u32>,
    values: Option<Values>,
}

/// `BPF_F_RDONLY_PROG`, the flag with which libbpf and aya create `.rodata`.
const F_RDONLY_PROG: u32 = 1 << 7;
/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;

/// Reads all maps.
pub(crate) fn read(elf: &Elf<'_>, btf: Option<&Btf<'_>>) -> Result<Vec<Map>, ObjectError> {
    let mut maps = Vec::new();
    for section in elf.sections() {
        let name = section.name().map_err(ObjectError::elf)?;
        match Role::of(&section)? {
            Role::Maps => maps.extend(legacy(elf, &section, name)?),
            Role::TypedMaps => maps.extend(typed(elf, &section, name, btf)?),
            Role::Data => maps.push(data(&section, name)?),
            Role::Text | Role::Program | Role::Other => {}
        }
        at_most("maps", maps.len(), MAX_MAPS)?;
    }
    maps.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    Ok(maps)
}

/// Reads a "maps" section, in which each symbol is a `struct bpf_map_def` of five words or more.
fn legacy(elf: &Elf<'_>, section: &ElfSection<'_, '_>, name: &str) -> Result<Vec<Map>, ObjectError> {
    let data = section.data().map_err(ObjectError::elf)?;
    let mut maps = Vec::new();
    for symbol in elf.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
        let map = symbol.name().map_err(ObjectError::elf)?;
        let invalid = |what: &'static str| ObjectError::Map { name: map.to_owned(), what };
        let start = usize::try_from(symbol.address()).map_err(|_| invalid("it lies outside its section"))?;
        let end = usize::try_from(symbol.size()).ok().and_then(|size| start.checked_add(size));
        let words = end.and_then(|end| data.get(start..end)).ok_or_else(|| invalid("it lies outside its section"))?;
        if words.len() < 20 {
            return Err(invalid("its definition is shorter than five words"));
        }
        let at = |i: usize| word(words, 4 * i).unwrap_or_default();
        let pinning = at(6);
        if pinning > 1 || (25..28).contains(&words.len()) {
            return Err(invalid("its definition asks for a pinning that is not known"));
        }
        let definition = Definition {
            map_type: at(0),
            key_size: at(1),
            value_size: at(2),
            max_entries: at(3),
            flags: at(4),
            pinning,
            ..Definition::default()
        };
        maps.push(definition.map(map, MapDefinition::Legacy, section.index(), Some(symbol.address())));
        at_most("maps", maps.len(), MAX_MAPS)?;
    }
    if maps.is_empty() {
        Err(ObjectError::Map { name: name.to_owned(), what: "the section has no symbols" })
    } else {
        Ok(maps)
    }
}

/// Reads a ".maps" section, in which each variable is a map, as libbpf's `parse_btf_map_def` does.
fn typed(
    elf: &Elf<'_>,
    section: &ElfSection<'_, '_>,
    name: &str,
    btf: Option<&Btf<'_>>,
) -> Result<Vec<Map>, ObjectError> {
    let btf = btf.ok_or(ObjectError::Btf(BtfError::Malformed("there is none, and .maps needs it")))?;
    let mut maps = Vec::new();
    for (map, type_id) in btf.variables(name, MAX_MAPS)? {
        let symbol = elf.symbols().find(|s| s.section_index() == Some(section.index()) && s.name() == Ok(map));
        let missing = || ObjectError::Map { name: map.to_owned(), what: "it has no symbol" };
        let address = symbol.ok_or_else(missing)?.address();
        let definition = Definition::from_btf(btf, type_id)?;
        maps.push(definition.map(map, MapDefinition::Btf, section.index(), Some(address)));
    }
    Ok(maps)
}

/// Reads a section of global data, which is an array of one element.
fn data(section: &ElfSection<'_, '_>, name: &str) -> Result<Map, ObjectError> {
    let value_size = u32::try_from(section.size()).ok().filter(|size| (1..=1 << 20).contains(size));
    let what = "the section is empty, or larger than an object may be";
    let value_size = value_size.ok_or_else(|| ObjectError::Map { name: name.to_owned(), what })?;
    let flags = if name.starts_with(".rodata") { F_RDONLY_PROG } else { 0 };
    let definition =
        Definition { map_type: ARRAY, key_size: 4, value_size, max_entries: 1, flags, ..Definition::default() };
    Ok(definition.map(name, MapDefinition::Data, section.index(), None))
}

impl Definition {
    fn from_btf(btf: &Btf<'_>, type_id: u32) -> Result<Self, BtfError> {
        let mut definition = Self::default();
        for Field { name, type_id: id, offset, named_at } in btf.fields(type_id)? {
            match name {
                "type" => definition.map_type = btf.uint(id)?,
                "key" => {
                    let key = btf.pointed(id)?;
                    (definition.key_type, definition.key_size) = (Some(key), btf.size(key)?);
                }
                "key_size" => definition.key_size = btf.uint(id)?,
                "value" => {
                    let value = btf.pointed(id)?;
                    (definition.value_type, definition.value_size) = (Some(value), btf.size(value)?);
                }
                "value_size" => definition.value_size = btf.uint(id)?,
                "max_entries" => definition.max_entries = btf.uint(id)?,
                "map_flags" => definition.flags = btf.uint(id)?,
                "pinning" => definition.pinning = btf.uint(id)?,
                // The values of maps of maps and of program arrays are descriptors (u32), whatever the declared type.
                "values" => {
                    btf.element(id)?;
                    definition.key_size = if definition.key_size == 0 { 4 } else { definition.key_size };
                    definition.value_size = 4;
                    definition.values = Some(Values { offset, named_at });
                }
                _ => {}
            }
        }
        Ok(definition)
    }

    fn map(self, name: &str, definition: MapDefinition, section: SectionIndex, address: Option<u64>) -> Map {
        let Self { map_type, key_size, value_size, max_entries, flags, pinning, key_type, value_type, values } = self;
        let info = MapInfo {
            name: name.to_owned(),
            map_type: map_type::name(map_type).into_owned(),
            key_size_bytes: key_size.into(),
            value_size_bytes: value_size.into(),
            max_entries: max_entries.into(),
            flags: flags.into(),
            definition,
            used_by: Vec::new(),
            holds: Vec::new(),
        };
        Map { info, section, address, asks_to_be_pinned: pinning == 1, key_type, value_type, values }
    }
}
