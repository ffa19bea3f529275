//! `Image`: an ELF file for BPF as borrowed sections, symbols and relocations.
//!
//! The reader judges only what makes the whole file unreadable. A section outside the file or a symbol without a name
//! is an error of whoever asks for its bytes or its name. Nothing is copied, and each look-up reads a bounded number of
//! bytes, so a file costs at most a fixed number of passes over it.
//!
//! The layout is that of elf(5). libbpf reads the same fields in `bpf_object__elf_init` and `bpf_object__elf_collect`.

mod error;
mod name;
mod symbol;

use std::collections::BTreeMap;

use self::name::name;
pub use self::{
    error::ImageError,
    symbol::{Binding, Place, Symbol, SymbolKind, Visibility},
};
use crate::bytes::{half, long, word};
use sockeye_crds::names::MAX_OBJECT_BYTES;

/// `SHT_PROGBITS`: bytes in the file.
const PROGBITS: u32 = 1;
/// `SHT_SYMTAB`
const SYMTAB: u32 = 2;
/// `SHT_RELA`: relocations with addends, which no BPF compiler emits.
const RELA: u32 = 4;
/// `SHT_NOBITS`: zeroes that the file does not hold.
const NOBITS: u32 = 8;
/// `SHT_REL`
const REL: u32 = 9;
/// `SHT_CREL` of LLVM: compact relocations.
const CREL: u32 = 0x4000_0014;
/// `SHF_EXECINSTR`
const EXECUTABLE: u64 = 4;
/// The size of `Elf64_Ehdr`.
const HEADER: usize = 64;
/// The size of `Elf64_Shdr`.
const SECTION_HEADER: usize = 64;
/// The size of `Elf64_Sym`.
const SYMBOL: usize = 24;
/// The size of `Elf64_Rel`.
const RELOCATION: usize = 16;
/// An ELF file for BPF.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    sections: Vec<Section<'a>>,
    symbols: &'a [u8],
    symbol_names: &'a [u8],
    /// By the index of the section to relocate: the tables with its relocations.
    relocations: BTreeMap<usize, Vec<&'a [u8]>>,
    /// The sections whose relocations are in a form that is not read.
    unread_relocations: Vec<usize>,
}

/// A section.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The index in the section header table.
    pub index: usize,
    /// The name.
    pub name: &'a str,
    /// The size in bytes, in memory.
    pub size: u64,
    /// The bytes. `None` if the section lies outside the file.
    bytes: Option<&'a [u8]>,
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
}

/// A relocation (`Elf64_Rel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The offset in the section, in bytes.
    pub offset: u64,
    /// The index of the symbol.
    pub symbol: usize,
}

impl<'a> Section<'a> {
    /// Returns the bytes. A section without bits has none.
    pub fn data(&self) -> Result<&'a [u8], ImageError> {
        self.bytes.ok_or_else(|| ImageError::Outside(self.name.to_owned()))
    }

    /// Returns whether the file holds bytes of the program itself (`SHT_PROGBITS`), not tables or debug information of
    /// other kinds.
    pub const fn has_bits(&self) -> bool {
        self.kind == PROGBITS
    }

    /// Returns whether the section has a size and no bytes in the file.
    pub const fn is_zeroed(&self) -> bool {
        self.kind == NOBITS
    }

    /// Returns whether the section holds instructions.
    pub const fn is_code(&self) -> bool {
        self.kind == PROGBITS && self.flags & EXECUTABLE != 0 && self.size > 0
    }
}

