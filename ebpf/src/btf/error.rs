//! `BtfError`: why bytes are no BTF that libbpf would read.

/// A fault in `.BTF` or `.BTF.ext`. libbpf refuses what has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The header or one of the parts is damaged, or a type is not what its use asks for.
    #[error("BTF: {0}")]
    Malformed(&'static str),
    /// A type is of a kind that libbpf does not know either.
    #[error("BTF: type {id} is of kind {kind}, which is not known")]
    Kind {
        /// The type's ID.
        id: u32,
        /// The number of its kind.
        kind: u8,
    },
    /// A type is damaged.
    #[error("BTF: type {id}: {what}")]
    Type {
        /// The type's ID.
        id: u32,
        /// The description of the fault.
        what: &'static str,
    },
}
