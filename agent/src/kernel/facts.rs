//! Facts on the node and its kernel that do not change while the agent runs, and the agent's own limits.

use std::{collections::BTreeSet, fs};

use rustix::thread::CapabilitySet;
use sockeye_crds::node::{CgroupMode, NodeFacts};

use super::{Call as _, SysError};
use crate::model::kernel::Machine;

/// Reads the facts. A [`Probe`](super::probe::Probe) has found the `features`, restrictions among them.
pub fn read(cgroup_mode: CgroupMode, features: BTreeSet<String>) -> Result<NodeFacts, SysError> {
    let uname = rustix::system::uname();
    Ok(NodeFacts {
        boot_id: boot_id()?,
        kernel_release: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cgroup_mode: Some(cgroup_mode),
        features: features.into_iter().collect(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The ID of the running boot.
pub fn boot_id() -> Result<String, SysError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(PATH).call(|| format!("read of {PATH}"))?;
    Ok(id.trim().to_owned())
}

/// The capabilities that the agent needs and this thread lacks.
pub fn lacking_capabilities() -> Result<Vec<&'static str>, SysError> {
    let has = rustix::thread::capabilities(None).call(|| "capget")?.effective;
    // CAP_SYS_ADMIN includes both of these (`bpf_capable`, `perfmon_capable`).
    let of_admin = |capability| capability | CapabilitySet::SYS_ADMIN;
    let needed = [
        ("CAP_BPF", of_admin(CapabilitySet::BPF)),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_PERFMON", of_admin(CapabilitySet::PERFMON)),
    ];
    Ok(needed.into_iter().filter(|(_, any)| !has.intersects(*any)).map(|(name, _)| name).collect())
}

/// Raises this process's soft limit of open files to its hard limit.
pub fn raise_open_files() -> Result<(), SysError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).call(|| "setrlimit of RLIMIT_NOFILE")
}

/// Reads the page size and the number of CPUs, which determine the memory of a map.
pub fn machine() -> Result<Machine, SysError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).call(|| "read of the possible CPUs")?;
    Ok(Machine {
        page: u32::try_from(rustix::param::page_size()).unwrap_or(4096),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
    })
}
