//! Tell: the node's status to the Kubernetes API, as its BpfNode. Does IO: requests. A task of its own, so that no pass waits
//! for an API server that is away, busy or silent.
//!
//! Guarantees:
//! - it is written only when it says something else than the API has, and always the newest; what it overtook never is;
//! - the BpfNode is made where there is none, and again where it belongs to a Node that is gone;
//! - what the API server does not take is told again when its [`Backoff`] says so;
//! - no more than half of the time is an API server busy with writes of this one: a busy one gets fewer of many nodes' reports.

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
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// After a write follows a rest as long as that took, up to this.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Who writes BpfNodes.
const FIELD_MANAGER: &str = "sockeye-agent";

/// Tells what one node's status is.
pub struct Teller {
    client: Client,
    node_name: String,
    node: Store<PartialObjectMeta<Node>>,
    bpf_node: Store<DeserializeGuard<BpfNode>>,
    written: Option<Written>,
}

/// What the API has of us, by the UID of the BpfNode that has it.
struct Written {
    uid: Option<String>,
    /// Absent where it can't be read, or where a write failed, and may have been taken nevertheless.
    status: Option<BpfNodeStatus>,
}

impl Teller {
    /// The one of that node, whose Node and BpfNode the watches keep.
    pub const fn new(
        client: Client,
        node_name: String,
        node: Store<PartialObjectMeta<Node>>,
        bpf_node: Store<DeserializeGuard<BpfNode>>,
    ) -> Self {
        Self { client, node_name, node, bpf_node, written: None }
    }

    /// Tells every status that comes. Ready while none is refused; an API server that is away refuses nothing.
    pub async fn run(
        mut self,
        mut statuses: watch::Receiver<BpfNodeStatus>,
        ready: Readiness,
        backoff: Arc<Backoff>,
    ) -> Result<Infallible> {
        let mut failing = None;
        statuses.changed().await?;
        loop {
            let status = statuses.borrow_and_update().clone();
            let start = Instant::now();
            match self.tell(status).await {
                Ok(()) => {
                    ready.set(true);
                    if let Some(retry) = failing.take() {
                        backoff.answered(retry);
                    }
                    sleep(start.elapsed().min(LONGEST_REST)).await;
                    statuses.changed().await?;
                }
                Err(error) => {
                    if !error.downcast_ref().is_some_and(is_transient) {
                        ready.set(false);
                    }
                    if failing.is_none() {
                        tracing::warn!("{error:#}; trying again");
                    }
                    failing = Some(backoff.wait().await);
                }
            }
        }
    }

    /// Writes the status where it says something else than what the API has.
    async fn tell(&mut self, status: BpfNodeStatus) -> Result<()> {
        let Some(node) = self.node.state().into_iter().next() else { return Ok(()) };
        let api = Api::<BpfNode>::all(self.client.clone());
        let existing = self.bpf_node.state().into_iter().next();
        let uid = match existing {
            Some(existing) if owned_by(&existing, &node) => {
                // What the agent before us wrote may still be true, if it can be read: it may have been a newer one. Later the
                // watch may lag behind our own writes.
                if self.written.is_none() {
                    let status = existing.0.as_ref().ok().and_then(|known| known.status.clone());
                    self.written = Some(Written { uid: existing.uid(), status });
                }
                existing.uid()
            }
            Some(stale) => {
                tracing::info!(node = self.node_name, "the BpfNode belongs to a Node that is gone: making it anew");
                let this = Preconditions { uid: stale.uid(), ..Preconditions::default() };
                let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
                let gone = api.delete(&self.node_name, &params).await;
                ignore(gone, &[404, 409]).context("delete of the stale BpfNode")?;
                self.create(&api, &node).await?
            }
            // Made by us a moment ago, and not yet seen by the watch.
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
            return Ok(());
        }
        self.written = Some(Written { uid, status: None });
        let written = write_status(&api, &self.node_name, &status).await.context("write of BpfNode.status")?;
        self.written = Some(Written { uid: written.uid(), status: Some(status) });
        Ok(())
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
            // Another process of ours was quicker, or the watch lags.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get_metadata(&self.node_name).await?.uid()),
            Err(error) => Err(error).context("creation of the BpfNode"),
        }
    }
}

/// The one write that an agent makes again and again. A JSON patch: for server-side apply the API server reads a status as
/// YAML, several times, which for a node with many BpfPrograms is most of what the write costs it.
pub async fn write_status(api: &Api<BpfNode>, name: &str, status: &BpfNodeStatus) -> kube::Result<BpfNode> {
    let whole = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch = serde_json::from_value(whole).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Json::<()>(patch)).await
}

fn owned_by(bpf_node: &DeserializeGuard<BpfNode>, node: &PartialObjectMeta<Node>) -> bool {
    let uid = node.uid();
    bpf_node.owner_references().iter().any(|owner| owner.kind == "Node" && Some(&owner.uid) == uid.as_ref())
}

fn ignore<T>(answer: kube::Result<T>, codes: &[u16]) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map(drop),
    }
}
