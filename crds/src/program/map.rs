//! `MapSpec`: the settings of one map in `spec.maps`.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{config_map::ConfigMapKeyRef, stream::StreamSpec};
use crate::Value;

/// Settings of one map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mapRef) || !(has(self.entries) || has(self.entriesFrom) || \
        has(self.entriesPolicy) || has(self.onIncompatible) || has(self.pinning) || has(self.reclaimPolicy) || \
        has(self.sharing) || has(self.stream))")
        .message("a map that mapRef takes from another BpfProgram is that one's: only name and maxEntries go with \
            mapRef"),
    validation = Rule::new("!(has(self.entries) && has(self.entriesFrom))")
        .message("entries and entriesFrom exclude each other: put all entries into one of them")
        .field_path(".entriesFrom"),
    validation = Rule::new("!has(self.stream) || !(has(self.entries) || has(self.entriesFrom) || \
        has(self.entriesPolicy))")
        .message("a map with a stream is a ring or perf buffer, which has no entries").field_path(".stream")
)]
pub struct MapSpec {
    /// The name of the map in the ELF object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub name: String,
    /// The pinning of the map on bpffs. If absent, ByName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Pinning>")]
    pub pinning: Option<Pinning>,
    /// The maximum number of entries, in place of the object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295u64))]
    pub max_entries: Option<i64>,
    /// The fate of the pinned map when the BpfProgram is deleted. If absent, Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ReclaimPolicy>")]
    pub reclaim_policy: Option<ReclaimPolicy>,
    /// The reaction to a new object that defines the map with another shape (type, sizes, flags, maximum entries) than
    /// the pinned one has. If absent, Fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<OnIncompatible>")]
    pub on_incompatible: Option<OnIncompatible>,
    /// The entries of the map. A list of at most 1,024, and all lists of a BpfProgram together at most 64 KiB as JSON:
    /// `kubectl apply` keeps a second copy in an annotation. Longer lists come by entriesFrom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub entries: Vec<Entry>,
    /// The source of a list of entries that is too long for the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<EntriesSource>")]
    pub entries_from: Option<EntriesSource>,
    /// The fate of the entries of a map that exists. If absent, OnCreate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<EntriesPolicy>")]
    pub entries_policy: Option<EntriesPolicy>,
    /// The other BpfPrograms that may use the map by mapRef: none, or all. If absent, Private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Sharing>")]
    pub sharing: Option<Sharing>,
    /// A shared map of another BpfProgram to use in place of this one. On each node both then share one map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<MapRef>")]
    pub map_ref: Option<MapRef>,
    /// The records of a ring or perf buffer, and who reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<StreamSpec>")]
    pub stream: Option<StreamSpec>,
}

impl MapSpec {
    /// Returns the settings that a map without settings has.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Returns whether the map is pinned on bpffs.
    pub fn is_pinned(&self) -> bool {
        self.pinning != Some(Pinning::None)
    }

    /// Returns whether the pinned map stays when the BpfProgram is deleted.
    pub fn is_retained(&self) -> bool {
        self.reclaim_policy == Some(ReclaimPolicy::Retain)
    }

    /// Returns whether a map of another shape takes the pinned one's place.
    pub fn is_recreated(&self) -> bool {
        self.on_incompatible == Some(OnIncompatible::Recreate)
    }

    /// Returns whether the map's entries are kept in sync with the spec.
    pub fn is_synced(&self) -> bool {
        self.entries_policy == Some(EntriesPolicy::Sync)
    }

    /// Returns whether the spec lists entries of the map.
    pub const fn lists_entries(&self) -> bool {
        !self.entries.is_empty() || self.entries_from.is_some()
    }

    /// Returns whether the map's content can differ from the spec's: the spec lists entries, or keeps them in sync.
    pub fn has_entries(&self) -> bool {
        self.lists_entries() || self.is_synced()
    }

    /// Returns the digest of the list that `entriesFrom` names.
    pub fn list_digest(&self) -> Option<&str> {
        self.entries_from.as_ref().map(|from| from.config_map_ref.digest.as_str())
    }

    /// Returns whether the agent reads the map's records.
    pub fn is_read(&self) -> bool {
        self.stream.as_ref().is_some_and(StreamSpec::is_agents)
    }

    /// Returns whether other BpfPrograms may use the map.
    pub fn is_shared(&self) -> bool {
        self.sharing == Some(Sharing::Shared)
    }
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
    pub name: String,
}

impl MapRef {
    /// Says that the map is not among those that its BpfProgram shares, and what to do.
    pub fn unshared_message<'a>(&self, shared: impl IntoIterator<Item = &'a str>) -> String {
        let Self { program, name } = self;
        let shared: Vec<&str> = shared.into_iter().collect();
        let mut message =
            format!("BpfProgram {program} does not share map {name}: set sharing: Shared for it in spec.maps there");
        if !shared.is_empty() {
            message += &format!(", or name one that it shares: {}", shared.join(", "));
        }
        message
    }
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {} of BpfProgram {}", self.name, self.program)
    }
}

/// The source of a list of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntriesSource {
    /// A ConfigMap in the namespace of sockeye that holds the list in its data or its binaryData. The list is text with
    /// one entry a line: a JSON object with `key` and `value` as in `entries`, or a JSON list of both. Empty lines and
    /// lines that begin with `#` are skipped. It has at most 65,536 entries and 1 MiB.
    pub config_map_ref: ConfigMapKeyRef,
}

/// The fate of the entries of a map that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EntriesPolicy {
    /// The entries fill a map that is created. A map that exists keeps its content, and each node reports whether that
    /// differs from the spec's.
    OnCreate,
    /// The entries are kept in step with the spec: listed keys are written, keys that the spec lists no longer are
    /// deleted, and keys that others added stay. Of a value given as JSON for a struct, only the fields that it names
    /// are compared and written; one that it named before and names no longer becomes zero.
    Sync,
}

/// An entry of a map. The map's BTF types say how its key and value are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The key: an integer, text, or for a composite type JSON text. Absent for maps without keys (Queue, Stack,
    /// BloomFilter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// The value: an integer, text, or for a composite type JSON text. In a per-CPU map every CPU gets it.
    pub value: Value,
}

/// The pinning of a map on bpffs, in libbpf's words (`enum libbpf_pin_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Pinning {
    /// The map is not pinned, and lives only while a program uses it.
    None,
    /// The map is pinned under its name.
    ByName,
}

/// The fate of a pinned map when its BpfProgram is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// The pin is removed, and the map goes with it.
    Delete,
    /// The pin and the content stay on every node.
    Retain,
}

/// The reaction to a new object that defines a map with another shape than the pinned one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnIncompatible {
    /// The node refuses the new revision. The old one stays attached, and the map keeps its content.
    Fail,
    /// The map is created again, and its content is lost.
    Recreate,
}

/// The other BpfPrograms that may use a map. Those that use it when it becomes Private keep it, but their next edits
/// are refused while they name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sharing {
    /// No other BpfProgram may use the map.
    Private,
    /// Every other BpfProgram may read and write the map.
    Shared,
}
