//! `Layout`: the sizes of sections and the places of symbols, which types leave open.

use std::collections::{HashMap, HashSet};

/// The parts of the file that say what types leave open.
#[derive(Clone, Debug, Default)]
pub struct Layout<'f> {
    /// The sizes of sections by name, in bytes.
    pub sections: HashMap<&'f [u8], u32>,
    /// Global and weak variables (`STT_OBJECT`) by name.
    pub variables: HashMap<&'f [u8], Variable>,
    /// The offsets in `.kconfig` of configuration values by name.
    pub config: HashMap<&'f [u8], u32>,
    /// The size of `.kconfig`.
    pub config_size: u32,
    /// The functions in `.text` that are hidden or internal, and not local.
    pub hidden: HashSet<&'f [u8]>,
}

/// The symbol of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The offset in its section.
    pub offset: u32,
    /// True for `STV_HIDDEN` and `STV_INTERNAL`.
    pub is_hidden: bool,
}
