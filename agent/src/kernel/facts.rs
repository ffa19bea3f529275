//! The node and its kernel: what does not change while the agent runs.

use std::{collections::BTreeSet, fs};

use rustix::thread::CapabilitySet;
use sockeye_crds::node::{CgroupMode, NodeFacts};

use super::{Call as _, SysError};

/// Reads them. The features are those that a [`super::probe::Probe`] found.
pub fn read(cgroup_mode: CgroupMode, features: &BTreeSet<String>) -> Result<NodeFacts, SysError> {
    let uname = rustix::system::uname();
    Ok(NodeFacts {
        boot_id: boot_id()?,
        kernel_release: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cgroup_mode: Some(cgroup_mode),
        features: features.iter().cloned().collect(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The running boot.
pub fn boot_id() -> Result<String, SysError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(PATH).call(|| format!("read of {PATH}"))?;
    Ok(id.trim().to_owned())
}

/// Of the capabilities that the agent needs, those that this thread lacks.
pub fn lacking_capabilities() -> Result<Vec<&'static str>, SysError> {
    let has = rustix::thread::capabilities(None).call(|| "capget")?.effective;
    // CAP_SYS_ADMIN stands for both of these (`bpf_capable`, `perfmon_capable`).
    let of_admin = |capability| capability | CapabilitySet::SYS_ADMIN;
    let needed = [
        ("CAP_BPF", of_admin(CapabilitySet::BPF)),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_PERFMON", of_admin(CapabilitySet::PERFMON)),
    ];
    Ok(needed.into_iter().filter(|(_, any)| !has.intersects(*any)).map(|(name, _)| name).collect())
}

/// Raises this process's limit of open files as far as it may itself.
pub fn raise_open_files() -> Result<(), SysError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).call(|| "setrlimit of RLIMIT_NOFILE")
}

/// What settles a map's size: the kernel's page, in bytes, and the processors there may be.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Bytes.
    pub page: u32,
    /// Processors, possible ones.
    pub cpus: u32,
}

impl Machine {
    /// Reads it.
    pub fn read() -> Result<Self, SysError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).call(|| "read of the possible processors")?;
        Ok(Self {
            page: u32::try_from(rustix::param::page_size()).unwrap_or(4096),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        })
    }
}
