//! `StatusWriter`: the node's status, written to its BpfNode. Does IO: requests.
//!
//! Guarantees:
//! - the status is written only when it differs from what the API server has, and always the newest one;
//! - the BpfNode is created where there is none, and again where it belongs to a Node that is gone;
//! - a write that fails is retried with the process's [`Backoff`];
//! - the API server spends at most half of the time on this node's writes: a busy one gets fewer of many nodes'
//!   statuses.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{DeserializeGuard, ObjectMeta, PartialObjectMeta},
    runtime::reflector::Store,
};
use serde_json::json;
use sockeye_client::{Backoff, Readiness, is_transient};
use sockeye_crds::{BpfNode, BpfNodeStatus, node::BpfNodeSpec};
use tokio::time::{Instant, sleep};

use super::throttle::Throttle;
use crate::control::{event::Report, newest::Newest};

/// After a write the writer rests as long as that took, up to this.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The field manager of BpfNodes.
const FIELD_MANAGER: &str = "sockeye-agent";

/// Writes one node's status.
pub struct StatusWriter {
    client: Client,
    node_name: String,
    node: Store<PartialObjectMeta<Node>>,
    bpf_node: Store<DeserializeGuard<BpfNode>>,
    throttle: Throttle,
    /// The newest status that the throttle let pass.
    newest: BpfNodeStatus,
    written: Option<Written>,
}

/// What the API server has, and the UID of the BpfNode that has it.
struct Written {
    uid: Option<String>,
    /// Absent where it can't be read, or where a write failed that may have been accepted nevertheless.
    status: Option<BpfNodeStatus>,
}

impl StatusWriter {
    /// Returns a writer for a node whose Node and BpfNode are in these stores.
    pub fn new(
        client: Client,
        node_name: String,
        node: Store<PartialObjectMeta<Node>>,
        bpf_node: Store<DeserializeGuard<BpfNode>>,
    ) -> Self {
        let (throttle, newest) = (Throttle::default(), BpfNodeStatus::default());
        Self { client, node_name, node, bpf_node, throttle, newest, written: None }
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
            if !self.take(*report) {
                continue;
            }
            let mut failing = None;
            let (start, written) = loop {
                let start = Instant::now();
                let error = match self.write().await {
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
            }
            failing.into_iter().for_each(|retry| backoff.answered(retry));
            sleep(start.elapsed().min(LONGEST_REST)).await;
        }
    }

    /// Takes a report as far as the throttle lets it pass; returns whether there is anything to write.
    fn take(&mut self, report: Report) -> bool {
        match self.throttle.pass(report, &self.newest, std::time::Instant::now()) {
            Some(status) => self.newest = status,
            // Somebody may have deleted what was written.
            None => return self.bpf_node.state().is_empty(),
        }
        true
    }

    /// Writes the newest status where it differs from what the API server has. Reports whether it has it then: while
    /// the Node object is missing there is nowhere to write it.
    async fn write(&mut self) -> Result<bool> {
        let status = self.newest.clone();
        let Some(node) = self.node.state().into_iter().next() else { return Ok(false) };
        let api = Api::<BpfNode>::all(self.client.clone());
        let existing = self.bpf_node.state().into_iter().next();
        let uid = match existing {
            Some(existing) if is_owned_by(&existing, &node) => {
                // The status of the agent before this one may still be true, if it can be read: that agent may have
                // been newer. Later the watch may lag behind our own writes.
                if self.written.is_none() {
                    let status = existing.0.as_ref().ok().and_then(|known| known.status.clone());
                    self.written = Some(Written { uid: existing.uid(), status });
                }
                existing.uid()
            }
            Some(stale) => {
                tracing::info!(node = self.node_name, "the BpfNode belongs to a Node that is gone: creating it anew");
                let this = Preconditions { uid: stale.uid(), ..Preconditions::default() };
                let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
                let gone = api.delete(&self.node_name, &params).await;
                ignore(gone, &[404, 409]).context("delete of the stale BpfNode")?;
                self.create(&api, &node).await?
            }
            // Created a moment ago, and not in the watch yet.
            None => match &self.written {
                Some(written)
                    if api.get_metadata_opt(&self.node_name).await?.is_some_and(|m| m.uid() == written.uid) =>
                {
                    written.uid.clone()
                }
                _ => self.create(&api, &node).await?,
            },
        };
        if self.written.as_ref().is_some_and(|written| written.uid == uid && written.status.as_ref() == Some(&status)) {
            return Ok(true);
        }
        self.written = Some(Written { uid, status: None });
        let written = write_status(&api, &self.node_name, &status).await.context("write of BpfNode.status")?;
        self.written = Some(Written { uid: written.uid(), status: Some(status) });
        Ok(true)
    }

    async fn create(&self, api: &Api<BpfNode>, node: &PartialObjectMeta<Node>) -> Result<Option<String>> {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node_name.clone(),
            uid: node.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let object = BpfNode {
            metadata: ObjectMeta {
                name: Some(self.node_name.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: BpfNodeSpec {},
            status: None,
        };
        match api.create(&PostParams::default(), &object).await {
            Ok(created) => Ok(created.uid()),
            // Another process was quicker, or the watch lags.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get_metadata(&self.node_name).await?.uid()),
            Err(error) => Err(error).context("creation of the BpfNode"),
        }
    }
}

/// Writes a BpfNode's status: the one write that an agent makes again and again. A JSON patch, because for server-side
/// apply the API server reads a status as YAML, several times, which is most of the cost for a node with many
/// BpfPrograms.
pub async fn write_status(api: &Api<BpfNode>, name: &str, status: &BpfNodeStatus) -> kube::Result<BpfNode> {
    let whole = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch = serde_json::from_value(whole).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Json::<()>(patch)).await
}

fn is_owned_by(bpf_node: &DeserializeGuard<BpfNode>, node: &PartialObjectMeta<Node>) -> bool {
    let uid = node.uid();
    bpf_node.owner_references().iter().any(|owner| owner.kind == "Node" && Some(&owner.uid) == uid.as_ref())
}

fn ignore<T>(answer: kube::Result<T>, codes: &[u16]) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map(drop),
    }
}
