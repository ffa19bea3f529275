//! `Details`: what the kernel says of one BpfProgram's objects on a node, as bpftool prints it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MapDefinition, ProgramType, program::MapRef, schema};

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
    /// What is to be known besides, e.g. that others' device programs are at the same cgroup, or that this kernel keeps no order.
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
    /// The cgroups at which something is in effect.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub cgroups: i64,
    /// Links, as `bpftool link show` prints them; the first 64.
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
    /// Its links that are in effect; absent where an older agent does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<i64>,
    /// Its pin, as the host sees it.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// A map in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
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
    /// Where it is another BpfProgram's map, which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MapRef>,
    /// The other BpfPrograms here that use it, by name; the first 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub shared_by: Vec<String>,
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
    /// The pod whose cgroup it is, by namespace and name, where it was picked as a pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub pod: Option<String>,
    /// The container whose cgroup it is, where it was picked as a container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
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
