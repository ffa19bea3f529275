//! `MapSpec`: the settings of one map in `spec.maps`.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;

/// Settings of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.from) || !(has(self.initial) || (has(self.onShapeChange) && self.onShapeChange \
        != 'Refuse') || (has(self.pin) && !self.pin) || (has(self.onDelete) && self.onDelete != 'Remove'))")
        .message("a map that is taken from another BpfProgram is that one's: only its name and maxEntries go with from")
)]
pub struct MapSpec {
    /// The name of the map in the ELF object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub name: String,
    /// If true, the map is pinned on bpffs. A map that is not pinned lives only while a program uses it.
    #[serde(default = "yes")]
    pub pin: bool,
    /// The maximum number of entries, in place of the object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295u64))]
    pub max_entries: Option<i64>,
    /// The fate of the pinned map when the BpfProgram is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// The reaction to a new object that defines the map with another shape than the pinned one has.
    #[serde(default, skip_serializing_if = "OnShapeChange::is_refuse")]
    pub on_shape_change: OnShapeChange,
    /// The entries of a newly created map. A map that already exists keeps its content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub initial: Vec<Entry>,
    /// A map of another BpfProgram to use in place of this one. On each node both then share one map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MapRef>,
}

/// A map of another BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapRef {
    /// The name of the BpfProgram.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub program: String,
    /// The name of the map in that BpfProgram's ELF object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub map: String,
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {} of BpfProgram {}", self.map, self.program)
    }
}

/// An entry of a map. The map's BTF types say how its key and value are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The key. Absent for maps without keys (Queue, Stack, BloomFilter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::key")]
    pub key: Option<Value>,
    /// The value. In a per-CPU map every CPU gets it.
    #[schemars(schema_with = "schema::value")]
    pub value: Value,
}

/// The default of `pin`.
const fn yes() -> bool {
    true
}

/// The fate of a pinned map when its BpfProgram is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// The pin is removed, and the map goes with it.
    #[default]
    Remove,
    /// The pin and the content stay on every node.
    Retain,
}

/// The reaction to a new object that defines a map with another shape (type, sizes, flags, maximum entries) than the
/// pinned one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnShapeChange {
    /// The node refuses the new revision. The old one stays attached, and the map keeps its content.
    #[default]
    Refuse,
    /// The map is created again, and its content is lost.
    Recreate,
}

impl OnShapeChange {
    const fn is_refuse(&self) -> bool {
        matches!(self, Self::Refuse)
    }
}
