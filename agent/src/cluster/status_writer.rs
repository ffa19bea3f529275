//! `StatusWriter`: the status of the node's BpfNode, written by an [`ObjectWriter`]. Does IO: requests.
//!
//! Guarantees:
//! - of several reports that wait, only the newest is written;
//! - a condition keeps the time of its transition over writes, and over restarts of the agent;
//! - a write that fails is retried with the process's [`Backoff`];
//! - the API server spends at most half of the time on this node's writes: a busy one gets fewer of many nodes'
//!   statuses;
//! - what somebody else changed is overwritten: at once where the watch shows it, within minutes where it does not;
//! - the detail is passed on once the BpfNode is written.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Result;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Client, Resource as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::Store,
};
use sockeye_client::{Backoff, Readiness, is_transient};
use sockeye_crds::{
    BpfNode, BpfNodeDetailStatus, BpfNodeStatus, Condition,
    condition::{self, ConditionState},
};
use sockeye_metrics::AgentMetrics;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use super::object_writer::write_status;
use super::{
    object_writer::{Existing, ObjectWriter},
    throttle::{Passed, Throttle},
};
use crate::control::{event::Report, newest::Newest, report::conditions::conditions};

/// After a write the writer rests as long as that took, up to this.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// The object's version is read again after this long. There is a report every five minutes at least.
const RESYNC: Duration = Duration::from_secs(290);

/// Writes one BpfNode's status.
pub struct StatusWriter {
    node: Store<PartialObjectMeta<Node>>,
    bpf_node: Store<DeserializeGuard<BpfNode>>,
    writer: ObjectWriter<BpfNode>,
    throttle: Throttle,
    /// The newest statuses that the throttle let pass, and the conditions that they stand for.
    newest: Passed,
    states: Vec<ConditionState>,
    /// The conditions of the last write; absent before the first.
    conditions: Option<Vec<Condition>>,
    details: watch::Sender<Option<BpfNodeDetailStatus>>,
    /// The time at which the object's version was known last.
    last_check: Instant,
    metrics: AgentMetrics,
}

impl StatusWriter {
    /// Returns a writer for a node whose Node and BpfNode are in these stores. It sends the details to write.
    pub fn new(
        client: Client,
        node_name: String,
        node: Store<PartialObjectMeta<Node>>,
        bpf_node: Store<DeserializeGuard<BpfNode>>,
        details: watch::Sender<Option<BpfNodeDetailStatus>>,
    ) -> Self {
        Self {
            node,
            bpf_node,
            writer: ObjectWriter::new(client, node_name),
            throttle: Throttle::default(),
            newest: Passed::default(),
            states: Vec::new(),
            conditions: None,
            details,
            last_check: Instant::now(),
            metrics: AgentMetrics::default(),
        }
    }

    /// Has it count reports.
    #[must_use]
    pub fn counting(self, metrics: AgentMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Writes every report that comes. Ready while none is rejected; an API server that is away rejects nothing.
    ///
    /// # Errors
    /// None: it never ends.
    pub async fn run(
        mut self,
        reports: Arc<Newest<Box<Report>>>,
        readiness: Readiness,
        backoff: Arc<Backoff>,
    ) -> Result<Infallible> {
        loop {
            let report = reports.take().await;
            self.take(*report);
            // There are no states as long as nothing has passed.
            if self.states.is_empty() {
                continue;
            }
            let mut failing = None;
            let (start, written) = loop {
                let start = Instant::now();
                let written = self.write().await;
                self.count(&written);
                let error = match written {
                    Ok(written) => break (start, written),
                    Err(error) => error,
                };
                if !error.downcast_ref().is_some_and(is_transient) {
                    readiness.set(false);
                }
                if failing.is_none() {
                    tracing::warn!("{error:#}; trying again");
                }
                failing = Some(backoff.wait().await);
                if let Some(report) = reports.try_take() {
                    self.take(*report);
                }
            };
            if written {
                readiness.set(true);
                self.details.send_replace(Some(self.newest.detail.clone()));
            }
            failing.into_iter().for_each(|retry| backoff.answered(retry));
            sleep(start.elapsed().min(LONGEST_REST)).await;
        }
    }

    /// Counts the outcome of a write. While there is nowhere to write, there is none.
    fn count(&self, written: &Result<bool>) {
        match written {
            Ok(true) => self.metrics.status_writes.inc(&["written"]),
            Ok(false) => {}
            Err(_) => self.metrics.status_writes.inc(&["failed"]),
        }
    }

    /// Records a report as far as the throttle lets it pass.
    fn take(&mut self, report: Report) {
        let older_layout = report.older_layout.clone();
        let of_earlier_agent = self.states.is_empty().then(|| self.stored());
        let last = of_earlier_agent.as_ref().unwrap_or(&self.newest);
        match self.throttle.pass(report, last, std::time::Instant::now()) {
            Some(passed) => {
                self.states = conditions(&passed.status, &passed.awaiting, older_layout.as_deref());
                self.newest = passed;
            }
            None => self.metrics.status_writes.inc(&["throttled"]),
        }
    }

    /// Returns what the BpfNode says of BpfPrograms, as an agent before this one wrote it.
    fn stored(&self) -> Passed {
        let stored = self.bpf_node.state().into_iter().next();
        let status = stored.as_ref().and_then(|stored| stored.0.as_ref().ok()?.status.as_ref());
        let programs = status.map(|status| status.programs.clone()).unwrap_or_default();
        Passed { status: BpfNodeStatus { programs, ..BpfNodeStatus::default() }, ..Passed::default() }
    }

    /// Writes the newest status where it differs from what the API server has: somebody else may have written or
    /// deleted that. Returns whether it has it then: while the Node object is missing there is nowhere to write it.
    async fn write(&mut self) -> Result<bool> {
        let Some(node) = self.node.state().into_iter().next() else { return Ok(false) };
        if self.last_check.elapsed() >= RESYNC {
            self.writer.check().await?;
            self.last_check = Instant::now();
        }
        let bpf_node = self.bpf_node.state().into_iter().next();
        let existing = bpf_node.as_ref().map(|bpf_node| Existing {
            metadata: bpf_node.meta(),
            status: bpf_node.0.as_ref().ok().and_then(|known| known.status.as_ref()),
        });
        let before = || existing.as_ref()?.status.map(|status| status.conditions.clone());
        let before = self.conditions.take().or_else(before).unwrap_or_default();
        // As the API server stores it.
        let now = Timestamp::from_second(Timestamp::now().as_second())?;
        let conditions = condition::merge(&before, self.states.clone(), None::<i64>, now);
        self.conditions = Some(conditions.clone());
        let status = BpfNodeStatus { conditions, ..self.newest.status.clone() };
        self.writer.write(&node, existing, &status).await?;
        Ok(true)
    }
}
