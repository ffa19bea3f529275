//! `Node`: what a node holds, as its agent knows it now. Nothing is left out for want of room.

use serde::{Deserialize, Serialize};
use sockeye_crds::node::{AttachOrder, DrainingMap, NodeFacts, NodeProgram, ProgramDetail, RetainedMap};

/// A node, and every BpfProgram that it holds or should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The name of the node.
    pub name: String,
    /// The time of the answer (RFC 3339, by the node's clock).
    pub time: String,
    /// The node and its kernel.
    pub facts: NodeFacts,
    /// The reason why sockeye is suspended on the whole node. Absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
    /// True if the kernel counts runs of programs: absent if that can't be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts_runs: Option<bool>,
    /// The number of processors that are online, for shares of their time.
    pub cpus: u32,
    /// The BpfPrograms, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Program>,
    /// Maps of deleted BpfPrograms, kept by `reclaimPolicy: Retain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<RetainedMap>,
    /// Maps of suspended or deleted BpfPrograms with sockets in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<DrainingMap>,
    /// The attach order of cgroups that have a program of sockeye and at least one more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attach_order: Vec<AttachOrder>,
}

/// One BpfProgram on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The name of the BpfProgram.
    pub name: String,
    /// Its state, as the BpfNode has it.
    pub status: NodeProgram,
    /// The kernel's objects, as the BpfNodeDetail has them.
    pub detail: ProgramDetail,
    /// The runs of each function that is loaded, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Runs>,
}

/// The runs of one program in the kernel, from its load, while the kernel counted them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    /// The name of the function in the ELF object.
    pub name: String,
    /// The kernel's ID of the program.
    pub id: u32,
    /// The number of runs (bpf_prog_info's run_cnt).
    pub count: u64,
    /// Their time in nanoseconds (run_time_ns).
    pub nanoseconds: u64,
    /// The number of runs that were skipped, because the program was running on that processor (recursion_misses).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recursion_misses: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
