//! `BpfProgram`: the resource that users write. It names one ELF object, the programs in it to run, where to attach
//! them, and how its maps are kept. The operator writes its status, a summary of all BpfNodes.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Builtin, Condition, ObjectInfo, ProgramType, schema, target::Attach};

/// A BpfProgram runs socket and cgroup eBPF programs on every selected node. The node's agent loads the ELF object,
/// attaches its programs, keeps its maps pinned on bpffs, and reports what the kernel runs.
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
    doc = "BpfProgram runs socket and cgroup eBPF programs on every selected node: it names one ELF object, the programs in it to run, where to attach them, and how its maps are kept. Its status reports what the nodes' kernels run.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label (lower-case letters, digits and '-', at most 63): it names a directory on bpffs, which refuses dots"),
    validation = Rule::new("!has(self.spec.maps) || self.spec.maps.all(map, !has(map.from) || map.from.program != self.metadata.name)")
        .message("maps[].from.program must be another BpfProgram").field_path(".spec.maps"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.summary.type", description = "Program types, from the ELF sections"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.summary.nodes", description = "Nodes on which the program is in effect, and selected nodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the latest spec is in effect on every live selected node"),
    printcolumn(name = "Program-IDs", type_ = "string", json_path = ".status.summary.programIDs", description = "Kernel program IDs, ordered by node"),
    printcolumn(name = "Map-IDs", type_ = "string", json_path = ".status.summary.mapIDs", description = "Kernel map IDs, ordered by node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1, description = "Reason of the Ready condition"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.dispatch.revision", priority = 1, description = "The BpfRevision that agents run")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfProgramSpec {
    /// The source of the ELF object; exactly one must be set.
    pub bytecode: Bytecode,
    /// The nodes to run on, selected by their labels. If absent, every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The programs to run. Each is a function in the object.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<ProgramSpec>,
    /// Settings of individual maps. A map that is not listed is pinned, and removed with the BpfProgram.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<MapSpec>,
    /// Values of global variables (.rodata, .data, .bss), by name. They replace the object's own values and are encoded
    /// by the variables' BTF types.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::globals")]
    pub globals: BTreeMap<String, Value>,
    /// The position among other BpfPrograms on the same cgroup and attach type, 0 to 1000. Lower values run first;
    /// equal ones run in the order in which they were attached. If absent, 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i64>,
    /// If true, the programs are detached on every node. They stay loaded, and their maps keep their content.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
}

/// The priority of a BpfProgram that sets none.
pub const DEFAULT_PRIORITY: i64 = 500;
/// The highest priority; the lowest is 0.
pub const MAX_PRIORITY: i64 = 1000;

/// The source of the ELF object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.inline), has(self.configMap), has(self.builtin)].exists_one(given, given)")
        .message("exactly one of inline, configMap and builtin must be set"),
    // 174764 characters encode 131072 bytes with padding, and 131073 bytes without.
    validation = Rule::new("!has(self.inline) || self.inline.size() < 174764 || self.inline.endsWith('=')")
        .message("inline may hold 131072 bytes: put the object into a ConfigMap, or strip it (llvm-strip -g)").field_path(".inline")
)]
pub struct Bytecode {
    /// The ELF object itself, in base64. Decoded, it has at most 128 KiB: `kubectl apply` keeps a second copy in an
    /// annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Not `format: byte`: a CEL rule beside it then decodes the value as URL-safe base64 and refuses every '/' and '+'.
    #[schemars(length(min = 1, max = 174764), regex(pattern = r"^[A-Za-z0-9+/\s]+={0,2}\s*$"))]
    pub inline: Option<String>,
    /// A ConfigMap in the namespace of sockeye that holds the object in its binaryData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// The name of a program that ships with sockeye.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
}

/// A key in a ConfigMap's binaryData.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// The name of the ConfigMap, in the namespace that sockeye is installed in.
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
    /// The name of the function in the ELF object.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub name: String,
    /// The program's type. The name of its ELF section determines it; if set, this field must agree.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub program_type: Option<ProgramType>,
    /// The cgroups or maps to attach the program to.
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

/// The observed state of a BpfProgram on all its nodes. The operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BpfProgramStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default)]
    pub observed_generation: i64,
    /// The revision that agents are to run. It was made from the last accepted spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Dispatch>,
    /// The content of the dispatched object, read from its bytes before any node loads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectInfo>,
    /// The number of nodes in each state.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// The columns of `kubectl get`.
    #[serde(default)]
    pub summary: Summary,
    /// The state on individual nodes, failed ones first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub placements: Vec<Placement>,
    /// The number of placements that are not listed.
    #[serde(default, skip_serializing_if = "crate::schema::is_zero")]
    pub omitted: i64,
    /// The conditions Accepted, Attached and Ready, and Reconciling or Stalled while they are True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The revision that agents are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispatch {
    /// The name of the BpfRevision.
    #[schemars(length(max = 253))]
    pub revision: String,
    /// The generation of the spec that the revision was made from.
    pub generation: i64,
    /// The sha256 of the object's bytes.
    #[schemars(length(max = 80))]
    pub digest: String,
}

/// The number of nodes in each state. `attached`, `suspended`, `failed`, `unknown` and `withoutAgent` do not overlap.
/// The selected nodes that none of them counts are still in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that the dispatched revision selects.
    #[serde(default)]
    pub selected: i64,
    /// Live nodes on which the dispatched revision is in effect.
    #[serde(default)]
    pub updated: i64,
    /// Live nodes on which any revision is in effect.
    #[serde(default)]
    pub attached: i64,
    /// Live nodes on which the program is suspended: loaded and not attached.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub suspended: i64,
    /// Live nodes on which the dispatched revision failed.
    #[serde(default)]
    pub failed: i64,
    /// Nodes whose state is unknown because the node or its agent's pod is not Ready.
    #[serde(default)]
    pub unknown: i64,
    /// Ready nodes without an agent's pod.
    #[serde(default)]
    pub without_agent: i64,
}

/// The columns of `kubectl get bpfprograms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The program types, separated by commas.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub program_type: String,
    /// The nodes on which the dispatched revision is in effect and the selected nodes, as "2/2".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub nodes: String,
    /// The first five program IDs, ordered by node, then the number of further ones as "+N".
    #[serde(default, rename = "programIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub program_ids: String,
    /// The first five map IDs, ordered by node, then the number of further ones as "+N".
    #[serde(default, rename = "mapIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub map_ids: String,
}

/// The state of one BpfProgram on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node's name.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The revision in effect on the node, if it is not the dispatched one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The reason why the dispatched revision is not in effect on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The explanation of the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// The number of cgroups on the node with a program in effect.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub cgroups: i64,
    /// The first five pods that these cgroups belong to, as namespace/name. The BpfNode lists all links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 320)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pods: Vec<String>,
    /// The programs loaded on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<PlacedProgram>,
    /// The maps on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<PlacedMap>,
}

/// A program loaded on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedProgram {
    /// The name of the function in the ELF object.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID of the program. It changes with every load and boot.
    pub id: i64,
    /// The kernel's tag of the program. Tags are comparable on one node only.
    #[schemars(length(max = 16))]
    pub tag: String,
    /// The number of links in effect.
    pub links: i64,
}

/// A map on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedMap {
    /// The name of the map in the ELF object.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID of the map. It changes with every creation and boot.
    pub id: i64,
}
