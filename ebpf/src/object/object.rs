//! `Object`: an ELF object for BPF, as its bytes describe it.

use std::collections::BTreeMap;

use super::{
    ObjectError, callbacks,
    externs::{self, Extern},
    functions::Functions,
    image::Image,
    maps::{self, Map, MapError, MapForm, MapPlaces},
    type_info::TypeInfo,
};
use crate::btf::{Btf, BtfError, Ext};

/// An ELF object for BPF.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub(crate) image: Image<'a>,
    /// The types, if the object has any that can be read.
    pub(crate) btf: Option<Btf<'a>>,
    btf_fault: Option<BtfError>,
    /// The records about instructions; none if they can't be read.
    pub(crate) ext: Ext<'a>,
    ext_fault: Option<BtfError>,
    pub(crate) functions: Functions<'a>,
    pub(crate) externs: Vec<Extern<'a>>,
    /// The index in `externs` of each symbol that is one.
    pub(super) extern_symbols: BTreeMap<usize, usize>,
    pub(crate) maps: Vec<Map<'a>>,
    pub(super) places: MapPlaces,
    /// The exception callback of each program that has one, as indices of functions.
    callbacks: BTreeMap<usize, usize>,
}

impl<'a> Object<'a> {
    /// Reads an object from its bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let image = Image::parse(bytes)?;
        let TypeInfo { btf, btf_fault, ext, ext_fault } = TypeInfo::read(&image)?;
        let functions = Functions::read(&image);
        let externs = externs::read(&image, btf.as_ref());
        let mut maps = maps::read(&image, btf.as_ref(), &externs, &functions);
        for map in maps.iter_mut().filter(|map| map.form == MapForm::Btf) {
            match (&btf_fault, &ext_fault) {
                (Some(fault), _) => map.fault = Some(MapError::Types(fault.clone())),
                (None, Some(fault)) => drop(map.fault.get_or_insert_with(|| MapError::Records(fault.clone()))),
                (None, None) => {}
            }
        }
        Ok(Self {
            extern_symbols: externs.iter().enumerate().map(|(index, one)| (one.symbol, index)).collect(),
            places: MapPlaces::of(maps.iter().map(|map| (map.section, map.offset, map.form))),
            callbacks: btf.as_ref().map(|btf| callbacks::read(btf, &functions)).unwrap_or_default(),
            image,
            btf,
            btf_fault,
            ext,
            ext_fault,
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

    /// Returns why the records about instructions (CO-RE relocations, functions and lines) can't be read, if the object
    /// has some that can't.
    pub const fn ext_fault(&self) -> Option<&BtfError> {
        self.ext_fault.as_ref()
    }

    /// Returns whether any of the object's functions is relocated against the kernel's types.
    pub fn has_core_relocations(&self) -> bool {
        !self.ext.core_relos.is_empty()
    }

    /// Returns the licence: the bytes of its section before the first NUL, as libbpf passes them. An object without one
    /// has none.
    pub fn license(&self) -> &'a [u8] {
        let data = self.image.last_section_named("license").and_then(|section| section.data().ok()).unwrap_or_default();
        data.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Returns the kernel's version that the object says it is for, as kernels before 5.0 want it.
    pub fn kernel_version(&self) -> Option<u32> {
        let data = self.image.last_section_named("version")?.data().ok()?;
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

    /// Returns why a function of that name is no program, if the object has one.
    pub(crate) fn why_no_program(&self, name: &str) -> Option<&'static str> {
        let function = self.functions.all().iter().find(|function| function.name == name)?;
        Some(if function.is_global {
            "it has a function of that name, which is a subprogram (section .text): give it a section, as \
             SEC(\"sockops\")"
        } else {
            "it has a static function of that name: define it without `static`"
        })
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

    /// Returns whether the object defines a map.
    pub fn has_map(&self, name: &str) -> bool {
        self.map(name).is_some()
    }

    /// Returns the index of a map.
    pub(crate) fn map(&self, name: &str) -> Option<usize> {
        self.maps.iter().position(|map| map.name == name)
    }
}
