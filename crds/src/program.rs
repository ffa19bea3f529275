//! `BpfProgram`: intent, written by a user: one ELF object, the programs in it to run, where to attach them, and what
//! becomes of its maps. Its status is the operator's summary of what every node says.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Builtin, Condition, ObjectInfo, ProgramType, schema, target::Attach};

/// A BpfProgram runs socket and cgroup eBPF programs on every selected node: an agent loads the ELF object there,
/// attaches its programs to cgroups, keeps its maps pinned on bpffs, and reports what the kernel gave it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfProgram",
    plural = "bpfprograms",
    shortname = "sbpf",
    category = "sockeye",
    status = "BpfProgramStatus",
    derive = "PartialEq",
    doc = "BpfProgram runs socket and cgroup eBPF programs on every selected node: it names one ELF object, the programs in it to run, where to attach them, and what becomes of its maps. Its status says what the kernels gave.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label (lower-case letters, digits and '-', at most 63): it names a directory on bpffs, which refuses dots"),
    validation = Rule::new("!has(self.spec.maps) || self.spec.maps.all(map, !has(map.from) || map.from.program != self.metadata.name)")
        .message("maps[].from.program must be another BpfProgram").field_path(".spec.maps"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.summary.type", description = "Program types, as their ELF sections say"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.summary.nodes", description = "Nodes on which it is in effect, of those selected"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the latest spec is in effect on every live selected node"),
    printcolumn(name = "Program-IDs", type_ = "string", json_path = ".status.summary.programIDs", description = "Kernel program IDs, by node"),
    printcolumn(name = "Map-IDs", type_ = "string", json_path = ".status.summary.mapIDs", description = "Kernel map IDs, by node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1, description = "Why it is Ready or not"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.dispatch.revision", priority = 1, description = "The BpfRevision that agents run")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfProgramSpec {
    /// Where the ELF object comes from: exactly one source.
    pub bytecode: Bytecode,
    /// The nodes to run on, by their labels; absent means every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The programs to run, each a function in the object.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramSpec>,
    /// Settings of single maps; maps not listed here are pinned, and removed with the BpfProgram.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapSpec>,
    /// Values of global variables (.rodata, .data, .bss) by name, encoded by their BTF types, instead of what the object says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::globals")]
    pub globals: BTreeMap<String, Value>,
    /// Where it runs among other BpfPrograms on the same cgroup and attach type, 0 to 1000: lower ones run first, those of
    /// equal priority in the order in which they were attached. Absent means 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// Detached everywhere while true; what is loaded stays loaded, and maps keep their content.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
}

/// The priority of a BpfProgram that gives none.
pub const DEFAULT_PRIORITY: i64 = 500;
/// Priorities go from 0 to this one.
pub const MAX_PRIORITY: i64 = 1000;

/// Where the ELF object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.inline), has(self.configMap), has(self.builtin)].exists_one(given, given)")
        .message("exactly one of inline, configMap and builtin must be set"),
    // As long as that is the base64 of 131072 bytes, and of one more, which needs no padding.
    validation = Rule::new("!has(self.inline) || self.inline.size() < 174764 || self.inline.endsWith('=')")
        .message("inline may hold 131072 bytes: put the object into a ConfigMap, or strip it (llvm-strip -g)").field_path(".inline")
)]
pub struct Bytecode {
    /// The ELF object itself, base64, at most 128 KiB decoded (`kubectl apply` keeps a second copy in an annotation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Not `format: byte`: a CEL rule beside it then decodes the value as URL-safe base64 and refuses every '/' and '+'.
    #[schemars(length(min = 1, max = 174764), regex(pattern = r"^[A-Za-z0-9+/\s]+={0,2}\s*$"))]
    pub inline: Option<String>,
    /// A ConfigMap in sockeye's namespace that holds the object in its binaryData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// A program that ships with sockeye, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
}

/// A key of a ConfigMap's binaryData.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// The ConfigMap's name, in the namespace sockeye is installed in.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in binaryData.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A program to run: a function in the object, and where to attach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramSpec {
    /// The function's name in the ELF.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub name: String,
    /// The program's type; the ELF section says it, and when given it must agree.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub program_type: Option<ProgramType>,
    /// Where to attach it.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attach: Vec<Attach>,
}

/// Settings of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.from) || !(has(self.initial) || (has(self.onShapeChange) && self.onShapeChange != 'Refuse') || (has(self.pin) && !self.pin) || (has(self.onDelete) && self.onDelete != 'Remove'))")
        .message("a map that is taken from another BpfProgram is that one's: only its name and maxEntries go with from")
)]
pub struct MapSpec {
    /// The map's name in the ELF.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub name: String,
    /// Whether the map is pinned on bpffs. Unpinned, it lives only while a program uses it.
    #[serde(default = "yes")]
    pub pin: bool,
    /// The most entries, instead of what the object says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295u64))]
    pub max_entries: Option<i64>,
    /// What becomes of the pinned map when the BpfProgram is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// What is done where a new object wants the map in another shape than the pinned one has.
    #[serde(default, skip_serializing_if = "OnShapeChange::is_refuse")]
    pub on_shape_change: OnShapeChange,
    /// What the map holds when it is newly created; a map that is carried over or found again is left as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub initial: Vec<Entry>,
    /// The map of another BpfProgram that is used in this one's place, on each node: one map, shared by both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MapRef>,
}

