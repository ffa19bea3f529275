//! The agent as a process of its own, without a cluster: the image's binary, watching a folder of manifests.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{sleep, spawn},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use sockeye_crds::{BpfNode, BpfNodeStatus};
use sockeye_tests::operator::terminate;

/// The agent's process; it is killed when this is dropped.
pub struct Process {
    child: Child,
    /// The lines of its tables. All are read, since an agent whose pipe is full waits.
    output: Receiver<String>,
    manifests: PathBuf,
}

/// Resident memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`
    pub resident: f64,
    /// `Pss`: pages shared with others are shared out.
    pub proportional: f64,
    /// `VmHWM`: the most that was ever resident.
    pub peak: f64,
}

impl Process {
    /// Starts the agent on a folder of manifests, and with a list of the node's pods if one is named.
    pub fn start(binary: &Path, manifests: &Path, bpffs: &Path, cgroup: &Path, pods: Option<&Path>) -> Result<Self> {
        let pods = pods.map(|list| ["--pods".as_ref(), list.as_os_str()]);
        let mut child = Command::new(binary)
            .args(["standalone".as_ref(), "--manifests".as_ref(), manifests.as_os_str()])
            .args(["--bpffs".as_ref(), bpffs.as_os_str(), "--cgroup-root".as_ref(), cgroup.as_os_str()])
            .args(pods.into_iter().flatten())
            .stdout(Stdio::piped())
            .stderr(File::create(manifests.join("agent.log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let Some(output) = child.stdout.take() else { bail!("no pipe") };
        Ok(Self { child, output: lines(output), manifests: manifests.to_owned() })
    }

    /// Waits for the agent's report, which ends with the table of so many BpfPrograms, and fails unless all are in
    /// effect.
    pub fn reported(&self, count: usize) -> Result<BpfNodeStatus> {
        for _ in 0..=count {
            self.output.recv().with_context(|| format!("the agent ended: {}", self.log()))?;
        }
        let report = fs::read_to_string(self.manifests.join("node.status.yaml"))?;
        let node: BpfNode = serde_saphyr::from_str(&report)?;
        let status = node.status.unwrap_or_default();
        let counts = &status.counts;
        let good = counts.failed == 0 && usize::try_from(counts.programs) == Ok(count);
        ensure!(good, "{counts:?}, not {count} BpfPrograms in effect: {}", self.log());
        Ok(status)
    }

    /// Returns the memory that the agent uses now.
    pub fn memory(&self) -> Result<Memory> {
        memory(self.child.id())
    }

    /// Returns the processor time of all threads. The ticks in /proc/PID/stat are too coarse for a start.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let ran = text.split_whitespace().next().context("an empty schedstat")?;
            nanoseconds += ran.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Waits until the agent is idle: until it used no processor time for 20 ms.
    pub fn rests(&self) -> Result<()> {
        let mut before = self.cpu()?;
        for _ in 0..500 {
            sleep(Duration::from_millis(20));
            let now = self.cpu()?;
            if now == before {
                return Ok(());
            }
            before = now;
        }
        bail!("the agent is always busy: {}", self.log())
    }

    /// Kills the agent, as the kernel does when memory is short; nothing is detached.
    pub fn kill(self) {
        drop(self);
    }

    /// Ends the agent with SIGTERM, as a kubelet does; nothing is detached.
    pub fn stop(mut self) -> Result<()> {
        terminate(&mut self.child).with_context(|| self.log())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.manifests.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a process's lines until it ends.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    spawn(move || BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    receiver
}

/// Returns the memory that a process uses now.
pub fn memory(pid: u32) -> Result<Memory> {
    let field = |file: &str, key: &str| {
        let path = format!("/proc/{pid}/{file}");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{path}: {key}"))?;
        anyhow::Ok(kib / 1024.0)
    };
    Ok(Memory {
        resident: field("status", "VmRSS:")?,
        proportional: field("smaps_rollup", "Pss:")?,
        peak: field("status", "VmHWM:")?,
    })
}
