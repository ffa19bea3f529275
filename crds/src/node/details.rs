//! `Details`: the kernel's information about one BpfProgram's objects on a node, with the values that bpftool prints.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MapDefinition, ProgramType, program::MapRef, schema};

/// The kernel's information about one BpfProgram's objects on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The name of the BpfProgram.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The desired revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub wanted: Option<String>,
    /// The explanation, for people, why the desired revision is not in effect: what is wrong, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// The end of the verifier's log, if it refused a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub verifier_log: Option<String>,
    /// Notes for the user, for example that this kernel does not order programs by priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub notes: Vec<String>,
    /// Recent changes that others made to the BpfProgram's objects, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub drift: Vec<Drift>,
    /// The programs, with the values that `bpftool prog show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub programs: Vec<LoadedProgram>,
    /// The maps, with the values that `bpftool map show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub maps: Vec<LoadedMap>,
    /// The number of cgroups with a program in effect.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub cgroups: i64,
    /// The first 64 links, with the values that `bpftool link show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub links: Vec<AttachedLink>,
}

/// A change that others made to a BpfProgram's objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The time at which the agent detected the change (RFC 3339, seconds).
    #[schemars(length(max = 40))]
    pub seen_at: String,
    /// The kind of the change.
    pub kind: DriftKind,
    /// The change and how the agent dealt with it, for people.
    #[schemars(length(max = 512))]
    pub message: String,
    /// The number of times that the same change was detected.
    #[serde(default)]
    pub count: i64,
}

/// The kinds of changes that others make to a BpfProgram's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DriftKind {
    /// A pin or a note of sockeye was removed or replaced.
    PinRemoved,
    /// A link of sockeye was detached.
    LinkDetached,
    /// A program that is not sockeye's was attached to the same cgroup and attach type.
    AttachedBeside,
}

impl DriftKind {
    /// Returns the name that an Event shows: the variant's own.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedProgram {
    /// The name of the function in the ELF object.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The name in the kernel: the first 15 characters.
    #[schemars(length(max = 16))]
    pub kernel_name: String,
    /// The kernel's ID of the program.
    pub id: i64,
    /// The type of the program.
    #[serde(rename = "type")]
    pub program_type: ProgramType,
    /// The kernel's tag: a hash of the instructions. Tags are comparable on one node only.
    #[schemars(length(max = 16))]
    pub tag: String,
    /// True if the program's licence allows it to call GPL-only helpers.
    pub gpl_compatible: bool,
    /// The time of the load (RFC 3339, seconds).
    #[schemars(length(max = 40))]
    pub loaded_at: String,
    /// The ID of the user who loaded the program.
    pub uid: i64,
    /// The size of the translated instructions in bytes.
    pub xlated_bytes: i64,
    /// The size of the machine code in bytes; 0 without a JIT.
    pub jited_bytes: i64,
    /// The memory that the kernel charges, in bytes.
    pub memlock_bytes: i64,
    /// The kernel's IDs of the maps that the program uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
    /// The kernel's ID of the BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// The number of the program's links in effect. Absent if the agent is too old to report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<i64>,
    /// The path of the pin on the host.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// A map in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedMap {
    /// The name of the map in the ELF object.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The name in the kernel: the first 15 characters.
    #[schemars(length(max = 16))]
    pub kernel_name: String,
    /// The kernel's ID of the map.
    pub id: i64,
    /// The type of the map.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub map_type: String,
    /// The BPF_F_* flags.
    pub flags: i64,
    /// The size of a key in bytes.
    pub key_size: i64,
    /// The size of a value in bytes.
    pub value_size: i64,
    /// The maximum number of entries.
    pub max_entries: i64,
    /// The memory that the kernel charges, in bytes.
    pub memlock_bytes: i64,
    /// True if the map is frozen, so that user space can no longer write it.
    #[serde(default)]
    pub frozen: bool,
    /// The kernel's ID of the BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// The form of the map's definition in the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<MapDefinition>,
    /// The map of another BpfProgram that this one is. Absent if the map is the BpfProgram's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MapRef>,
    /// The names of the first 16 other BpfPrograms on the node that use the map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub shared_by: Vec<String>,
    /// True if a loaded program of this BpfProgram uses the map. If not, only the pin keeps the map.
    pub used: bool,
    /// The path of the pin on the host. Absent for a map that is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub pin_path: Option<String>,
}

/// An attachment: a link in the kernel, or a program that a map holds if the kernel has no links for maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachedLink {
    /// The name of the function in the ELF object.
    #[schemars(length(max = 128))]
    pub program: String,
    /// The kernel's ID of the link; 0 if there is no link.
    pub id: i64,
    /// The type of the link: cgroup or sockmap. It is none if the kernel has no links for maps and the pinned map holds
    /// the attachment.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub link_type: String,
    /// The kernel's ID of the attached program.
    #[serde(rename = "programID")]
    pub program_id: i64,
    /// The attach type by bpftool's name, such as cgroup_sock_ops.
    #[schemars(length(max = 64))]
    pub attach_type: String,
    /// The cgroup's ID, which is its inode number; 0 once the link is detached or the cgroup is gone. Absent for a map.
    #[serde(default, rename = "cgroupID", skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<i64>,
    /// The path of the cgroup below the node's cgroup root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub cgroup_path: Option<String>,
    /// The pod that the cgroup belongs to, as namespace/name, if the target selects pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub pod: Option<String>,
    /// The container that the cgroup belongs to, if the target selects containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// The pin name of the map that the program is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub map: Option<String>,
    /// The kernel's ID of that map; 0 once the program is detached.
    #[serde(default, rename = "mapID", skip_serializing_if = "Option::is_none")]
    pub map_id: Option<i64>,
    /// True if the kernel lists the program when asked for the cgroup's or map's programs.
    pub in_effect: bool,
    /// The path of the link's pin on the host; of the attached program's if there is no link.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}
