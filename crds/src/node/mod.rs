//! `BpfNode`: the observed state of one node, its kernel and everything that sockeye holds there. The node's agent
//! writes it.

mod details;
mod run_order;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
pub use details::{AttachedLink, Details, Drift, DriftKind, LoadedMap, LoadedProgram};
pub use run_order::{OrderedProgram, RunOrder};

/// A BpfNode reports what sockeye holds on the node of the same name. The node's agent writes it.
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
    doc = "BpfNode reports what sockeye holds on the node of the same name, as read back from the kernel. The node's \
        agent writes it.",
    printcolumn(
        name = "Kernel",
        type_ = "string",
        json_path = ".status.node.kernelRelease",
        description = "Release of the running kernel"
    ),
    printcolumn(
        name = "Programs",
        type_ = "integer",
        json_path = ".status.counts.programs",
        description = "Number of BpfPrograms on the node"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.counts.failed",
        description = "Number of BpfPrograms whose desired revision is not in effect"
    ),
    printcolumn(
        name = "Links",
        type_ = "integer",
        json_path = ".status.counts.links",
        description = "Number of links in effect"
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.node.agentVersion",
        description = "Version of the agent"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfNodeSpec {}

/// The observed state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// Only one agent writes the status, so it is one value: with an owner per field, the object would be twice as large.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct BpfNodeStatus {
    /// The node and its kernel.
    #[serde(default)]
    pub node: NodeFacts,
    /// The number of objects on the node.
    #[serde(default)]
    pub counts: HeldCounts,
    /// Every BpfProgram that the node holds or should hold. This list is never truncated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<HeldProgram>,
    /// The kernel's information about each BpfProgram, as far as there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub details: Vec<Details>,
    /// Maps of deleted BpfPrograms, kept by `onDelete: Retain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub retained: Vec<RetainedMap>,
    /// The run order of cgroups that have a program of sockeye and at least one more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub order: Vec<RunOrder>,
    /// The reason why sockeye is suspended on the whole node. Absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub suspended: Option<String>,
    /// The number of items that did not fit into the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
}

/// The node and its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// The ID of the running boot (/proc/sys/kernel/random/boot_id). The kernel's IDs are comparable within one boot
    /// only.
    #[serde(default, rename = "bootID")]
    #[schemars(length(max = 64))]
    pub boot_id: String,
    /// The release of the kernel (uname -r).
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub kernel_release: String,
    /// The architecture of the machine (uname -m).
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub architecture: String,
    /// Unified means cgroup v2 alone, Hybrid means cgroup v1 controllers beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_mode: Option<CgroupMode>,
    /// The kernel features that sockeye uses and this kernel has, sorted: "CgroupLink", "KernelBtf", ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Vec<String>,
    /// The version of the agent.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent_version: String,
}

/// The mounted versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CgroupMode {
    /// cgroup v2 alone.
    Unified,
    /// cgroup v2 with cgroup v1 controllers beside it.
    Hybrid,
}

/// The number of objects on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldCounts {
    /// The number of BpfPrograms.
    #[serde(default)]
    pub programs: i64,
    /// The number of BpfPrograms whose desired revision is not in effect.
    #[serde(default)]
    pub failed: i64,
    /// The number of links in effect.
    #[serde(default)]
    pub links: i64,
}

/// The state of one BpfProgram on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldProgram {
    /// The name of the BpfProgram.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The UID of the BpfProgram.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The revision in effect. Absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The state of the desired revision.
    pub state: State,
    /// The reason why the desired revision is not in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The kernel's program IDs, ordered by the functions' names.
    #[serde(default, rename = "programIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub program_ids: Vec<i64>,
    /// The kernel's map IDs, ordered by the maps' names.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
}

/// The state of a BpfProgram on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// The desired revision is in effect.
    Attached,
    /// The desired revision is not in effect. The one in `revision`, if any, still is.
    Failed,
    /// The desired revision is loaded and, as someone asked, not attached.
    Suspended,
    /// The node should no longer hold the BpfProgram, and could not yet remove all of it.
    Removing,
}

/// A map that was kept after its BpfProgram was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetainedMap {
    /// The name of the BpfProgram.
    #[schemars(length(max = 63))]
    pub program: String,
    /// The file name of the map's pin.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID of the map.
    pub id: i64,
    /// The path of the pin on the host.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// The number of items that did not fit into the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Truncated {
    /// BpfPrograms without details. Their latest drift is kept if there is room.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub details: i64,
    /// Links that are not listed.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub links: i64,
    /// Cgroups whose run order is not listed.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub order: i64,
    /// Verifier logs that are left out.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub logs: i64,
    /// Maps that are not listed: those beyond 128 of one BpfProgram, or all of them if there is no room.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub maps: i64,
    /// Functions whose program IDs are not listed.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub functions: i64,
    /// Retained maps that are not listed.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub retained: i64,
}
