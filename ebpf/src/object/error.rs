//! `ObjectError`: why bytes are no object that sockeye takes.

use sockeye_crds::names::{MAX_OBJECT_BYTES, printable};

use crate::{contain::Panicked, object::btf::BtfError};

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
