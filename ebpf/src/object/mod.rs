//! `Object`: an ELF object for BPF as its bytes describe it: programs, maps, which program uses which map, licence. No
//! IO.
//!
//! The bytes may come from anyone. [`Object::read`] refuses only what can't be read at all; everything else is judged
//! when somebody selects it ([`Object::select`]). Every walk is bounded by the size of the file.
//!
//! | module | noun |
//! |---|---|
//! | [`image`] | the file: its sections, symbols and relocations |
//! | `functions` | the functions, each known by section and offset |
//! | `callbacks` | the functions that programs' exceptions end in |
//! | `externs` | what the kernel or another object defines |
//! | `maps` | the maps that the object defines, and what it puts into them |
//! | `references` | what instructions refer to |
//! | [`Selection`] | the programs that a spec names, with all that they need |
//! | `uses` | the maps that each program uses |
//! | `limits` | the limits on what a spec's programs may need |

mod callbacks;
mod error;
pub(crate) mod externs;
pub(crate) mod functions;
pub mod image;
mod limits;
pub(crate) mod maps;
pub(crate) mod references;
mod selection;
mod uses;

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    MapInfo, ObjectInfo, ProgramInfo,
    names::{is_pin_name, line},
};

pub use self::{error::ObjectError, selection::Selection};
use self::{
    externs::Extern,
    functions::{Function, Functions},
    image::Image,
    maps::Map,
    references::MapPlaces,
    uses::Uses,
};
use crate::{
    btf::{Btf, BtfError, Ext},
    kinds::{map_type, section},
};

/// The most programs in a status.
const MAX_LISTED: usize = 64;

/// An ELF object for BPF.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub(crate) image: Image<'a>,
    /// The types, if the object has any that can be read.
    pub(crate) btf: Option<Btf<'a>>,
    btf_fault: Option<BtfError>,
    pub(crate) ext: Ext<'a>,
    pub(crate) functions: Functions<'a>,
    pub(crate) externs: Vec<Extern<'a>>,
    /// The index in `externs` of each symbol that is one.
    extern_symbols: BTreeMap<usize, usize>,
    pub(crate) maps: Vec<Map<'a>>,
    places: MapPlaces,
    /// The exception callback of each program that has one, as indices of functions.
    callbacks: BTreeMap<usize, usize>,
}

impl<'a> Object<'a> {
    /// Reads an object from its bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let image = Image::parse(bytes)?;
        let section = |name| image.section_named(name).and_then(|section| section.data().ok());
        let (btf, btf_fault) = match section(".BTF").filter(|data| !data.is_empty()).map(Btf::parse) {
            Some(Ok(btf)) => (Some(btf), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        // libbpf, too, goes on without records that it can't read.
        let ext = section(".BTF.ext").filter(|_| btf.is_some()).and_then(|data| Ext::parse(data).ok());
        let functions = Functions::read(&image);
        let externs = externs::read(&image, btf.as_ref());
        let maps = maps::read(&image, btf.as_ref(), &externs, &functions);
        Ok(Self {
            ext: ext.unwrap_or_default(),
            extern_symbols: externs.iter().enumerate().map(|(index, one)| (one.symbol, index)).collect(),
            places: MapPlaces::of(maps.iter().map(|map| (map.section, map.offset, map.form))),
            callbacks: btf.as_ref().map(|btf| callbacks::read(btf, &functions)).unwrap_or_default(),
            image,
            btf,
            btf_fault,
            functions,
            externs,
            maps,
        })
    }

    /// Returns the file.
    pub const fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// Returns the types.
    pub const fn btf(&self) -> Option<&Btf<'a>> {
        self.btf.as_ref()
    }

    /// Returns why the types can't be read, if the object has some that can't.
    pub const fn btf_fault(&self) -> Option<&BtfError> {
        self.btf_fault.as_ref()
    }

    /// Returns whether any of the object's functions is relocated against the kernel's types.
    pub fn has_core_relocations(&self) -> bool {
        !self.ext.core_relos.is_empty()
    }

    /// Returns the licence: the bytes of its section before the first NUL, as libbpf passes them. An object without one
    /// has none.
    pub fn license(&self) -> &'a [u8] {
        let data = self.image.section_named("license").and_then(|section| section.data().ok()).unwrap_or_default();
        data.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Returns the kernel's version that the object says it is for, as kernels before 5.0 want it.
    pub fn kernel_version(&self) -> Option<u32> {
        let data = self.image.section_named("version")?.data().ok()?;
        data.try_into().ok().map(u32::from_le_bytes)
    }

    /// Returns the function that a program's exceptions end in, if it names one.
    pub(crate) fn exception_callback(&self, program: usize) -> Option<usize> {
        self.callbacks.get(&program).copied()
    }

