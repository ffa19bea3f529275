//! The agent's own path, in this process: the controller that the running agent has, and the steps that it takes for a
//! change.

use std::{
    path::Path,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use sockeye_agent::{
    control::{
        Controller,
        controller::Settings,
        event::{Effect, Event},
    },
    model::{
        assignment::Assignment,
        pods::Pod,
        start::{Start, StartId},
    },
    node::{
        KernelNode,
        open::{NodePaths, Opened},
    },
    plan::quota::MapQuota,
};

use crate::programs::assignment;

/// An agent in this process.
pub struct Own {
    controller: Controller<KernelNode>,
    /// The assignment of the last pass. Kept, because to free it is no part of the next pass.
    assignment: Arc<Assignment>,
}

impl Own {
    /// Starts an agent; it finds what another has left.
    pub fn start(bpffs: &Path, cgroup: &Path) -> Result<Self> {
        let paths = NodePaths {
            bpffs: bpffs.to_owned(),
            host_bpffs: bpffs.to_owned(),
            cgroup_root: Some(cgroup.to_owned()),
            kubelet_root: "/".to_owned(),
            has_api: false,
        };
        let Opened { node, layout, facts } = paths.open()?;
        // As the chart has it.
        let quota = MapQuota { map_bytes_per_program: Some(512 << 20), map_bytes_per_node: Some(2 << 30) };
        let settings = Settings {
            layout,
            quota,
            facts,
            kernel_config: None,
            release_namespace: None,
            time_of_day: Timestamp::now,
        };
        Ok(Self { controller: Controller::new(node, settings, Instant::now()), assignment: Arc::default() })
    }

    /// Removes whatever an agent left on a bpffs.
    pub fn clear(bpffs: &Path, cgroup: &Path) -> Result<()> {
        let mut agent = Self::start(bpffs, cgroup)?;
        agent.reconcile(&assignment([]));
        agent.in_effect(0).map(drop)
    }

    /// Reconciles the node with an assignment; returns how long it took until all of it was tried. No status is made:
    /// passes run back to back, as the loop that they are compared with does.
    pub fn reconcile(&mut self, assignment: &Assignment) -> Duration {
        let assignment = Arc::new(assignment.clone());
        let event = Event::AssignmentChanged(Arc::clone(&assignment));
        let start = Instant::now();
        self.controller.step(start, [event]);
        while self.controller.is_working() {
            self.controller.step(Instant::now(), []);
        }
        let took = start.elapsed();
        self.assignment = assignment;
        took
    }

    /// Reconciles the node with an assignment while a container start, which needs no wait, is requested with every
    /// step. Returns the longest time until one of them was answered.
    pub fn longest_start(&mut self, assignment: &Assignment) -> Result<Duration> {
        let mut events = vec![Event::AssignmentChanged(Arc::new(assignment.clone()))];
        let (mut requests, mut longest) = (0, Duration::ZERO);
        loop {
            requests += 1;
            let pod = Pod { uid: format!("pod-{requests}"), namespace: "bench".to_owned(), ..Pod::default() };
            events.push(Event::StartRequested(StartId(requests), Start { pod, container: None }));
            let start = Instant::now();
            let result = self.controller.step(start, events.drain(..));
            longest = longest.max(start.elapsed());
            let answered = |effect: &Effect| matches!(effect, Effect::AnswerStart(id, Ok(())) if id.0 == requests);
            ensure!(result.effects.iter().any(answered), "start {requests} was not answered in its step");
            if !self.controller.is_working() {
                return Ok(longest);
            }
        }
    }

    /// Fails unless this many BpfPrograms are in effect, and no other is here; returns the kernel's IDs of their
    /// programs.
    pub fn in_effect(&self, count: usize) -> Result<Vec<i64>> {
        let status = self.controller.status();
        let (here, failed) = (status.programs.len(), status.counts.failed);
        ensure!(here == count && failed == 0, "{here} BpfPrograms are here, {failed} failed; {count} are desired");
        Ok(status.programs.into_iter().flat_map(|program| program.program_ids).collect())
    }
}

/// Waits while the kernel frees, in its own time, what was undone.
pub fn settle() {
    sleep(Duration::from_millis(500));
}