impl<'a> Image<'a> {
    /// Reads a file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if bytes.len() > MAX_OBJECT_BYTES {
            return Err(ImageError::TooLarge(bytes.len()));
        }
        check_header(bytes)?;
        let sections = sections(bytes)?;
        let mut image = Self {
            symbols: &[],
            symbol_names: &[],
            relocations: BTreeMap::new(),
            unread_relocations: Vec::new(),
            sections,
        };
        for section in image.sections.iter().skip(1) {
            let target = section.info as usize;
            match section.kind {
                SYMTAB if !image.symbols.is_empty() => return Err(ImageError::TwoSymbolTables),
                SYMTAB => {
                    image.symbols = section.data()?;
                    let names = image.sections.get(section.link as usize).ok_or(ImageError::CutOff)?;
                    image.symbol_names = names.data()?;
                }
                REL => image.relocations.entry(target).or_default().push(section.bytes.unwrap_or_default()),
                RELA | CREL => image.unread_relocations.push(target),
                _ => {}
            }
        }
        if image.symbols.is_empty() { Err(ImageError::NoSymbols) } else { Ok(image) }
    }

    /// Returns all sections. The first one is the null section.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// Returns a section.
    pub fn section(&self, index: usize) -> Option<&Section<'a>> {
        self.sections.get(index)
    }

    /// Returns the first section of a name.
    pub fn section_named(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().skip(1).find(|section| section.name == name)
    }

    /// Returns the last section of a name: of several, it is the one that libbpf takes what describes the object from
    /// (`bpf_object__elf_collect`).
    pub fn last_section_named(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().skip(1).rfind(|section| section.name == name)
    }

    /// Returns a symbol.
    pub fn symbol(&self, index: usize) -> Option<Symbol<'a>> {
        let start = index.checked_mul(SYMBOL)?;
        let entry = self.symbols.get(start..start.checked_add(SYMBOL)?)?;
        Symbol::read(index, entry, self.symbol_names)
    }

    /// Returns all symbols.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        let names = self.symbol_names;
        self.symbols.chunks_exact(SYMBOL).enumerate().filter_map(move |(i, entry)| Symbol::read(i, entry, names))
    }

    /// Returns the relocations of a section, in the file's order.
    pub fn relocations(&self, section: usize) -> impl Iterator<Item = Relocation> + '_ {
        let tables = self.relocations.get(&section).map(Vec::as_slice).unwrap_or_default();
        tables.iter().flat_map(|table| table.chunks_exact(RELOCATION)).filter_map(|entry| {
            // The upper half of `r_info` is the symbol. BPF uses the lower half for types that the instruction tells.
            Some(Relocation { offset: long(entry, 0)?, symbol: word(entry, 12)? as usize })
        })
    }

    /// Returns whether a section has relocations in a form that only linkers of machine code read.
    pub fn has_unread_relocations(&self, section: usize) -> bool {
        self.unread_relocations.contains(&section)
    }
}

/// Checks that a file is a relocatable ELF file for BPF.
fn check_header(bytes: &[u8]) -> Result<(), ImageError> {
    const MAGIC: &[u8] = b"\x7fELF";
    if !bytes.starts_with(MAGIC) {
        return Err(ImageError::NotElf);
    }
    let byte = |at: usize| bytes.get(at).copied().ok_or(ImageError::CutOff);
    let (class, order) = (byte(4)?, byte(5)?);
    if order == 2 {
        return Err(ImageError::BigEndian);
    }
    if class != 2 || order != 1 {
        return Err(ImageError::NotElf64);
    }
    let (kind, machine) = half(bytes, 16).zip(half(bytes, 18)).ok_or(ImageError::CutOff)?;
    if bytes.len() < HEADER {
        return Err(ImageError::CutOff);
    }
    // Early compilers for BPF wrote 0 (`EM_NONE`); 247 is `EM_BPF`.
    if !matches!(machine, 0 | 247) {
        return Err(ImageError::Machine(machine));
    }
    // `ET_REL`
    if kind == 1 { Ok(()) } else { Err(ImageError::Linked) }
}

/// Reads the section header table.
fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>, ImageError> {
    let (Some(start), Some(size), Some(count), Some(names)) =
        (long(bytes, 40), half(bytes, 58), half(bytes, 60), half(bytes, 62))
    else {
        return Err(ImageError::CutOff);
    };
    if start == 0 || count == 0 {
        return Err(ImageError::NoSections);
    }
    if usize::from(size) != SECTION_HEADER {
        return Err(ImageError::CutOff);
    }
    let start = usize::try_from(start).map_err(|_| ImageError::CutOff)?;
    let end = usize::from(count).checked_mul(SECTION_HEADER).and_then(|len| start.checked_add(len));
    let table = end.and_then(|end| bytes.get(start..end)).filter(|table| !table.is_empty());
    let headers = table.ok_or(ImageError::CutOff)?.chunks_exact(SECTION_HEADER);
    let names = headers.clone().nth(usize::from(names)).and_then(|header| bits(bytes, header));
    let names = names.ok_or(ImageError::CutOff)?;
    headers.enumerate().map(|(index, header)| section(bytes, names, index, header).ok_or(ImageError::CutOff)).collect()
}

fn section<'a>(bytes: &'a [u8], names: &'a [u8], index: usize, header: &[u8]) -> Option<Section<'a>> {
    let kind = word(header, 4)?;
    Some(Section {
        index,
        name: name(names, word(header, 0)?),
        size: long(header, 32)?,
        bytes: if kind == NOBITS { Some(&[]) } else { bits(bytes, header) },
        kind,
        flags: long(header, 8)?,
        link: word(header, 40)?,
        info: word(header, 44)?,
    })
}

/// Returns the part of the file that a section header describes.
fn bits<'a>(bytes: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let (start, len) = (usize::try_from(long(header, 24)?).ok()?, usize::try_from(long(header, 32)?).ok()?);
    bytes.get(start..start.checked_add(len)?)
}

#[cfg(test)]
mod tests;