    /// Returns the names of all maps.
    pub fn maps(&self) -> impl Iterator<Item = &'a str> {
        self.maps.iter().map(|map| map.name)
    }

    /// Returns the names of all programs, with the sections that they are in, in no order.
    pub fn programs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let programs = self.functions.all().iter().filter(|function| function.is_program());
        programs.map(|function| (function.name, function.section_name))
    }

    /// Returns the name of the section that a program is in.
    pub fn section_of(&self, program: &str) -> Option<&'a str> {
        let index = self.functions.program(program)?;
        self.functions.get(index).map(|function| function.section_name)
    }

    /// Returns whether libbpf loads a program only if it is asked to: its section's name begins with `?`.
    pub fn is_optional(&self, program: &str) -> bool {
        let function = self.functions.program(program).and_then(|index| self.functions.get(index));
        let section = function.and_then(|function| self.image.section(function.section));
        section.is_some_and(|section| section.name.starts_with('?'))
    }

    /// Returns the names of the maps that the selection asks to have pinned by the object's own word. Sockeye ignores
    /// this.
    pub fn pin_requests(&self, selection: &Selection) -> Vec<&'a str> {
        let maps = selection.maps.iter().filter_map(|index| self.maps.get(*index));
        maps.filter(|map| map.definition.is_pinned).map(|map| map.name).collect()
    }

    /// Returns the names of the maps that are not created for the selection.
    pub fn left_out(&self, selection: &Selection) -> Vec<&'a str> {
        selection.left_out.iter().filter_map(|index| self.maps.get(*index)).map(|map| map.name).collect()
    }

    /// Returns the names of the selected maps for which the kernel wants a number of entries that the object does not
    /// say.
    pub fn without_entries(&self, selection: &Selection) -> Vec<&'a str> {
        let maps = selection.maps.iter().filter_map(|index| self.maps.get(*index));
        maps.filter(|map| map.definition.lacks_entries()).map(|map| map.name).collect()
    }

    /// Returns whether the object defines a map.
    pub fn has_map(&self, name: &str) -> bool {
        self.map(name).is_some()
    }

    /// Returns the index of a map.
    pub(crate) fn map(&self, name: &str) -> Option<usize> {
        self.maps.iter().position(|map| map.name == name)
    }

    /// Adds the maps that no program uses to a selection, and returns the content as statuses show it: the selected
    /// programs and maps, and of the other programs as many as there is room for.
    pub fn info(&self, selection: &mut Selection) -> ObjectInfo {
        let uses = Uses::of(self);
        uses.add_unused(self, selection);
        let programs = self.listed_programs(selection);
        let mut used_by: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, index) in &programs {
            for map in uses.maps(*index) {
                used_by.entry(map).or_default().push((*name).to_owned());
            }
        }
        let maps = selection
            .maps
            .iter()
            .filter_map(|index| Some(self.map_info(self.maps.get(*index)?, used_by.remove(index).unwrap_or_default())));
        let mut maps: Vec<MapInfo> = maps.collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        let programs = programs.into_values().filter_map(|index| self.functions.get(index)).map(program_info);
        ObjectInfo {
            programs: programs.collect(),
            maps,
            license: line(&String::from_utf8_lossy(self.license()), 128),
            btf: self.btf.is_some(),
        }
    }

    /// Returns the programs that a status lists, by name.
    fn listed_programs(&self, selection: &Selection) -> BTreeMap<&'a str, usize> {
        let all = self.functions.all().iter().enumerate().filter(|(_, function)| {
            function.is_program() && is_pin_name(function.name) && is_plain(function.section_name)
        });
        let mut listed: BTreeMap<&str, usize> =
            selection.programs.iter().filter_map(|index| Some((self.functions.get(*index)?.name, *index))).collect();
        for (index, function) in all {
            if listed.len() >= MAX_LISTED {
                break;
            }
            listed.entry(function.name).or_insert(index);
        }
        listed
    }

    fn map_info(&self, map: &Map<'_>, used_by: Vec<String>) -> MapInfo {
        use sockeye_crds::MapDefinition;
        let definition = &map.definition;
        let held = map.slots.iter().filter_map(|(_, slot)| match slot {
            maps::Slot::Map(index) => self.maps.get(*index).map(|map| map.name),
            maps::Slot::Program(index) => self.functions.get(*index).map(|function| function.name),
        });
        let held: BTreeSet<&str> = held.collect();
        MapInfo {
            name: map.name.to_owned(),
            map_type: map_type::name(definition.map_type).into_owned(),
            key_size_bytes: definition.key_size.into(),
            value_size_bytes: definition.value_size.into(),
            max_entries: definition.max_entries.into(),
            flags: definition.flags.into(),
            definition: match map.form {
                maps::MapForm::Legacy => MapDefinition::Legacy,
                maps::MapForm::Btf => MapDefinition::Btf,
                _ => MapDefinition::Data,
            },
            used_by,
            holds: held.into_iter().map(str::to_owned).collect(),
        }
    }
}

fn program_info(function: &Function<'_>) -> ProgramInfo {
    ProgramInfo {
        name: function.name.to_owned(),
        section: line(function.section_name, 256),
        program_type: section::type_of(function.section_name),
    }
}

/// Returns whether text from the object is safe to show: one short line of printable ASCII.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
