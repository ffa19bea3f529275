//! `Elf`: the file as its headers tell it, and why bytes are no object that sockeye takes.

use object::{LittleEndian, Object as _, ObjectSection as _, read::elf::ElfFile64};
use sockeye_crds::names::MAX_OBJECT_BYTES;

use crate::btf::BtfError;

pub(crate) type Elf<'a> = ElfFile64<'a, LittleEndian>;

/// Why bytes are no object that sockeye takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Too many bytes.
    #[error("it has {0} bytes; an object may have {MAX_OBJECT_BYTES}")]
    TooLarge(usize),
    /// Too many of something.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        most: usize,
    },
    /// Not an ELF file, or a damaged one.
    #[error("it is no 64-bit little-endian ELF file: {0}")]
    Elf(String),
    /// An ELF file for another machine.
    #[error("it is an ELF file for machine {0}, not for BPF (247): compile with -target bpf")]
    Machine(u16),
    /// Its types can't be read.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A map's definition can't be read.
    #[error("map {}: {what}", printable(.name))]
    Map {
        /// The map's, or its section's, name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A function can't be read.
    #[error("function {}: {what}", printable(.name))]
    Function {
        /// The function's name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A name that can't be pinned.
    #[error("the name {} can't be pinned: letters, digits and '_', at most 128", printable(.0))]
    Name(String),
}

impl ObjectError {
    pub(crate) fn elf(error: object::Error) -> Self {
        Self::Elf(error.to_string())
    }
}

/// Text from an object, fit to be shown: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect();
    format!("{clean:?}")
}

/// Refuses more of something than there may be.
pub(crate) fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), ObjectError> {
    if count > most { Err(ObjectError::TooMany { what, most }) } else { Ok(()) }
}

/// A section's bytes, where there is such a section.
pub(crate) fn section_data<'a>(elf: &Elf<'a>, name: &str) -> Result<Option<&'a [u8]>, ObjectError> {
    elf.section_by_name(name).map(|section| section.data()).transpose().map_err(ObjectError::elf)
}
