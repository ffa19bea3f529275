//! `BpfProgramStatus`: the observed state of a BpfProgram on all its nodes. However many nodes report, it has less than
//! 128 KiB as JSON.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, ObjectInfo, condition, provenance::SignedBy, schema};

/// The observed state of a BpfProgram on all its nodes. The operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BpfProgramStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The revision that agents are to run. It was made from the last accepted spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<CurrentRevision>")]
    pub current_revision: Option<CurrentRevision>,
    /// The origin of the current revision's object. Absent if it comes from no image and nobody's signature was asked
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<BytecodeStatus>")]
    pub bytecode: Option<BytecodeStatus>,
    /// The content of the current revision's object, read from its bytes before any node loads it. Absent if it has
    /// more than 24 KiB; the BpfRevision has it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ObjectInfo>")]
    pub object: Option<ObjectInfo>,
    /// The number of nodes in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<NodeCounts>")]
    pub nodes: Option<NodeCounts>,
    /// The entries that the spec lists for maps, on all nodes together. Absent if it lists none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<EntriesSummary>")]
    pub entries: Option<EntriesSummary>,
    /// The columns of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Summary>")]
    pub summary: Option<Summary>,
    /// The state on individual nodes, failed ones first: at most 64, and no more than fit into 56 KiB. The BpfNodes
    /// list all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeName".into()]))]
    pub node_statuses: Vec<NodeStatus>,
    /// The number of nodes that `nodeStatuses` leaves out.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub node_statuses_omitted: i64,
    /// The operator's conditions are Accepted, Attached and Ready, and Reconciling or Stalled while they are True.
    /// Others may add theirs.
    #[serde(default, deserialize_with = "condition::own", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The revision that agents are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentRevision {
    /// The name of the BpfRevision.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The generation of the BpfProgram that the revision was made from.
    #[schemars(range(min = 1))]
    pub program_generation: i64,
    /// The SHA-256 digest of the object's bytes: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
}

/// The origin of the current revision's object. The digest of its bytes is in `currentRevision`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BytecodeStatus {
    /// The reference of the image, as the spec had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image_reference: Option<String>,
    /// The digest that the reference was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub image_digest: Option<String>,
    /// The architectures, if the image has a different object for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub architectures: Vec<String>,
    /// Who signed the object, of those that the policy accepts, when it was dispatched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub signed_by: Vec<SignedBy>,
}

/// The number of nodes in each state. `attached`, `suspended`, `failed`, `unknown` and `withoutAgent` do not overlap.
/// The desired nodes that none of them counts are still in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that the current revision selects.
    #[schemars(range(min = 0))]
    pub desired: i64,
    /// Ready nodes on which the current revision is in effect.
    #[schemars(range(min = 0))]
    pub updated: i64,
    /// Ready nodes on which any revision is in effect.
    #[schemars(range(min = 0))]
    pub attached: i64,
    /// Ready nodes on which the program is suspended: loaded and not attached.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub suspended: i64,
    /// Ready nodes on which the current revision failed.
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Nodes whose state is unknown because the node or its agent's pod is not Ready.
    #[schemars(range(min = 0))]
    pub unknown: i64,
    /// Ready nodes without an agent's pod.
    #[schemars(range(min = 0))]
    pub without_agent: i64,
}

/// The entries that a spec lists for maps, on all nodes that report them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntriesSummary {
    /// The sum of the entries that the spec lists, over the nodes.
    #[schemars(range(min = 0))]
    pub wanted: i64,
    /// The sum of those that are in the nodes' maps with the listed value.
    #[schemars(range(min = 0))]
    pub applied: i64,
    /// The number of nodes on which any entry differs from the spec's.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub differing: i64,
    /// The first 16 of these nodes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub differing_nodes: Vec<String>,
}

/// The columns of `kubectl get bpfprograms`, with `-o wide` or without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The program types, separated by commas.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub program_type: String,
    /// The number of pods that the targets select and a program is attached to. Absent if no target selects pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pods: Option<i64>,
    /// The number of links in effect.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub links: i64,
    /// The names of the revisions in effect, separated by commas: the first three, then the number of further ones as
    /// "+N". It is not the current one where that fails.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub running_revisions: String,
    /// The program IDs, ordered by node, if at most two nodes have any.
    #[serde(default, rename = "programIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = Self::MAX_NARROW_TEXT))]
    pub program_ids: String,
    /// The map IDs, ordered by node, if at most two nodes have any.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = Self::MAX_NARROW_TEXT))]
    pub map_ids: String,
    /// The program IDs of the first 16 nodes, or of as many as there is room for, then the number of further ones as
    /// "+N".
    #[serde(default, rename = "allProgramIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = Self::MAX_WIDE_TEXT))]
    pub all_program_ids: String,
    /// The map IDs of the first 16 nodes, or of as many as there is room for, then the number of further ones as "+N".
    #[serde(default, rename = "allMapIDs", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = Self::MAX_WIDE_TEXT))]
    pub all_map_ids: String,
}

impl Summary {
    /// The maximum number of characters of a narrow column of IDs.
    pub const MAX_NARROW_TEXT: usize = 1024;
    /// The maximum number of characters of a wide column of IDs.
    pub const MAX_WIDE_TEXT: usize = 4096;
}

/// The state of one BpfProgram on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// The revision in effect on the node, if it is not the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The reason why the current revision is not in effect on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<crate::Reason>")]
    pub reason: Option<crate::Reason>,
    /// The explanation of the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// The number of selected pods to which a program is attached.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub pods: i64,
    /// The number of links in effect.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub links: i64,
    /// The kernel's program IDs, ordered by the functions' names. They change with every load and boot.
    #[serde(default, rename = "programIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub program_ids: Vec<i64>,
    /// The kernel's map IDs, ordered by the maps' names. They change with every creation and boot.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
}
