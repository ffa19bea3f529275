//! `BpfProgramStatus`: the observed state of a BpfProgram on all its nodes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, ObjectInfo, schema};

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
    #[serde(default, skip_serializing_if = "schema::is_zero")]
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
