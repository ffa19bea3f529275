//! Facts on the node and its kernel that do not change while the agent runs, and the agent's own limits.

use std::{collections::BTreeSet, fs, io, os::fd::RawFd, sync::OnceLock};

use rustix::thread::CapabilitySet;
use sockeye_crds::node::{CgroupMode, NodeFacts};

use super::{Call as _, SysError, possible_cpus};
use crate::model::kernel::Machine;

/// So many descriptors find room in the table from the start: 32 KiB of the kernel's memory.
const DESCRIPTORS: u64 = 4096;

/// Reads the facts. `features` are those of [`KernelFeatures`](super::kernel_features::KernelFeatures), restrictions
/// among them.
pub fn read(cgroup_mode: CgroupMode, features: BTreeSet<String>) -> Result<NodeFacts, SysError> {
    let uname = rustix::system::uname();
    Ok(NodeFacts {
        boot_id: boot_id()?,
        kernel_release: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cgroup_mode: Some(cgroup_mode),
        features: features.into_iter().collect(),
        regressions: Vec::new(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The kernel's version as `LINUX_VERSION_CODE` has it. As in libbpf (`get_kernel_version`), Debian's own number
/// counts, which stands in the version behind `Debian`, and then Ubuntu's.
pub fn kernel_version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let uname = rustix::system::uname();
        let (release, version) = (uname.release().to_string_lossy(), uname.version().to_string_lossy());
        let ubuntu = fs::read_to_string("/proc/version_signature").unwrap_or_default();
        version_code(&release, &version, &ubuntu)
    })
}

fn version_code(release: &str, version: &str, ubuntu: &str) -> u32 {
    let numbers = |text: &str| {
        let mut parts = text.splitn(3, '.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end).unwrap_or_default().parse::<u32>().ok()
        });
        let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
        Some(major << 16 | minor << 8 | patch.min(255))
    };
    // "Ubuntu 5.15.0-91.101-generic 5.15.131"
    let ubuntu = ubuntu.strip_prefix("Ubuntu ").and_then(|text| text.split(' ').nth(1)).and_then(numbers);
    let debian = version.split_once("Debian ").and_then(|(_, text)| numbers(text));
    ubuntu.or(debian).or_else(|| numbers(release)).unwrap_or_default()
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

/// Raises this process's soft limit of open files to its hard limit, and makes room for descriptors. Call it before any
/// thread is started.
///
/// The kernel doubles the table of descriptors when it is full. Where threads share it, each doubling waits for an RCU
/// grace period (`expand_fdtable`), which is milliseconds: five of them on the way to 1,100 links.
pub fn raise_open_files() -> Result<(), SysError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).call(|| "setrlimit of RLIMIT_NOFILE")?;
    let room = maximum.map_or(DESCRIPTORS, |maximum| DESCRIPTORS.min(maximum));
    let last = RawFd::try_from(room.saturating_sub(1)).unwrap_or_default();
    rustix::io::fcntl_dupfd_cloexec(io::stderr(), last).map(drop).call(|| "fcntl of F_DUPFD_CLOEXEC")
}

/// Reads the page size and the number of CPUs, which determine the memory of a map.
pub fn machine() -> Result<Machine, SysError> {
    let cpus = possible_cpus()?;
    Ok(Machine {
        page: u32::try_from(rustix::param::page_size()).unwrap_or(4096),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::version_code;

    #[test]
    fn distributions_own_versions_count() {
        let code = |major: u32, minor: u32, patch: u32| major << 16 | minor << 8 | patch;
        let debian = "#1 SMP Debian 5.10.223-1 (2024-08-10)";
        assert_eq!(version_code("5.10.0-32-cloud-amd64", debian, ""), code(5, 10, 223));
        assert_eq!(version_code("6.18.44", "#1 SMP PREEMPT_DYNAMIC", ""), code(6, 18, 44));
        let ubuntu = "Ubuntu 5.15.0-91.101-generic 5.15.131\n";
        assert_eq!(version_code("5.15.0-91-generic", "#101-Ubuntu SMP", ubuntu), code(5, 15, 131));
        assert_eq!(version_code("4.19.325-cip", "#1", ""), code(4, 19, 255));
        assert_eq!(version_code("odd", "", ""), 0);
    }
}
