//! `Symbol`: an entry of the symbol table (`Elf64_Sym`).

use super::name::name;
use crate::bytes::{half, long, word};

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// The index in the symbol table, which relocations name.
    pub index: usize,
    /// The section that defines the symbol, if one does.
    pub place: Place,
    /// The offset in the section, in bytes.
    pub offset: u64,
    /// The size in bytes.
    pub size: u64,
    /// The kind of the symbol.
    pub kind: SymbolKind,
    /// Who sees the symbol: other files, or none.
    pub binding: Binding,
    /// Who sees the symbol once it is linked.
    pub visibility: Visibility,
    name: u32,
    names: &'a [u8],
}

/// The place where a symbol is defined (`st_shndx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In no section of this file (`SHN_UNDEF`).
    Undefined,
    /// In the section with this index.
    Section(usize),
    /// In none, with a special meaning (`SHN_ABS`, `SHN_COMMON`).
    Special(u16),
}

/// The kind of a symbol (`ELF64_ST_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Untyped: an undefined symbol, or a label.
    Untyped,
    /// A variable.
    Object,
    /// A function.
    Function,
    /// A section.
    Section,
    /// Anything else.
    Other,
}

/// The binding of a symbol (`ELF64_ST_BIND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Of this file only: `static` in C.
    Local,
    /// Of all files.
    Global,
    /// Of all files, unless another one defines it too: `__weak`.
    Weak,
    /// Anything else.
    Other,
}

/// The visibility of a symbol (`ELF64_ST_VISIBILITY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// As the binding says.
    Default,
    /// `__hidden` or internal: libbpf makes the BTF of such functions static.
    Hidden,
    /// Visible, and never overridden.
    Protected,
}

impl<'a> Symbol<'a> {
    /// Reads an entry of 24 bytes.
    pub(super) fn read(index: usize, entry: &[u8], names: &'a [u8]) -> Option<Self> {
        let (info, other) = (*entry.get(4)?, *entry.get(5)?);
        Some(Self {
            index,
            place: match half(entry, 6)? {
                0 => Place::Undefined,
                special @ 0xff00.. => Place::Special(special),
                section => Place::Section(section.into()),
            },
            offset: long(entry, 8)?,
            size: long(entry, 16)?,
            kind: match info & 0xf {
                0 => SymbolKind::Untyped,
                1 => SymbolKind::Object,
                2 => SymbolKind::Function,
                3 => SymbolKind::Section,
                _ => SymbolKind::Other,
            },
            binding: match info >> 4 {
                0 => Binding::Local,
                1 => Binding::Global,
                2 => Binding::Weak,
                _ => Binding::Other,
            },
            visibility: match other & 3 {
                1 | 2 => Visibility::Hidden,
                3 => Visibility::Protected,
                _ => Visibility::Default,
            },
            name: word(entry, 0)?,
            names,
        })
    }

    /// Returns the name; empty if the symbol has none.
    pub fn name(&self) -> &'a str {
        name(self.names, self.name)
    }

    /// Returns the index of the section that the symbol is in.
    pub const fn section(&self) -> Option<usize> {
        match self.place {
            Place::Section(section) => Some(section),
            Place::Undefined | Place::Special(_) => None,
        }
    }

    /// Returns whether other files see the symbol.
    pub const fn is_global(&self) -> bool {
        matches!(self.binding, Binding::Global | Binding::Weak)
    }

    /// Returns whether the symbol is one that another file or the kernel defines (libbpf's `sym_is_extern`).
    pub fn is_extern(&self) -> bool {
        self.place == Place::Undefined && self.is_global() && self.kind == SymbolKind::Untyped
    }
}