/// A map of another BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapRef {
    /// The BpfProgram's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub program: String,
    /// The map's name in that one's ELF.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub map: String,
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {} of BpfProgram {}", self.map, self.program)
    }
}

/// An entry of a map, encoded by the BTF types of the map's keys and values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The key; absent for maps without keys (Queue, Stack, BloomFilter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::key")]
    pub key: Option<Value>,
    /// The value; in a per-CPU map, every processor's.
    #[schemars(schema_with = "schema::value")]
    pub value: Value,
}

const fn yes() -> bool {
    true
}

/// What becomes of a pinned map when its BpfProgram is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// Its pin is removed, and with it the map.
    #[default]
    Remove,
    /// Its pin and its content stay on every node.
    Retain,
}

/// What is done where a new object wants a map in another shape (type, sizes, flags or most entries) than the pinned one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnShapeChange {
    /// The new revision is refused on the node; the old one stays attached, and the map as it is.
    #[default]
    Refuse,
    /// The map is created anew, and its content is lost.
    Recreate,
}

impl OnShapeChange {
    const fn is_refuse(&self) -> bool {
        matches!(self, Self::Refuse)
    }
}

/// What is known of a BpfProgram over all its nodes. Written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BpfProgramStatus {
    /// The `metadata.generation` this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// What agents were told to run: the last accepted spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Dispatch>,
    /// What the dispatched object holds, read from its bytes before any node loads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectInfo>,
    /// How many nodes there are, by what they say.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// What `kubectl get` prints.
    #[serde(default)]
    pub summary: Summary,
    /// Single nodes, failed ones first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub placements: Vec<Placement>,
    /// How many placements are not shown.
    #[serde(default, skip_serializing_if = "crate::schema::is_zero")]
    pub omitted: i64,
    /// Accepted, Attached, Ready; Reconciling and Stalled while True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What agents were told to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispatch {
    /// The BpfRevision's name.
    #[schemars(length(max = 253))]
    pub revision: String,
    /// The generation of the spec it was made from.
    pub generation: i64,
    /// The sha256 of the object's bytes.
    #[schemars(length(max = 80))]
    pub digest: String,
}

/// Nodes by what they say. `attached`, `suspended`, `failed`, `unknown` and `withoutAgent` do not overlap; what is left of `selected` is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that match the dispatched node selector.
    #[serde(default)]
    pub selected: i64,
    /// Live nodes on which the dispatched revision, not an older one, is in effect.
    #[serde(default)]
    pub updated: i64,
    /// Live nodes on which a revision is in effect.
    #[serde(default)]
    pub attached: i64,
    /// Live nodes on which it is suspended: loaded, and attached nowhere.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub suspended: i64,
    /// Live nodes on which the dispatched revision failed.
    #[serde(default)]
    pub failed: i64,
    /// Nodes that are not Ready, or whose agent's pod is not: what runs there is not known.
    #[serde(default)]
    pub unknown: i64,
    /// Ready nodes that have no agent's pod.
    #[serde(default)]
    pub without_agent: i64,
}

/// What the columns of `kubectl get bpfprograms` print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The program types, comma-separated.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub program_type: String,
    /// Nodes on which the dispatched revision is in effect, of those selected: "2/2".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub nodes: String,
    /// At most five program IDs, by node, then "+N".
    #[serde(default, rename = "programIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub program_ids: String,
    /// At most five map IDs, by node, then "+N".
    #[serde(default, rename = "mapIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub map_ids: String,
}

/// One BpfProgram on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node's name.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The revision that is in effect there, where it is not the dispatched one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// Why the dispatched revision is not in effect there, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// The cgroups at which something is in effect there.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub cgroups: i64,
    /// The first few of the pods whose cgroups these are, by namespace and name; all links are in the BpfNode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 320)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pods: Vec<String>,
    /// The programs loaded there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<PlacedProgram>,
    /// The maps there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<PlacedMap>,
}

/// A program loaded on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedProgram {
    /// The function's name in the ELF.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID; it changes with every load and boot.
    pub id: i64,
    /// The kernel's tag; comparable on one node only.
    #[schemars(length(max = 16))]
    pub tag: String,
    /// Links in effect.
    pub links: i64,
}

/// A map on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedMap {
    /// The map's name in the ELF.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID; it changes with every creation and boot.
    pub id: i64,
}
