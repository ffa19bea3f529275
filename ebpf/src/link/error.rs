//! `LinkError`: why an object can't be linked for a kernel.

use sockeye_crds::names::printable;

use super::core::CoreError;
use crate::object::ObjectError;

/// The reason why an object can't be linked for a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The object, or what is to be loaded of it, is damaged.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The object needs the kernel's types, which can't be read.
    #[error("function {}: {needs}, and the kernel's BTF can't be read: {why}", printable(.function))]
    NoKernelBtf {
        /// The function.
        function: String,
        /// The purpose that it needs them for.
        needs: String,
        /// Why they can't be read.
        why: String,
    },
    /// A relocation against the kernel's types fails.
    #[error("function {}: {error}", printable(.function))]
    Core {
        /// The function.
        function: String,
        /// The relocation and why it fails.
        error: CoreError,
    },
    /// The kernel lacks a function or a variable, or has another of that name.
    #[error("function {}: {what} {}, {why}", printable(.function), printable(.name))]
    Symbol {
        /// The function.
        function: String,
        /// How it uses the symbol.
        what: &'static str,
        /// The symbol's name.
        name: String,
        /// Why it can't.
        why: String,
    },
    /// A value of the kernel's configuration is not known, or does not fit its variable.
    #[error("function {}: it reads {}: {why}", printable(.function), printable(.name))]
    Config {
        /// The function.
        function: String,
        /// The name of the value.
        name: String,
        /// Why it can't be given.
        why: String,
    },
    /// The records about instructions are damaged.
    #[error("function {}: {what}", printable(.function))]
    Info {
        /// The function.
        function: String,
        /// The description of the fault.
        what: &'static str,
    },
    /// The values that are set do not fit the map.
    #[error("map {}: {what}", printable(.map))]
    Values {
        /// The map.
        map: String,
        /// The description of the fault.
        what: String,
    },
}

impl LinkError {
    /// Returns whether another kernel, or the same one set up otherwise, may run the object.
    pub const fn is_of_kernel(&self) -> bool {
        match self {
            Self::NoKernelBtf { .. } | Self::Symbol { .. } | Self::Config { .. } => true,
            Self::Core { error, .. } => error.is_of_kernel(),
            Self::Object(_) | Self::Info { .. } | Self::Values { .. } => false,
        }
    }
}
