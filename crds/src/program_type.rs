//! `ProgramType`: the program types that sockeye runs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kernel's type of a BPF program (`enum bpf_prog_type`), among those that attach to cgroups and sockmaps.
///
/// `spec.programs[].type` and the TYPE column show these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ProgramType {
    /// `BPF_PROG_TYPE_SOCK_OPS`
    SockOps,
    /// `BPF_PROG_TYPE_CGROUP_SKB`
    CgroupSkb,
    /// `BPF_PROG_TYPE_CGROUP_SOCK`
    CgroupSock,
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`
    CgroupSockAddr,
    /// `BPF_PROG_TYPE_CGROUP_SOCKOPT`
    CgroupSockopt,
    /// `BPF_PROG_TYPE_CGROUP_SYSCTL`
    CgroupSysctl,
    /// `BPF_PROG_TYPE_CGROUP_DEVICE`
    CgroupDevice,
    /// `BPF_PROG_TYPE_SK_MSG`
    SkMsg,
    /// `BPF_PROG_TYPE_SK_SKB`
    SkSkb,
}

impl ProgramType {
    /// Returns the name as users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SockOps => "SockOps",
            Self::CgroupSkb => "CgroupSkb",
            Self::CgroupSock => "CgroupSock",
            Self::CgroupSockAddr => "CgroupSockAddr",
            Self::CgroupSockopt => "CgroupSockopt",
            Self::CgroupSysctl => "CgroupSysctl",
            Self::CgroupDevice => "CgroupDevice",
            Self::SkMsg => "SkMsg",
            Self::SkSkb => "SkSkb",
        }
    }
}

impl fmt::Display for ProgramType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
