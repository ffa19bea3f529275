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
//! [`Layout`] is what the file says, and [`BtfFeatures`] what the kernel knows.
//!
//! Headers of any length are written with 24 bytes: the kernel refuses longer ones whose further bytes are not zero,
//! and libbpf passes on what the object has.

mod buffer;
mod context;
mod externs;
mod features;
mod layout;
mod sanitize;
mod sections;

use self::{buffer::Buffer, context::ContextTag};
pub use self::{
    features::BtfFeatures,
    layout::{Layout, Variable},
};
use super::Btf;

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
    pub fn finish(mut self, layout: &Layout<'_>, features: &BtfFeatures) -> Vec<u8> {
        sections::hide_functions(&mut self.buffer, layout);
        sanitize::sanitize(&mut self.buffer, features);
        self.buffer.into_bytes()
    }
}

/// Returns the `.BTF` section that a kernel with these features takes, if it knows the tags of contexts.
pub fn fit(btf: &Btf<'_>, layout: &Layout<'_>, features: &BtfFeatures) -> Vec<u8> {
    Fit::new(btf, layout).finish(layout, features)
}
