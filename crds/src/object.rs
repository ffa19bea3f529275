//! `ObjectInfo`: the content of an ELF object, before any node loads it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ProgramType;

/// The content of an ELF object, read from its bytes alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectInfo {
    /// The programs in the object, sorted by name, including those that the spec does not run.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramInfo>,
    /// The maps that the object defines, sorted by name, including global data (.rodata, .data, .bss).
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapInfo>,
    /// The licence that the object declares, as the kernel compares it ("GPL", "Dual BSD/GPL").
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub license: String,
    /// True if the object has BTF.
    #[serde(default)]
    pub btf: bool,
}

/// A program in the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramInfo {
    /// The name of the function in the ELF object.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The ELF section of the program, whose name determines the type.
    #[schemars(length(max = 256))]
    pub section: String,
    /// The program type, from the section's name. Absent if sockeye does not run programs of that section.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ProgramType>")]
    pub program_type: Option<ProgramType>,
    /// True if the program calls no helper that redirects or holds back bytes, and may be an sk_msg program. Then
    /// sockets can leave its map without loss.
    #[serde(default, skip_serializing_if = "crate::schema::is_false")]
    pub passes_only: bool,
}

/// A map that the object defines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapInfo {
    /// The name of the map in the ELF object.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The map type, such as Array, Hash or RingBuf; a number if sockeye does not know the type.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub map_type: String,
    /// The size of a key in bytes.
    #[schemars(range(min = 0))]
    pub key_size_bytes: i64,
    /// The size of a value in bytes.
    #[schemars(range(min = 0))]
    pub value_size_bytes: i64,
    /// The maximum number of entries.
    #[schemars(range(min = 0))]
    pub max_entries: i64,
    /// The BPF_F_* flags that the map is created with (map_flags of BPF_MAP_CREATE).
    #[serde(default, skip_serializing_if = "crate::schema::is_zero")]
    #[schemars(range(min = 0))]
    pub flags: i64,
    /// The form of the map's definition.
    pub definition: MapDefinition,
    /// The programs whose instructions refer to the map, sorted. The kernel keeps the map while one of them is loaded.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub used_by: Vec<String>,
    /// The maps or programs that the object itself puts into the map, sorted. Such a map belongs to one revision, as
    /// global data does, and is never carried over to the next. The maps in it are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub holds: Vec<String>,
}

impl MapInfo {
    /// Returns whether every load creates the map, so that its content is never carried over.
    pub fn is_of_load(&self) -> bool {
        self.definition.is_data() || !self.holds.is_empty()
    }

    /// Returns why every load creates the map, for a message.
    pub const fn of_load_because(&self) -> &'static str {
        if self.definition.is_data() { "global data" } else { "filled by the object itself" }
    }
}

/// The form of a map's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MapDefinition {
    /// `struct bpf_map_def` in a "maps" section, which libbpf refuses since version 1.0.
    Legacy,
    /// A variable with BTF in the ".maps" section.
    #[serde(rename = "BTF")]
    Btf,
    /// Global data: .rodata, .data or .bss.
    Data,
}

impl MapDefinition {
    /// Returns whether the map is global data.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Data)
    }
}
