//! `Order`: what runs at one cgroup for one attach type, in order; ours and others'.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is attached to one cgroup for one attach type. The kernel allows 64 programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The cgroup's path below the node's cgroup root.
    #[schemars(length(max = 1024))]
    pub cgroup_path: String,
    /// The attach type, as bpftool names it: cgroup_sock_ops.
    #[schemars(length(max = 64))]
    pub attach_type: String,
    /// The programs, the first to run first.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub programs: Vec<Runs>,
}

/// A program that is attached to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    /// The kernel's ID.
    pub id: i64,
    /// The BpfProgram and the function, as `tcp-events/my_prog`; absent for others' programs, whose names only
    /// CAP_SYS_ADMIN could ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 192))]
    pub name: Option<String>,
}
