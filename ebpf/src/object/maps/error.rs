//! `MapError`: why a map can't be created.

use sockeye_crds::names::printable;

use crate::btf::BtfError;

/// The reason why a map can't be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MapError {
    /// There are no types, which hold the definitions.
    #[error("its definition is in BTF, and the object has none: compile it with -g, and strip it with llvm-strip -g")]
    NoBtf,
    /// The types, which hold the definitions, can't be read.
    #[error("its definition is in BTF, which can't be read: {0}: build the object anew")]
    Types(BtfError),
    /// The records about instructions can't be read. libbpf then loads no object with such maps.
    #[error(
        "its definition is in BTF, and nothing of it is loaded without the CO-RE relocations, functions and lines, \
         which can't be read: {0}: build the object anew"
    )]
    Records(BtfError),
    /// The map is static.
    #[error("it is static, so instructions that use it don't name it: define the map without `static`")]
    Static,
    /// The definition is damaged, or of a form that libbpf does not take either.
    #[error("{0}")]
    Definition(&'static str),
    /// A field has an unexpected type.
    #[error("its field {} is not written as {}", printable(.0), .1)]
    Field(String, &'static str),
    /// A field says something else than another one.
    #[error("its field {} contradicts another one", printable(.0))]
    Conflict(&'static str),
    /// The field is not known.
    #[error(
        "its field {} is not known: it would have no effect; these are: type, key, key_size, value, value_size, \
         values, max_entries, map_flags, map_extra, numa_node, pinning",
        printable(.0)
    )]
    Unknown(String),
    /// The size of a key or value is not known.
    #[error("its {0} is of a type without size")]
    NoSize(&'static str),
    /// The file ends before the section's data.
    #[error("its section lies outside the file")]
    Outside,
    /// The section is larger than a map can be.
    #[error("it has {0} bytes, more than a map can hold")]
    TooLarge(u64),
    /// The type of map needs something that sockeye can't do.
    #[error("maps of type {0} need {1}, which sockeye can't give them")]
    Type(&'static str, &'static str),
    /// The object fills the map with something else than the map holds.
    #[error("{0}")]
    Slot(&'static str),
}
