//! The agent's own path, in this process: the very calls that the running agent makes for a change, on the same runtime.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sockeye_agent::{
    agent::{Agent, Bytes, Places, Wants},
    host::Kernel,
    policy::Policy,
};
use tokio::runtime::Runtime;

use crate::programs::{Nothing, wants};

/// An agent in this process.
pub struct Own {
    runtime: Runtime,
    agent: Agent<Kernel>,
}

impl Own {
    /// Starts one; it finds what another has left.
    pub fn start(bpffs: &Path, cgroup: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let bpffs = bpffs.to_owned();
        let kubelet_root = "/".to_owned();
        // As the chart has it.
        let policy = Policy { map_bytes_per_program: Some(512 << 20), map_bytes_per_node: Some(2 << 30) };
        let places = Places {
            host_bpffs: bpffs.clone(),
            bpffs,
            cgroup_root: Some(cgroup.to_owned()),
            kubelet_root,
            has_api: false,
        };
        Ok(Self { runtime, agent: Agent::start(places, policy)? })
    }

    /// Removes whatever an agent left on a bpffs.
    pub fn clear(bpffs: &Path, cgroup: &Path) -> Result<()> {
        let mut agent = Self::start(bpffs, cgroup)?;
        agent.pass(&wants([]), &Nothing, true);
        agent.in_effect(0).map(drop)
    }

    /// One pass; how long it took.
    pub fn pass(&mut self, wants: &Wants, bytes: &impl Bytes, sweep: bool) -> Duration {
        let start = Instant::now();
        self.runtime.block_on(self.agent.pass(wants, bytes, sweep));
        start.elapsed()
    }

    /// Fails unless so many BpfPrograms are in effect, and no other is here; gives the kernel's IDs of their programs.
    pub fn in_effect(&self, count: usize) -> Result<Vec<i64>> {
        let report = self.agent.report();
        let (here, failed) = (report.programs.len(), report.counts.failed);
        ensure!(here == count && failed == 0, "{here} BpfPrograms are here, {failed} failed; {count} are wanted");
        Ok(report.programs.into_iter().flat_map(|program| program.program_ids).collect())
    }
}

/// The kernel frees what is undone in its own time.
pub fn settle() {
    sleep(Duration::from_millis(500));
}
