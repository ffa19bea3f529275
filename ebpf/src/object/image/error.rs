//! `ImageError`: why a file can't be read as an ELF file for BPF.

use sockeye_crds::names::{MAX_OBJECT_BYTES, printable};

/// The reason why a file can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The file has too many bytes.
    #[error("it has {0} bytes; an object may have {MAX_OBJECT_BYTES}")]
    TooLarge(usize),
    /// The bytes are not an ELF file.
    #[error("it is no ELF file: give what clang -target bpf -c makes")]
    NotElf,
    /// The file is not a 64-bit ELF file.
    #[error("it is no 64-bit ELF file: compile with -target bpf")]
    NotElf64,
    /// The file is for machines with the other byte order.
    #[error("it is for big-endian machines (-target bpfeb): compile with -target bpfel")]
    BigEndian,
    /// The file is for another machine.
    #[error("it is an ELF file for machine {0}, not for BPF (247): compile with -target bpf")]
    Machine(u16),
    /// The file is an executable or a library.
    #[error("it is linked, not relocatable: compile with -c")]
    Linked,
    /// The file has no section headers.
    #[error(
        "it has no section headers, which say where its programs are (llvm-strip --strip-sections takes them off): \
         strip it with llvm-strip -g"
    )]
    NoSections,
    /// A part of the file is missing.
    #[error("it is a damaged ELF file, or cut short: its section headers lie outside the file: build it anew")]
    CutOff,
    /// A section lies outside the file.
    #[error("it is a damaged ELF file, or cut short: section {} lies outside the file: build it anew", printable(.0))]
    Outside(String),
    /// A section is not one of bytes in the file (`SHT_PROGBITS`).
    #[error("its section {} holds no bytes: build it anew", printable(.0))]
    NoBits(String),
    /// The file has no symbol table.
    #[error(
        "it has no symbol table, so nothing in it can be found: strip it with llvm-strip -g, which keeps the table"
    )]
    NoSymbols,
    /// The file has more than one symbol table.
    #[error("it has two symbol tables, which no compiler writes")]
    TwoSymbolTables,
}
