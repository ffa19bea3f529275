//! `Elf`: the file, opened within bounds.
//!
//! [`open`] bounds the work and memory of every later reader: sections that share bytes, and names that share their
//! ends, would otherwise be read and copied thousands of times. aya-obj reads ELF with the same version of the same
//! crate, so both see the same file.

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind,
    elf::{ELFMAG, EM_BPF, ET_REL, SHT_NOBITS},
    read::elf::{ElfFile64, ElfSection64, FileHeader as _, SectionHeader as _},
};
use sockeye_crds::names::MAX_OBJECT_BYTES;

use crate::object::{
    error::{ObjectError, at_most},
    limits::{MAX_RELOCATIONS, MAX_SECTION_NAME, MAX_SECTIONS, MAX_SYMBOL_NAMES, MAX_SYMBOLS, MAX_ZEROED},
};

pub(crate) type Elf<'a> = ElfFile64<'a, LittleEndian>;
pub(crate) type ElfSection<'a, 'f> = ElfSection64<'a, 'f, LittleEndian>;

/// The role of a section, as aya-obj determines it: by the name first (`EbpfSectionKind::from_name`).
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
    /// Any other section.
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

/// Opens a file, or refuses one that exceeds the limits.
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

/// Returns the bytes of a section, if the file has it.
pub(crate) fn section_data<'a>(elf: &Elf<'a>, name: &str) -> Result<Option<&'a [u8]>, ObjectError> {
    elf.section_by_name(name).map(|section| section.data()).transpose().map_err(ObjectError::elf)
}
