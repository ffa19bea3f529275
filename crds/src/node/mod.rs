//! `BpfNode`: the observed state of one node, its kernel and every BpfProgram there. The node's agent writes it.
//!
//! It is written often, and a status write costs the API server time with each field. So it has only what the operator
//! folds and what people look for first; the rest is in the [`BpfNodeDetail`].

mod attach_order;
mod detail;
mod drift;
mod entries;
mod program;
mod refused_connections;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, from_value};

use crate::{Condition, condition, revision::ProgramRef, schema};
pub use attach_order::{AttachOrder, OrderedProgram};
pub use detail::{
    AttachedLink, BpfNodeDetail, BpfNodeDetailSpec, BpfNodeDetailStatus, DrainingMap, LoadedMap, LoadedProgram,
    OmittedDetail, ProgramDetail, RetainedMap,
};
pub use drift::{Drift, DriftKind};
pub use entries::EntryCounts;
pub use program::{NodeProgram, State};
pub use refused_connections::RefusedConnections;

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
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every BpfProgram that the node should run is in effect"
    ),
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
    pub counts: NodeProgramCounts,
    /// Every BpfProgram that the node holds or should hold, by name: its state as JSON text, with `uid`, `revision`,
    /// `desiredRevision` if that is another one, `state` (Attached, Failed, Suspended or Removing), `reason`,
    /// `message`, `programIDs`, `mapIDs`, the numbers of `links` and `pods`, `refusedConnections`, and `drift`. None is
    /// ever left out.
    #[serde(default, with = "program::text", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "program::text::schema")]
    pub programs: Vec<NodeProgram>,
    /// The reason why sockeye is suspended on the whole node. Absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub suspended: Option<String>,
    /// The condition Ready: whether every BpfProgram that the node should run is in effect; and PinsCurrent, which is
    /// present only while the node's pins have another layout than the agent's.
    #[serde(default, deserialize_with = "condition::own", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The number of items for which there is no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Omitted>")]
    pub omitted: Option<Omitted>,
}

impl BpfNodeStatus {
    /// Returns the state of a BpfProgram, not of an earlier one of the same name. An entry whose UID can't be read may
    /// be about either, so it is returned: a deletion waits for it.
    pub fn program(&self, ProgramRef { name, uid }: &ProgramRef) -> Option<&NodeProgram> {
        let at = self.programs.binary_search_by(|program| program.name.cmp(name)).ok()?;
        self.programs.get(at).filter(|program| program.uid == *uid || program.uid.is_empty())
    }
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
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<CgroupMode>")]
    pub cgroup_mode: Option<CgroupMode>,
    /// The kernel features that sockeye uses and this kernel has, sorted: "CgroupLink", "KernelBTF", ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Vec<String>,
    /// The known regressions that this kernel has, sorted: "SockmapFIONREAD", ... A BpfProgram that would trigger one
    /// runs here only if its `spec.acceptedRegressions` names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub regressions: Vec<String>,
    /// The version of the agent.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent_version: String,
}

/// Reads a mode. One that only a newer agent knows is none, and hides nothing else of its report.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CgroupMode>, D::Error> {
    Ok(from_value(Value::deserialize(deserializer)?).ok())
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
pub struct NodeProgramCounts {
    /// The number of BpfPrograms.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub programs: i64,
    /// The number of BpfPrograms whose desired revision is not in effect.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// The number of links in effect.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub links: i64,
}

/// The number of items for which a BpfNode has no room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Omitted {
    /// Changes that others made.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub drift: i64,
    /// Pods whose connections were refused.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub refused_pods: i64,
    /// Messages.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub messages: i64,
    /// The kernel's IDs of maps.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub map_ids: i64,
    /// The kernel's IDs of programs.
    #[serde(default, rename = "programIDs", skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub program_ids: i64,
}
