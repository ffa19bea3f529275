//! `ObjectError`: why sockeye refuses an object, or the programs and maps of it that a spec names.

use sockeye_crds::names::printable;

use crate::object::{image::ImageError, maps::MapError, references::ReferenceError};

/// The reason why sockeye refuses an object, or the programs and maps of it that a spec names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The file can't be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The records about instructions can't be told apart.
    #[error("its .BTF.ext is damaged: {0}: build it anew")]
    Records(&'static str),
    /// The spec's programs need too many items of one kind.
    #[error("the programs, with all that they call, have more than {most} {what}")]
    TooMany {
        /// The kind of the items.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// The object lacks a program.
    #[error("it has no program {}", printable(.0))]
    NoProgram(String),
    /// The object lacks a map.
    #[error("it has no map {}", printable(.0))]
    NoMap(String),
    /// A map can't be created.
    #[error("map {}: {what}", printable(.name))]
    Map {
        /// The name of the map.
        name: String,
        /// The description of the fault.
        what: String,
    },
    /// A function can't be run.
    #[error("function {}: {what}", printable(.name))]
    Function {
        /// The name of the function.
        name: String,
        /// The description of the fault.
        what: String,
    },
    /// Something that a program needs is defined nowhere.
    #[error(
        "function {}: {} is defined in no object: link the object with the one that defines it (bpftool gen object), \
         or declare it __ksym if it is the kernel's",
        printable(.function),
        printable(.name)
    )]
    Undefined {
        /// The name of the function.
        function: String,
        /// The name of what it needs.
        name: String,
    },
    /// A name cannot be a pin's file name.
    #[error("the name {} can't be pinned: letters, digits and '_', at most 128", printable(.0))]
    Name(String),
}

impl ObjectError {
    pub(crate) fn function(name: &str, what: impl ToString) -> Self {
        Self::Function { name: name.to_owned(), what: what.to_string() }
    }

    pub(crate) fn reference(name: &str, error: &ReferenceError) -> Self {
        Self::function(name, error)
    }

    pub(crate) fn map(name: &str, error: &MapError) -> Self {
        Self::Map { name: name.to_owned(), what: error.to_string() }
    }
}
