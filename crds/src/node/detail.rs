//! `BpfNodeDetail`: the kernel's information about everything that sockeye holds on one node, with the values that
//! bpftool prints. The node's agent writes it, less often than its BpfNode.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttachOrder, EntryCounts};
use crate::{MapDefinition, ProgramType, program::MapRef, schema};

/// A BpfNodeDetail describes the kernel's objects that sockeye holds on the node of the same name. The node's agent
/// writes it.
#[allow(clippy::duplicated_attributes, reason = "clippy takes the columns' settings for attributes")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sockeye.dev",
    version = "v1alpha1",
    kind = "BpfNodeDetail",
    plural = "bpfnodedetails",
    shortname = "sbpfnd",
    category = "sockeye",
    status = "BpfNodeDetailStatus",
    derive = "PartialEq",
    doc = "BpfNodeDetail describes the kernel's objects that sockeye holds on the node of the same name: programs, \
        maps, links, verifier logs. The node's agent writes it, less often than its BpfNode.",
    printcolumn(
        name = "Omitted",
        type_ = "integer",
        json_path = ".status.omitted.programs",
        description = "Number of BpfPrograms for which there is no room"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BpfNodeDetailSpec {}

/// The kernel's objects that sockeye holds on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// Only one agent writes the status, so it is one value: with an owner per field, the object would be twice as large.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct BpfNodeDetailStatus {
    /// Every BpfProgram that the node holds or should hold, as far as there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub programs: Vec<ProgramDetail>,
    /// Maps of deleted BpfPrograms, kept by `reclaimPolicy: Retain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub retained: Vec<RetainedMap>,
    /// Maps of suspended or deleted BpfPrograms with sockets in them, which keep their programs until they are closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub draining: Vec<DrainingMap>,
    /// The attach order of cgroups that have a program of sockeye and at least one more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attach_order: Vec<AttachOrder>,
    /// The number of items for which there is no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<OmittedDetail>")]
    pub omitted: Option<OmittedDetail>,
}

/// The kernel's information about one BpfProgram's objects on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramDetail {
    /// The name of the BpfProgram.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The end of the verifier's log, if it rejected a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub verifier_log: Option<String>,
    /// Notes for the user, for example that this kernel does not order programs by priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub notes: Vec<String>,
    /// The programs, with the values that `bpftool prog show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub programs: Vec<LoadedProgram>,
    /// The maps, with the values that `bpftool map show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub maps: Vec<LoadedMap>,
    /// The first 64 links, with the values that `bpftool link show` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub links: Vec<AttachedLink>,
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
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub load_time: String,
    /// The Unix user who loaded the program.
    #[serde(rename = "userID")]
    #[schemars(range(min = 0))]
    pub user_id: i64,
    /// The size of the translated instructions in bytes.
    #[schemars(range(min = 0))]
    pub xlated_bytes: i64,
    /// The size of the machine code in bytes; 0 without a JIT.
    #[schemars(range(min = 0))]
    pub jited_bytes: i64,
    /// The memory that the kernel charges, in bytes.
    #[schemars(range(min = 0))]
    pub memlock_bytes: i64,
    /// The kernel's IDs of the maps that the program uses.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub map_ids: Vec<i64>,
    /// The kernel's ID of the BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// The number of the program's links in effect.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub links: i64,
    /// The path of the pin on the host.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// A map in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedMap {
    /// The name of the map in the ELF object; `PROGRAM~MAP` for another BpfProgram's that programs are attached to.
    #[schemars(length(max = 192))]
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
    #[schemars(range(min = 0))]
    pub flags: i64,
    /// The size of a key in bytes.
    #[schemars(range(min = 0))]
    pub key_size_bytes: i64,
    /// The size of a value in bytes.
    #[schemars(range(min = 0))]
    pub value_size_bytes: i64,
    /// The maximum number of entries.
    #[schemars(range(min = 0))]
    pub max_entries: i64,
    /// The memory that the kernel charges, in bytes.
    #[schemars(range(min = 0))]
    pub memlock_bytes: i64,
    /// True if the map is frozen, so that user space can no longer write it.
    #[serde(default)]
    pub frozen: bool,
    /// The kernel's ID of the BTF object.
    #[serde(default, rename = "btfID", skip_serializing_if = "Option::is_none")]
    pub btf_id: Option<i64>,
    /// The form of the map's definition in the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<MapDefinition>")]
    pub definition: Option<MapDefinition>,
    /// The map of another BpfProgram that this one is. Absent if the map is the BpfProgram's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<MapRef>")]
    pub map_ref: Option<MapRef>,
    /// The names of the first 16 other BpfPrograms on the node that use the map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub shared_by: Vec<String>,
    /// The entries that the spec lists for the map, and those that are in place. Absent if it lists none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<EntryCounts>")]
    pub entries: Option<EntryCounts>,
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
    /// The kernel's ID of the link. Absent if there is no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// The type of the link: cgroup or sockmap. Absent if there is no link, because the kernel has none for maps and
    /// the pinned map holds the attachment.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub link_type: Option<String>,
    /// The kernel's ID of the attached program.
    #[serde(rename = "programID")]
    pub program_id: i64,
    /// The attach type by bpftool's name, such as cgroup_sock_ops.
    #[schemars(length(max = 64))]
    pub attach_type: String,
    /// The cgroup's ID, which is its inode number. Absent once the link is detached or the cgroup is gone, and for a
    /// map.
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
    #[schemars(length(max = 192))]
    pub map: Option<String>,
    /// The kernel's ID of that map. Absent once the program is detached.
    #[serde(default, rename = "mapID", skip_serializing_if = "Option::is_none")]
    pub map_id: Option<i64>,
    /// True if the kernel lists the program when asked for the cgroup's or map's programs.
    pub in_effect: bool,
    /// The path of the link's pin on the host; of the attached program's if there is no link.
    #[schemars(length(max = 512))]
    pub pin_path: String,
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

/// A sockmap or sockhash of a suspended or deleted BpfProgram with sockets in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainingMap {
    /// The name of the BpfProgram. One that was made anew since has another map.
    #[schemars(length(max = 63))]
    pub program: String,
    /// The file name that the map's pin has or had among the BpfProgram's maps.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The kernel's ID of the map.
    pub id: i64,
    /// The number of sockets in the map.
    #[schemars(range(min = 0))]
    pub sockets: i64,
    /// The path of the pin on the host.
    #[schemars(length(max = 512))]
    pub pin_path: String,
}

/// The number of items for which a BpfNodeDetail has no room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OmittedDetail {
    /// BpfPrograms.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub programs: i64,
    /// Links.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub links: i64,
    /// Cgroups whose attach order is not listed.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub attach_order: i64,
    /// Verifier logs.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub verifier_logs: i64,
    /// Maps beyond 128 of one BpfProgram.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub maps: i64,
    /// Functions beyond 32 of one BpfProgram.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub functions: i64,
    /// Retained maps.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub retained: i64,
    /// Maps with sockets in them.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub draining: i64,
}
