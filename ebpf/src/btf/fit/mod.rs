//! `fit`: an object's types made fit for a kernel, byte for byte as libbpf does before BPF_BTF_LOAD. The IDs of types
//! and the offsets of names stay; new ones come after them.
//!
//! | module | step |
//! |---|---|
//! | `externs` | the kernel's symbols and configuration values become variables |
//! | `sections` | sizes of data sections, places of variables, hidden variables and functions |
//! | `context` | tagged parameters become contexts |
//! | `sanitize` | what the kernel does not know becomes something that it does |
//! | `buffer` | the types while they change |
//!
//! Headers of any length are written with 24 bytes: the kernel refuses longer ones whose further bytes are not zero,
//! and libbpf passes on what the object has.

mod buffer;
mod context;
mod externs;
mod sanitize;
mod sections;

use std::collections::{HashMap, HashSet};

use self::{buffer::Buffer, context::ContextTag};
use super::Btf;

/// What the file says that types leave open.
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

/// What a kernel knows of BTF (libbpf's `FEAT_BTF_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Features {
    /// Functions and their prototypes (5.0).
    pub func: bool,
    /// Global functions (5.6).
    pub global_func: bool,
    /// Variables and data sections (5.2).
    pub datasec: bool,
    /// Floating-point numbers (5.13).
    pub float: bool,
    /// Declaration tags (5.16).
    pub decl_tag: bool,
    /// Type tags (5.17).
    pub type_tag: bool,
    /// Enums of 64 bits, and signed ones (6.0).
    pub enum64: bool,
    /// Data sections whose name begins with a question mark (6.12).
    pub qmark_datasec: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Self = Self {
        func: true,
        global_func: true,
        datasec: true,
        float: true,
        decl_tag: true,
        type_tag: true,
        enum64: true,
        qmark_datasec: true,
    };
}

/// Types that are being made fit.
#[derive(Clone, Debug)]
pub struct Fit {
    buffer: Buffer,
    tags: Option<Vec<ContextTag>>,
}

impl Fit {
    /// Fills in what the file says.
    pub fn new(btf: &Btf<'_>, layout: &Layout<'_>) -> Self {
        let mut buffer = Buffer::new(btf);
        externs::allocate(&mut buffer, layout);
        sections::complete(&mut buffer, layout);
        Self { buffer, tags: None }
    }

    /// Makes tagged parameters of a program's functions into contexts, where the kernel does not know the tag
    /// (`FEAT_ARG_CTX_TAG`). `funcs` are the types of the functions in its function information, which may get others.
    /// The programs must come in the file's order.
    pub fn retype_contexts(&mut self, prog_type: u32, funcs: &mut [u32]) {
        let tags = self.tags.get_or_insert_with(|| context::tags(&self.buffer));
        context::retype(&mut self.buffer, tags, prog_type, funcs);
    }

    /// Returns the `.BTF` section that a kernel with these features takes.
    pub fn finish(mut self, layout: &Layout<'_>, features: &Features) -> Vec<u8> {
        sections::hide_functions(&mut self.buffer, layout);
        sanitize::sanitize(&mut self.buffer, features);
        self.buffer.into_bytes()
    }
}

/// Returns the `.BTF` section that a kernel with these features takes, if it knows the tags of contexts.
pub fn fit(btf: &Btf<'_>, layout: &Layout<'_>, features: &Features) -> Vec<u8> {
    Fit::new(btf, layout).finish(layout, features)
}
