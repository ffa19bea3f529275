//! `AttachOrder`: the programs that run at one cgroup for one attach type, in their order, sockeye's and others'.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The programs attached to one cgroup for one attach type. The kernel allows 64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachOrder {
    /// The path of the cgroup below the node's cgroup root.
    #[schemars(length(max = 1024))]
    pub cgroup_path: String,
    /// The attach type by bpftool's name, such as cgroup_sock_ops.
    #[schemars(length(max = 64))]
    pub attach_type: String,
    /// The programs in the order in which they run.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub programs: Vec<OrderedProgram>,
}

/// A program that is attached to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderedProgram {
    /// The kernel's ID of the program.
    pub id: i64,
    /// The BpfProgram and the function, as `tcp-events/my_prog`. Absent for others' programs, whose names the kernel
    /// tells only with CAP_SYS_ADMIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 192))]
    pub name: Option<String>,
}
