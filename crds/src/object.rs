//! `ObjectInfo`: what an ELF object holds, before any node loads it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ProgramType;

/// What the ELF object holds, read from its bytes alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectInfo {
    /// The programs in the object, sorted by name; also those that the spec does not run.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramInfo>,
    /// The maps the object defines, sorted by name; global data (.rodata, .data, .bss) among them.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapInfo>,
    /// The licence the object declares, as the kernel compares it ("GPL", "Dual BSD/GPL").
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub license: String,
    /// Whether the object carries BTF.
    #[serde(default)]
    pub btf: bool,
}

/// A program in the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramInfo {
    /// The function's name in the ELF.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The ELF section that holds it; it says the type.
    #[schemars(length(max = 256))]
    pub section: String,
    /// The program type that the section says; absent where sockeye does not run the section's type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub program_type: Option<ProgramType>,
}

/// A map that the object defines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapInfo {
    /// The map's name in the ELF.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The map type, e.g. Array, Hash, RingBuf; a number where the type is not known to sockeye.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub map_type: String,
    /// Size of a key in bytes.
    #[schemars(range(min = 0))]
    pub key_size: i64,
    /// Size of a value in bytes.
    #[schemars(range(min = 0))]
    pub value_size: i64,
    /// The most entries the map can hold.
    #[schemars(range(min = 0))]
    pub max_entries: i64,
    /// BPF_F_* flags given at creation (BPF_MAP_CREATE's map_flags).
    #[serde(default, skip_serializing_if = "crate::schema::is_zero")]
    #[schemars(range(min = 0))]
    pub flags: i64,
    /// How the object defines it.
    pub definition: MapDefinition,
    /// The programs whose instructions refer to the map, sorted; the kernel keeps a map alive for these.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub used_by: Vec<String>,
    /// The maps, or the programs, that the object itself puts into the map, sorted. Such a map belongs to one revision, as
    /// global data does, and is never carried over; what it holds is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub holds: Vec<String>,
}

impl MapInfo {
    /// Whether the map belongs to one load, and is never carried over.
    pub fn is_of_load(&self) -> bool {
        self.definition.is_data() || !self.holds.is_empty()
    }

    /// Why it does, for a message.
    pub const fn of_load_because(&self) -> &'static str {
        if self.definition.is_data() { "global data" } else { "filled by the object itself" }
    }
}

/// How an object defines a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MapDefinition {
    /// `struct bpf_map_def` in a "maps" section; libbpf refuses it since 1.0.
    Legacy,
    /// A BTF-typed variable in ".maps".
    Btf,
    /// Global data: .rodata, .data or .bss.
    Data,
}

impl MapDefinition {
    /// Whether the map is global data, which belongs to one revision and is never carried over.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Data)
    }
}
