//! The privileges of the running agents and operator as /proc shows them, on the local cluster. `make lint` checks the
//! chart; these tests check what the kernel made of it.
//!
//! Where the kernel has AppArmor, the runtime's default profile denies more than is asked here: writes below /sys.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sockeye_tests::{helper, json};

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, by their numbers in linux/capability.h.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// The writable mounts that a runtime gives every container: devices, shared memory, /proc, and the kubelet's two files
/// of the pod. On a node with cgroup v1 also the container's own tmpfs that holds the mount points of the v1
/// controllers, which are read-only.
const EVERY_CONTAINERS: [(&str, &str); 11] = [
    ("/proc", "proc"),
    ("/proc/interrupts", "tmpfs"),
    ("/proc/keys", "tmpfs"),
    ("/proc/timer_list", "tmpfs"),
    ("/dev", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/mqueue", "mqueue"),
    ("/dev/shm", "tmpfs"),
    ("/dev/termination-log", "any"),
    ("/etc/hosts", "any"),
    ("/sys/fs/cgroup", "tmpfs"),
];

struct Process {
    node: String,
    proc: PathBuf,
}

/// One line of mountinfo.
struct Mount {
    at: String,
    writable: bool,
    type_: String,
}

impl Process {
    /// Finds the one process of each pod of a component.
    fn of(component: &str) -> Result<Vec<Self>> {
        let selector = format!("app.kubernetes.io/component={component}");
        let pods = json(&["get", "pods", "-n", "sockeye-system", "-l", &selector])?;
        let running =
            pods["items"].as_array().context("no pods")?.iter().filter(|pod| pod["status"]["phase"] == "Running");
        running.map(Self::in_pod).collect()
    }

    fn in_pod(pod: &Value) -> Result<Self> {
        let uid = pod["metadata"]["uid"].as_str().context("no UID")?;
        let node = pod["spec"]["nodeName"].as_str().context("no node")?.to_owned();
        let read = |proc: &Path, file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
        let processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
        let ours =
            processes.filter(|proc| read(proc, "cgroup").contains(uid) && read(proc, "comm").trim() == "sockeye");
        let all: Vec<PathBuf> = ours.collect();
        let [proc] = &all[..] else { anyhow::bail!("pod {uid} on {node} runs {all:?}") };
        Ok(Self { node, proc: proc.clone() })
    }

    fn status(&self, field: &str) -> Result<String> {
        let status = fs::read_to_string(self.proc.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {field}"))?.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn capabilities(&self, set: &str) -> Result<u64> {
        Ok(u64::from_str_radix(&self.status(set)?, 16)?)
    }

    fn mounts(&self) -> Result<Vec<Mount>> {
        let mountinfo = fs::read_to_string(self.proc.join("mountinfo"))?;
        mountinfo.lines().map(|line| Mount::parse(line).with_context(|| line.to_owned())).collect()
    }

    /// Returns the error of creating a directory where this process would create it.
    fn mkdir(&self, directory: &str) -> Result<ErrorKind> {
        let path = self.proc.join("root").join(directory.trim_start_matches('/')).join("sockeye-test");
        match fs::create_dir(&path) {
            Err(error) => Ok(error.kind()),
            Ok(()) => {
                fs::remove_dir(&path)?;
                anyhow::bail!("{directory} is writable on {}", self.node)
            }
        }
    }

    fn holds(&self, uid: &str, capabilities: u64) -> Result<()> {
        ensure!(self.status("Uid")? == [uid; 4].join(" ") && self.status("Gid")? == [uid; 4].join(" "));
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            ensure!(self.capabilities(set)? == capabilities, "{set} is {:#x}", self.capabilities(set)?);
        }
        for set in ["CapInh", "CapAmb"] {
            ensure!(self.capabilities(set)? == 0, "{set} is {:#x}", self.capabilities(set)?);
        }
        ensure!(self.status("NoNewPrivs")? == "1", "it may gain privileges by execve");
        ensure!(self.status("Seccomp")? == "2", "no seccomp filter");
        Ok(())
    }

    fn shares_no_namespace(&self) -> Result<()> {
        for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
            let own = fs::read_link(self.proc.join("ns").join(namespace))?.display().to_string();
            let nodes = helper("exec", &[&self.node, "readlink", &format!("/proc/self/ns/{namespace}")])?;
            ensure!(own != nodes.trim(), "it shares the {namespace} namespace of {}", self.node);
        }
        Ok(())
    }

    fn writes_only(&self, own: &[(&str, &str)]) -> Result<()> {
        let mounts = self.mounts()?;
        for mount in mounts.iter().filter(|mount| mount.writable) {
            let expected = EVERY_CONTAINERS
                .iter()
                .chain(own)
                .any(|(at, type_)| *at == mount.at && (*type_ == mount.type_ || *type_ == "any"));
            ensure!(expected, "{} ({}) is writable on {}", mount.at, mount.type_, self.node);
        }
        for at in mounts.iter().filter(|mount| mount.at.starts_with("/sys") && !mount.writable).map(|mount| &mount.at) {
            ensure!(self.mkdir(at)? == ErrorKind::ReadOnlyFilesystem, "{at}");
        }
        for at in ["/", "/sys", "/var/run/secrets/kubernetes.io/serviceaccount"] {
            ensure!(self.mkdir(at)? == ErrorKind::ReadOnlyFilesystem, "{at}");
        }
        Ok(())
    }

    /// Returns the mounts below /host: (mount point, type, writable).
    fn of_the_host(&self) -> Result<BTreeSet<(String, String, bool)>> {
        let mounts = self.mounts()?.into_iter().filter(|mount| mount.at.starts_with("/host"));
        Ok(mounts.map(|mount| (mount.at, mount.type_, mount.writable)).collect())
    }

    fn sbom_names(&self, name: &str) -> Result<()> {
        let sbom: Value = serde_json::from_slice(&fs::read(self.proc.join("root/sbom.json"))?)?;
        ensure!(
            sbom["bomFormat"] == "CycloneDX" && sbom["metadata"]["component"]["name"] == name,
            "{}",
            sbom["metadata"]
        );
        let names = |part: &Value| part["name"].as_str().unwrap_or_default().to_owned();
        let parts: BTreeSet<String> =
            sbom["components"].as_array().context("no components")?.iter().map(names).collect();
        ensure!(["kube", "tokio", "glibc"].iter().all(|part| parts.contains(*part)), "{parts:?}");
        Ok(())
    }
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let writable = fields.get(5)?.split(',').any(|option| option == "rw");
        Some(Self { at: (*fields.get(4)?).to_owned(), writable, type_: filesystem.split(' ').next()?.to_owned() })
    }
}

