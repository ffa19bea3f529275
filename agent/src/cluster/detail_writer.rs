//! `DetailWriter`: the status of the node's BpfNodeDetail, written by an [`ObjectWriter`]. Does IO: requests.
//!
//! Guarantees:
//! - it is written at most every ten seconds, and the first change at once;
//! - its failures delay nothing else: they are retried by themselves, and make no agent unready;
//! - what somebody else changed or deleted is noticed within a few minutes: a watch would be sent all that is written.

use std::{convert::Infallible, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::{Client, core::PartialObjectMeta, runtime::reflector::Store};
use sockeye_crds::{BpfNodeDetail, BpfNodeDetailStatus};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::object_writer::{Existing, ObjectWriter};

/// The shortest time from one write to the next.
const INTERVAL: Duration = Duration::from_secs(10);
/// The object is read again after this long.
const RESYNC: Duration = Duration::from_secs(290);

/// Writes one BpfNodeDetail's status.
pub struct DetailWriter {
    node: Store<PartialObjectMeta<Node>>,
    writer: ObjectWriter<BpfNodeDetail>,
    /// The time at which it was read last.
    last_read: Option<Instant>,
}

impl DetailWriter {
    /// Returns a writer for a node whose Node is in this store.
    pub fn new(client: Client, node_name: String, node: Store<PartialObjectMeta<Node>>) -> Self {
        Self { node, writer: ObjectWriter::new(client, node_name), last_read: None }
    }

    /// Writes the newest detail that comes.
    ///
    /// # Errors
    /// Fails where no more can come.
    pub async fn run(mut self, mut details: watch::Receiver<Option<BpfNodeDetailStatus>>) -> Result<Infallible> {
        let mut is_failing = false;
        loop {
            if !is_failing && let Ok(changed) = timeout(RESYNC, details.changed()).await {
                changed?;
            }
            let Some(detail) = details.borrow_and_update().clone() else { continue };
            let written = self.write(&detail).await;
            match &written {
                Err(error) if !is_failing => tracing::warn!("{error:#}; trying again"),
                Ok(_) if is_failing => tracing::info!("the BpfNodeDetail is written again"),
                _ => {}
            }
            is_failing = written.is_err();
            if written.unwrap_or(true) {
                sleep(INTERVAL).await;
            }
        }
    }

    /// Writes a detail where it differs from what the API server has; reports whether it had to.
    async fn write(&mut self, detail: &BpfNodeDetailStatus) -> Result<bool> {
        let Some(node) = self.node.state().into_iter().next() else { return Ok(false) };
        let is_due = self.last_read.is_none_or(|last| last.elapsed() >= RESYNC);
        if !is_due && self.writer.has(detail, &node) {
            return Ok(false);
        }
        // After a failure it is read again.
        let last_read = if is_due { Instant::now() } else { self.last_read.take().unwrap_or_else(Instant::now) };
        self.last_read = None;
        match self.writer.metadata().cloned() {
            Some(known) if !is_due => {
                self.writer.write(&node, Some(Existing { metadata: &known, status: None }), detail).await?;
            }
            Some(_) => {
                let found = self.writer.get_metadata().await?;
                let existing = found.as_ref().map(|found| Existing { metadata: &found.metadata, status: None });
                self.writer.write(&node, existing, detail).await?;
            }
            // The detail of the agent before this one may still be true.
            None => {
                let found = self.writer.get().await?;
                let status = found.as_ref().and_then(|found| found.status.as_ref());
                let existing = found.as_ref().map(|found| Existing { metadata: &found.metadata, status });
                self.writer.write(&node, existing, detail).await?;
            }
        }
        self.last_read = Some(last_read);
        Ok(true)
    }
}
