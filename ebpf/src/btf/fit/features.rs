//! `Features`: what a kernel knows of BTF.

/// The kinds and flags of BTF that a kernel knows (libbpf's `FEAT_BTF_*`).
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
