//! `BpfNode`: observation, written by one node's agent: the node, its kernel, and all that sockeye holds there.

mod details;
mod order;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
pub use details::{AttachedLink, Details, Drift, DriftKind, LoadedMap, LoadedProgram};
pub use order::{Order, Runs};

/// A BpfNode says what sockeye holds on the node of the same name. Its agent writes it.
#[allow(clippy::duplicated_attributes, reason = "clippy takes the columns' settings for attributes")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfNode",
    plural = "bpfnodes",
    shortname = "sbpfn",
    category = "sockeye",
    status = "BpfNodeStatus",
    derive = "PartialEq",
    doc = "BpfNode says what sockeye holds on the node of the same name, as the kernel tells it. That node's agent writes it.",
    printcolumn(
        name = "Kernel",
        type_ = "string",
        json_path = ".status.node.kernelRelease",
        description = "The running kernel's release"
    ),
    printcolumn(
        name = "Programs",
        type_ = "integer",
        json_path = ".status.counts.programs",
        description = "BpfPrograms that the node holds"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.counts.failed",
        description = "BpfPrograms whose wanted revision is not in effect"
    ),
    printcolumn(
        name = "Links",
        type_ = "integer",
        json_path = ".status.counts.links",
        description = "Links in effect"
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.node.agentVersion",
        description = "The agent's version"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfNodeSpec {}

/// What the node's agent saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// One writer, one value: the API server keeps no owner of every field, which for many programs would double the object.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct BpfNodeStatus {
    /// The node and its kernel.
    #[serde(default)]
    pub node: NodeFacts,
    /// How much there is.
    #[serde(default)]
    pub counts: HeldCounts,
    /// Every BpfProgram the node holds or should hold; never cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<HeldProgram>,
    /// What the kernel says of each, where there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub details: Vec<Details>,
    /// Maps of deleted BpfPrograms that were asked to be retained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub retained: Vec<RetainedMap>,
    /// What runs where more than one program is attached to a cgroup that has something of ours, in the order it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub order: Vec<Order>,
    /// Why nothing at all is attached here, where someone has said that nothing is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub suspended: Option<String>,
    /// What did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
}

/// The node and its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// The running boot (/proc/sys/kernel/random/boot_id): IDs are comparable within one boot only.
    #[serde(default, rename = "bootID")]
    #[schemars(length(max = 64))]
    pub boot_id: String,
    /// The kernel's release (uname -r).
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub kernel_release: String,
    /// The machine's architecture (uname -m).
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub architecture: String,
    /// Unified: cgroup v2 alone. Hybrid: v1 controllers beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_mode: Option<CgroupMode>,
    /// What the kernel supports of what sockeye makes use of, sorted: "CgroupLink", "KernelBtf", ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Vec<String>,
    /// The agent's version.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent_version: String,
}

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CgroupMode {
    /// cgroup v2 alone.
    Unified,
    /// cgroup v1 controllers beside cgroup v2.
    Hybrid,
}

/// How much the node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldCounts {
    /// BpfPrograms.
    #[serde(default)]
    pub programs: i64,
    /// BpfPrograms whose wanted revision is not in effect.
    #[serde(default)]
    pub failed: i64,
    /// Links in effect.
    #[serde(default)]
    pub links: i64,
}

/// A BpfProgram on this node, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldProgram {
    /// The BpfProgram's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The revision that is in effect; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// How it stands.
    pub state: State,
    /// Why the wanted revision is not in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// Kernel program IDs, in the order of the functions' names.
    #[serde(default, rename = "programIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub program_ids: Vec<i64>,
    /// Kernel map IDs, in the order of the maps' names.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
}

/// How a BpfProgram stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// The wanted revision is in effect.
    Attached,
    /// The wanted revision is not in effect; what `revision` names, if anything, still is.
    Failed,
    /// The wanted revision is loaded, and attached nowhere because someone said so.
    Suspended,
    /// It is no longer wanted, and what is left of it could not yet be removed.
    Removing,
}

/// A map that outlived its BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetainedMap {
    /// The BpfProgram's name.
    #[schemars(length(max = 63))]
    pub program: String,
    /// The map's file name under its pin directory.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID.
    pub id: i64,
    /// Its pin, as the host sees it.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// What did not fit into the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Truncated {
    /// BpfPrograms whose details are not shown, but for what others did to them last, where there is room.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub details: i64,
    /// Links that are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub links: i64,
    /// Cgroups whose order is not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub order: i64,
    /// Verifier logs that are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub logs: i64,
    /// Maps of BpfPrograms that are not shown: of one that holds more than 128, or of all where there is no room.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub maps: i64,
    /// Functions of BpfPrograms whose program IDs are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub functions: i64,
    /// Retained maps that are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub retained: i64,
}
