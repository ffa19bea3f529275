//! `TypeInfo`: what `.BTF` and `.BTF.ext` of a file say, or why that can't be read.
//!
//! The outcomes are libbpf's. Where it refuses the whole object (`bpf_object__elf_collect`,
//! `bpf_object__relocate_core`), [`TypeInfo::read`] does. Where it goes on without (`bpf_object__init_btf`), the fault
//! is kept: libbpf then still refuses objects that need types, and here the maps and externs that need them.

use super::{
    ObjectError,
    image::{Image, ImageError, Section},
};
use crate::btf::{Btf, BtfError, Ext};

/// The sections with types, and with the records about instructions.
const BTF: &str = ".BTF";
const EXT: &str = ".BTF.ext";

/// Types, and records about instructions.
#[derive(Debug, Default)]
pub(super) struct TypeInfo<'a> {
    /// The types, if the file has any that can be read.
    pub(super) btf: Option<Btf<'a>>,
    /// Why the types can't be read, if the file has some that can't.
    pub(super) btf_fault: Option<BtfError>,
    /// The records; none if they can't be read.
    pub(super) ext: Ext<'a>,
    /// Why the records can't be read, if the file has some that can't.
    pub(super) ext_fault: Option<BtfError>,
}

impl<'a> TypeInfo<'a> {
    /// Reads both sections.
    pub(super) fn read(image: &Image<'a>) -> Result<Self, ObjectError> {
        let mut info = Self::default();
        match data(image, BTF)?.filter(|data| !data.is_empty()).map(Btf::parse) {
            Some(Ok(btf)) => info.btf = Some(btf),
            Some(Err(fault)) => info.btf_fault = Some(fault),
            None => {}
        }
        let Some(records) = data(image, EXT)? else { return Ok(info) };
        let Some(btf) = &info.btf else {
            let none = BtfError::Malformed("there are no types, which .BTF.ext refers to");
            info.ext_fault = Some(info.btf_fault.clone().unwrap_or(none));
            return Ok(info);
        };
        match Ext::parse(records) {
            Ok(ext) => info.ext = ext,
            Err(fault) => info.ext_fault = Some(fault),
        }
        let mut names = info.ext.core_relos.sections().map(|section| btf.strings().name(section.name_off));
        if names.any(<[u8]>::is_empty) {
            return Err(ObjectError::Records("CO-RE relocations in it are about a section without a name"));
        }
        Ok(info)
    }
}

/// Returns the bytes of the last section of a name, if there is any. libbpf refuses the object if any of them has none.
fn data<'a>(image: &Image<'a>, name: &str) -> Result<Option<&'a [u8]>, ImageError> {
    let sections = || image.sections().iter().skip(1).filter(|section| section.name == name);
    if sections().any(|section| !section.has_bits()) {
        return Err(ImageError::NoBits(name.to_owned()));
    }
    sections().next_back().map(Section::data).transpose()
}
