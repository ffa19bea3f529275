//! `BtfFeatures`: what a kernel knows of BTF.

/// The kinds and flags of BTF that a kernel knows (libbpf's `FEAT_BTF_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct BtfFeatures {
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
    /// Data sections whose name begins with a question mark (6.9).
    pub qmark_datasec: bool,
}

impl BtfFeatures {
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

    /// Returns a feature by libbpf's name, in lower case and without `FEAT_`, if it is one of these.
    pub fn by_name(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "btf_func" => &mut self.func,
            "btf_global_func" => &mut self.global_func,
            "btf_datasec" => &mut self.datasec,
            "btf_float" => &mut self.float,
            "btf_decl_tag" => &mut self.decl_tag,
            "btf_type_tag" => &mut self.type_tag,
            "btf_enum64" => &mut self.enum64,
            "btf_qmark_datasec" => &mut self.qmark_datasec,
            _ => return None,
        })
    }
}
