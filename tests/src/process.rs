//! The agents' processes on the local cluster, and the resources that they use.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{NODES, run};

/// Returns the process IDs of the agents.
pub fn agents() -> Result<Vec<String>> {
    let found = run(Command::new("pgrep").args(["--full", "^/sockeye run --bpffs=/host/bpf "]))?;
    let pids: Vec<String> = found.lines().map(str::to_owned).collect();
    ensure!(pids.len() == NODES.len(), "agents' processes: {pids:?}");
    Ok(pids)
}

/// The resources that a process uses.
#[derive(Debug)]
pub struct Usage {
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// The number of open file descriptors.
    pub descriptors: usize,
    /// `VmRSS`
    pub resident_kb: u64,
}

impl Usage {
    /// Reads the usage of a process.
    pub fn of(pid: &str) -> Result<Self> {
        let mut cpu = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(Self {
            cpu: Duration::from_nanos(cpu),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            resident_kb: resident.context("no VmRSS")?.trim().parse()?,
        })
    }
}
