//! `Elf`: the file as its headers tell it, and why bytes are no object that sockeye takes.
//!
//! [`open`] bounds what any reader of the file does and keeps: sections that share bytes, or names that share their ends,
//! would have a few bytes read, and kept, thousands of times. aya-obj, which loads the object, has no bounds of its own; it
//! reads ELF with the same version of the same crate, so that both see the same file.

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind,
    elf::{ELFMAG, EM_BPF, ET_REL, SHT_NOBITS},
    read::elf::{ElfFile64, ElfSection64, FileHeader as _, SectionHeader as _},
};
use sockeye_crds::names::{MAX_OBJECT_BYTES, printable};

use crate::{btf::BtfError, contain::Panicked};

pub(crate) type Elf<'a> = ElfFile64<'a, LittleEndian>;
pub(crate) type ElfSection<'a, 'f> = ElfSection64<'a, 'f, LittleEndian>;

/// A program that clang makes has some dozens.
pub(crate) const MAX_SECTIONS: usize = 1024;
const MAX_SYMBOLS: usize = 16_384;
const MAX_RELOCATIONS: usize = 65_536;
/// A section's name has at most so many bytes.
const MAX_SECTION_NAME: usize = 128;
/// The names of all symbols have, each counted for itself.
const MAX_SYMBOL_NAMES: usize = 2 << 20;
/// Sections that the file does not hold, `.bss`, have together.
const MAX_ZEROED: u64 = 8 << 20;

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
    /// Not an ELF file at all.
    #[error("it is no ELF file: give what clang -target bpf -c makes")]
    NotElf,
    /// A damaged ELF file.
    #[error(
        "it is cut short or damaged, or no 64-bit little-endian ELF file: {0}: build it anew with clang -target bpf -c"
    )]
    Elf(String),
    /// An ELF file for another machine.
    #[error("it is an ELF file for machine {0}, not for BPF (247): compile with -target bpf")]
    Machine(u16),
    /// An ELF file for BPF that no compiler makes.
    #[error("it is no object as compilers make them: {0}")]
    Malformed(&'static str),
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
    /// What this reader should never do.
    #[error("sockeye's reader gave up, which is a defect in sockeye: {0}")]
    Defect(Panicked),
}

impl ObjectError {
    pub(crate) fn elf(error: object::Error) -> Self {
        Self::Elf(error.to_string())
    }
}

/// Refuses more of something than there may be.
pub(crate) fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), ObjectError> {
    if count > most { Err(ObjectError::TooMany { what, most }) } else { Ok(()) }
}

/// What a section is to aya-obj, which goes by its name first (`EbpfSectionKind::from_name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Legacy map definitions.
    Maps,
    /// BTF map definitions.
    TypedMaps,
    /// Global data.
    Data,
    /// Subprograms.
    Text,
    /// Programs.
    Program,
    /// Everything else.
    Other,
}

impl Role {
    pub(crate) fn of(section: &ElfSection<'_, '_>) -> Result<Self, ObjectError> {
        let name = section.name().map_err(ObjectError::elf)?;
        let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
        Ok(if begins(&["license", "version"]) {
            Self::Other
        } else if begins(&["maps"]) {
            Self::Maps
        } else if begins(&[".maps"]) {
            Self::TypedMaps
        } else if begins(&[".text"]) {
            Self::Text
        } else if begins(&[".bss", ".data", ".rodata"]) {
            Self::Data
        } else if section.kind() == SectionKind::Text && section.size() > 0 {
            Self::Program
        } else {
            Self::Other
        })
    }
}

/// Opens a file that is within the bounds.
pub(crate) fn open(bytes: &[u8]) -> Result<Elf<'_>, ObjectError> {
    if bytes.len() > MAX_OBJECT_BYTES {
        return Err(ObjectError::TooLarge(bytes.len()));
    }
    if !bytes.starts_with(&ELFMAG) {
        return Err(ObjectError::NotElf);
    }
    let elf = Elf::parse(bytes).map_err(ObjectError::elf)?;
    let machine = elf.elf_header().e_machine(LittleEndian);
    if machine != EM_BPF {
        return Err(ObjectError::Machine(machine));
    }
    if elf.elf_header().e_type(LittleEndian) != ET_REL {
        return Err(ObjectError::Malformed("it is linked, not relocatable: compile with -c"));
    }
    bound_sections(&elf, bytes.len())?;
    bound_symbols(&elf)?;
    Ok(elf)
}

fn bound_sections(elf: &Elf<'_>, len: usize) -> Result<(), ObjectError> {
    at_most("sections", elf.sections().count(), MAX_SECTIONS)?;
    let (mut held, mut zeroed, mut relocations) = (0u64, 0u64, 0);
    for section in elf.sections() {
        if section.name().map_err(ObjectError::elf)?.len() > MAX_SECTION_NAME {
            return Err(ObjectError::Malformed("a section's name is longer than 128 bytes"));
        }
        if section.address() != 0 {
            return Err(ObjectError::Malformed("a section has an address"));
        }
        let no_bits = section.elf_section_header().sh_type(LittleEndian) == SHT_NOBITS;
        let sum = if no_bits { &mut zeroed } else { &mut held };
        *sum = sum.saturating_add(section.size());
        relocations += section.relocations().take(MAX_RELOCATIONS + 1).count();
        at_most("relocations", relocations, MAX_RELOCATIONS)?;
    }
    if usize::try_from(held).is_ok_and(|held| held <= len) {
        at_most("bytes of .bss", usize::try_from(zeroed).unwrap_or(usize::MAX), MAX_ZEROED as usize)
    } else {
        Err(ObjectError::Malformed("its sections lie over each other, or outside the file"))
    }
}

fn bound_symbols(elf: &Elf<'_>) -> Result<(), ObjectError> {
    at_most("symbols", elf.symbols().count(), MAX_SYMBOLS)?;
    let mut names = 0;
    for symbol in elf.symbols() {
        names += symbol.name().map_err(ObjectError::elf)?.len();
        at_most("bytes of symbols' names", names, MAX_SYMBOL_NAMES)?;
    }
    Ok(())
}

/// A section's bytes, where there is such a section.
pub(crate) fn section_data<'a>(elf: &Elf<'a>, name: &str) -> Result<Option<&'a [u8]>, ObjectError> {
    elf.section_by_name(name).map(|section| section.data()).transpose().map_err(ObjectError::elf)
}