#[test]
fn the_agent_has_three_capabilities_and_two_host_mounts() -> Result<()> {
    let agents = Process::of("agent")?;
    ensure!(agents.len() == 2, "{} agents", agents.len());
    let expected = [("/host/bpf", "bpf", true), ("/host/cgroup", "cgroup2", false)];
    let expected = BTreeSet::from(expected.map(|(at, type_, writable)| (at.to_owned(), type_.to_owned(), writable)));
    for agent in agents {
        agent.holds("0", CAPABILITIES)?;
        agent.shares_no_namespace()?;
        agent.writes_only(&[("/host/bpf", "bpf")])?;
        ensure!(agent.of_the_host()? == expected, "{:?}", agent.of_the_host()?);
        ensure!(agent.mkdir("/host/cgroup")? == ErrorKind::ReadOnlyFilesystem);
    }
    Ok(())
}

#[test]
fn the_operator_has_no_capability_and_no_host_mount() -> Result<()> {
    let operators = Process::of("operator")?;
    ensure!(operators.len() == 2, "{} operators", operators.len());
    for operator in operators {
        operator.holds("65532", 0)?;
        operator.shares_no_namespace()?;
        operator.writes_only(&[])?;
        ensure!(operator.of_the_host()?.is_empty(), "{:?}", operator.of_the_host()?);
    }
    Ok(())
}

#[test]
fn each_image_contains_its_sbom() -> Result<()> {
    for component in ["agent", "operator"] {
        for process in Process::of(component)? {
            process.sbom_names(&format!("sockeye-{component}"))?;
        }
    }
    Ok(())
}

/// The controller manager type-checks the policies' expressions against the schemas of what they match.
#[test]
fn the_admission_policies_have_no_type_warnings() -> Result<()> {
    let selector = "app.kubernetes.io/name=sockeye";
    let policies = json(&["get", "validatingadmissionpolicies", "-l", selector])?["items"].clone();
    let policies = policies.as_array().context("no policies")?;
    let names: BTreeSet<&str> = policies.iter().filter_map(|policy| policy["metadata"]["name"].as_str()).collect();
    let ours = ["sockeye-configmaps", "sockeye-lease", "sockeye-nodes", "sockeye-revisions"];
    ensure!(names == BTreeSet::from(ours), "{names:?}");
    for policy in policies {
        ensure!(
            policy["status"]["typeChecking"] == serde_json::json!({}),
            "{}: {}",
            policy["metadata"],
            policy["status"]
        );
    }
    Ok(())
}
