//! A node for one test: a mount namespace with a bpffs, a cgroup, a folder of manifests, and an agent.

mod agent;
mod bpffs;
mod connections;
mod kernel;
mod manifests;
mod status;

#[allow(unused_imports, reason = "a file of other tests includes this module")]
pub use agent::agent_path;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use sockeye_agent::kernel::cgroup::Root;
use tempfile::TempDir;

pub struct Node {
    /// The process that holds the mount namespace. It exits when its input ends, so with the test. Absent if the node
    /// is the machine itself.
    holder: Option<Child>,
    folder: PathBuf,
    /// Removes the folder, if it was created for this test.
    _made: Option<TempDir>,
    cgroup: PathBuf,
    agent: Option<Child>,
    /// The number of times each manifest was applied. The manifest and its status carry it.
    applied: RefCell<BTreeMap<String, u32>>,
    /// The statuses that were read, as text and parsed.
    read: RefCell<BTreeMap<PathBuf, (String, Value)>>,
}

/// The time that a test waits for a state. SOCKEYE_TIMEOUT_FACTOR multiplies it on an emulated processor
/// (tests/kernels).
pub fn timeout() -> Duration {
    let factor = std::env::var("SOCKEYE_TIMEOUT_FACTOR").map_or(1, |factor| factor.parse().unwrap());
    Duration::from_secs(20) * factor
}

/// Returns whether the processor is emulated: no time that is measured there means anything.
pub fn is_emulated() -> bool {
    std::env::var_os("SOCKEYE_TIMEOUT_FACTOR").is_some()
}

impl Node {
    pub fn new(name: &str) -> Self {
        // The machine's own, if it has one, goes first: tests unmount theirs, and nothing may come to light below it.
        let script = "while umount /sys/fs/bpf 2>/dev/null; do :; done; mount -t bpf bpf /sys/fs/bpf && echo mounted \
                      && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        let made = tempfile::tempdir().unwrap();
        let mut node = Self::of_machine(name, made.path());
        node.holder = Some(holder);
        node._made = Some(made);
        node
    }

    /// Returns the machine itself as a node, with its own bpffs and a folder that outlives the test.
    pub fn of_machine(name: &str, folder: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests load into the kernel: run them as root");
        let root = Root::find(None).unwrap().path;
        sweep(&root);
        let cgroup = root.join(format!("sockeye-test-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Self {
            holder: None,
            folder: folder.to_owned(),
            _made: None,
            cgroup,
            agent: None,
            applied: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// Returns a command that runs a program in the node's mount namespace.
    pub fn inside(&self, program: &str) -> Command {
        let Some(holder) = &self.holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", holder.id())).arg("--").arg(program);
        command
    }

    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > timeout() {
                panic!("{what} did not come about; the agent's log:\n{}", self.log());
            }
            sleep(timeout() / 400);
        }
    }

    /// Runs a command in the node's mount namespace; it must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.inside(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{program} {arguments:?}: {}", text(&done));
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    pub fn make_cgroup(&self, name: &str) {
        fs::create_dir(self.cgroup.join(name)).unwrap();
    }
}

/// Returns whether tests run in their long form (`make chaos`).
pub fn is_long_run() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(mut holder) = self.holder.take() {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
        remove_cgroup(&self.cgroup);
    }
}

/// Removes what a killed run left behind: cgroups named after processes that have exited.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("sockeye-test-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            remove_cgroup(&entry.path());
        }
    }
}

fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
