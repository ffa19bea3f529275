//! `ObjectError`: why sockeye refuses bytes as an object.

use sockeye_crds::names::{MAX_OBJECT_BYTES, printable};

use crate::{btf::BtfError, contain::Panicked};

/// The reason why sockeye refuses bytes as an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The object has too many bytes.
    #[error("it has {0} bytes; an object may have {MAX_OBJECT_BYTES}")]
    TooLarge(usize),
    /// The object has too many items of one kind.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// The kind of the items.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// The bytes are not an ELF file.
    #[error("it is no ELF file: give what clang -target bpf -c makes")]
    NotElf,
    /// The ELF file is damaged.
    #[error(
        "it is cut short or damaged, or no 64-bit little-endian ELF file: {0}: build it anew with clang -target bpf -c"
    )]
    Elf(String),
    /// The ELF file is for another machine.
    #[error("it is an ELF file for machine {0}, not for BPF (247): compile with -target bpf")]
    Machine(u16),
    /// The ELF file is for BPF, but no compiler emits such a file.
    #[error("it is no object as compilers make them: {0}")]
    Malformed(&'static str),
    /// The BTF is damaged.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The definition of a map is damaged.
    #[error("map {}: {what}", printable(.name))]
    Map {
        /// The name of the map, or of its section.
        name: String,
        /// The description of the fault.
        what: &'static str,
    },
    /// A function is damaged.
    #[error("function {}: {what}", printable(.name))]
    Function {
        /// The name of the function.
        name: String,
        /// The description of the fault.
        what: &'static str,
    },
    /// A name cannot be a pin's file name.
    #[error("the name {} can't be pinned: letters, digits and '_', at most 128", printable(.0))]
    Name(String),
    /// The reader panicked, which it never should.
    #[error("sockeye's reader gave up, which is a defect in sockeye: {0}")]
    Defect(Panicked),
}

impl ObjectError {
    pub(crate) fn elf(error: object::Error) -> Self {
        Self::Elf(error.to_string())
    }
}

/// Refuses more than `most` items of a kind.
pub(crate) fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), ObjectError> {
    if count > most { Err(ObjectError::TooMany { what, most }) } else { Ok(()) }
}
