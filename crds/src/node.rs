//! `BpfNode`: observation, written by one node's agent: the node, its kernel, and all that sockeye holds there.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MapDefinition, ProgramType, schema};

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

/// What the kernel says of one BpfProgram's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The BpfProgram's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The revision that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub wanted: Option<String>,
    /// Why it is not in effect, in words: what is wrong, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// The verifier's words, where it refused a program; the end of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub verifier_log: Option<String>,
    /// What was asked for and deliberately not done, e.g. a pinning that the ELF asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub notes: Vec<String>,
    /// What others did to it lately and the agent saw, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub drift: Vec<Drift>,
    /// Programs, as `bpftool prog show` prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<LoadedProgram>,
    /// Maps, as `bpftool map show` prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<LoadedMap>,
    /// Links, as `bpftool link show` prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub links: Vec<AttachedLink>,
}

/// Something that others did to a BpfProgram's objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// When the agent saw it (RFC 3339, seconds).
    #[schemars(length(max = 40))]
    pub seen_at: String,
    /// What it is, in one word.
    pub kind: DriftKind,
    /// What it is and what became of it, in words.
    #[schemars(length(max = 512))]
    pub message: String,
    /// How often it was seen, where the same came again.
    #[serde(default)]
    pub count: i64,
}

/// What others can do to a BpfProgram's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DriftKind {
    /// A pin or a note of ours was removed, or something else was put in its place.
    PinRemoved,
    /// A link of ours was detached.
    LinkDetached,
    /// A program that is not ours was attached beside ours, on the same cgroup and attach type.
    AttachedBeside,
}

impl DriftKind {
    /// The word, as it stands in an Event: the variant's own name.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedProgram {
    /// The function's name in the ELF.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What the kernel kept of the name: its first 15 characters.
    #[schemars(length(max = 16))]
    pub kernel_name: String,
    /// The kernel's ID.
    pub id: i64,
    /// The program's type.
    #[serde(rename = "type")]
    pub program_type: ProgramType,
    /// The kernel's tag: a hash over the instructions, comparable on one node only.
    #[schemars(length(max = 16))]
    pub tag: String,
    /// Whether its licence lets it call GPL-only helpers.
    pub gpl_compatible: bool,
    /// When it was loaded (RFC 3339, seconds).
    #[schemars(length(max = 40))]
    pub loaded_at: String,
    /// The user who loaded it.
    pub uid: i64,
    /// Size of the translated instructions in bytes.
    pub xlated_bytes: i64,
    /// Size of the machine code in bytes; 0 without a JIT.
    pub jited_bytes: i64,
    /// Memory held, in bytes.
    pub memlock_bytes: i64,
    /// The maps it uses, by the kernel's IDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
    /// The ID of its BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// Its pin, as the host sees it.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// A map in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedMap {
    /// The map's name in the ELF.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What the kernel kept of the name: its first 15 characters.
    #[schemars(length(max = 16))]
    pub kernel_name: String,
    /// The kernel's ID.
    pub id: i64,
    /// The map's type.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub map_type: String,
    /// BPF_F_* flags.
    pub flags: i64,
    /// Size of a key in bytes.
    pub key_size: i64,
    /// Size of a value in bytes.
    pub value_size: i64,
    /// The most entries.
    pub max_entries: i64,
    /// Memory held, in bytes.
    pub memlock_bytes: i64,
    /// Whether user space can no longer write it.
    #[serde(default)]
    pub frozen: bool,
    /// The ID of its BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// How the object defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<MapDefinition>,
    /// Whether a loaded program of this BpfProgram uses it; where none does, only its pin keeps it alive.
    pub used: bool,
    /// Its pin, as the host sees it; absent for a map that is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub pin_path: Option<String>,
}

/// An attachment: a link in the kernel, or, where the kernel has no links for maps, a program that a map holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachedLink {
    /// The function's name in the ELF.
    #[schemars(length(max = 128))]
    pub program: String,
    /// The link's ID in the kernel; 0 where there is no link.
    pub id: i64,
    /// The link's type: cgroup, sockmap; none where the kernel has no links for maps: the pinned map holds the attachment.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub link_type: String,
    /// The ID of the program it runs.
    #[serde(rename = "programID")]
    pub program_id: i64,
    /// The attach type, as bpftool names it: cgroup_sock_ops.
    #[schemars(length(max = 64))]
    pub attach_type: String,
    /// The cgroup's ID (its inode number); 0 once the link is detached or the cgroup gone. Absent for a map.
    #[serde(default, rename = "cgroupID", skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<i64>,
    /// The cgroup's path below the node's cgroup root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub cgroup_path: Option<String>,
    /// The map, by its name on bpffs, that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub map: Option<String>,
    /// That map's ID; 0 once it is detached.
    #[serde(default, rename = "mapID", skip_serializing_if = "Option::is_none")]
    pub map_id: Option<i64>,
    /// Whether the kernel's own query of the cgroup or map lists the program.
    pub in_effect: bool,
    /// Its pin, as the host sees it: the link's; where there is no link, the attached program's.
    #[schemars(length(max = 512))]
    pub pin_path: String,
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
    /// BpfPrograms whose details are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub details: i64,
    /// Links that are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub links: i64,
    /// Verifier logs that are not shown.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub logs: i64,
}
