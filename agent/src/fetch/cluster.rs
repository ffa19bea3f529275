//! What the Kubernetes API tells this node: live BpfRevisions, its own Node, its own BpfNode, the switch that suspends all;
//! and what it tells the API: its BpfNode.
//!
//! Guarantees:
//! - nothing is told before every list is complete; a watch that fails, a 403 or a missing CRD leaves what was told before;
//! - a revision that this agent can't read is told as such, so that what runs stays;
//! - bytes are fetched only when asked for, and the BpfNode is written only when it says something else than before.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{DeserializeGuard, ObjectMeta, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sockeye_crds::{
    BpfNode, BpfNodeStatus, BpfRevision,
    names::{LABEL_LIVE, LABEL_PROGRAM, OBJECT_KEY, SUSPENSION, SUSPENSION_REASON, object_config_map},
    node::BpfNodeSpec,
    revision,
};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::agent::{Bytes, Wants};

/// Who writes BpfNodes.
const FIELD_MANAGER: &str = "sockeye-agent";

/// A probe that takes longer has failed.
const PROBE_LATE: Duration = Duration::from_secs(2);

/// The API server, as this node's agent sees it.
pub struct Cluster {
    client: Client,
    namespace: String,
    node_name: String,
    revisions: Store<DeserializeGuard<BpfRevision>>,
    node: Store<PartialObjectMeta<Node>>,
    bpf_node: Store<BpfNode>,
    suspension: Store<ConfigMap>,
    config: Option<Config>,
    changed: Arc<Notify>,
    written: Option<Written>,
}

/// What the API has of us, by the UID of the BpfNode that has it.
struct Written {
    uid: Option<String>,
    status: BpfNodeStatus,
}

impl Cluster {
    /// Starts the watches as tasks of `tasks`; each runs for as long as the process.
    pub fn watch(
        client: Client,
        config: Option<Config>,
        node_name: &str,
        namespace: &str,
        tasks: &mut JoinSet<Result<()>>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let own = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
        let live = watcher::Config::default().labels(&format!("{LABEL_LIVE}=true"));

        let revisions = Api::<DeserializeGuard<BpfRevision>>::all(client.clone());
        let revisions = follow("BpfRevisions", watcher(revisions, live), version, &changed, tasks);
        let node = watcher(Api::<PartialObjectMeta<Node>>::all(client.clone()), own.clone());
        // Its kubelet's heartbeat changes nothing that is read of it.
        let read = |node: &PartialObjectMeta<Node>| (node.uid(), node.labels().clone());
        let node = follow("the Node", node, read, &changed, tasks);
        let bpf_node = watcher(Api::<BpfNode>::all(client.clone()), own);
        let bpf_node = follow("the BpfNode", bpf_node, version, &changed, tasks);
        let switch = watcher::Config::default().fields(&format!("metadata.name={SUSPENSION}"));
        let suspension = watcher(Api::<ConfigMap>::namespaced(client.clone(), namespace), switch);
        let suspension = follow("the switch", suspension, version, &changed, tasks);
        Self {
            client,
            config,
            namespace: namespace.to_owned(),
            node_name: node_name.to_owned(),
            revisions,
            node,
            bpf_node,
            suspension,
            changed,
            written: None,
        }
    }

    /// Waits until every list is complete.
    pub async fn ready(&self) -> Result<()> {
        self.revisions.wait_until_ready().await?;
        self.node.wait_until_ready().await?;
        self.bpf_node.wait_until_ready().await?;
        self.suspension.wait_until_ready().await?;
        Ok(())
    }

    /// Waits until something changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What this node is to run; nothing is told while its Node is not there, for then nothing is known of its labels.
    pub fn wants(&self) -> Option<Wants> {
        let node = self.node.state().into_iter().next()?;
        let revisions = self.revisions.state();
        let mut unreadable = BTreeMap::new();
        let mut readable = Vec::new();
        for guard in &revisions {
            match &guard.0 {
                Ok(revision) => readable.push(revision),
                Err(error) => {
                    let program = error.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_PROGRAM));
                    let name = error.metadata.name.as_deref().unwrap_or_default();
                    program.map(|p| {
                        unreadable.insert(p.clone(), format!("BpfRevision {name} can't be read: {}", error.error))
                    });
                }
            }
        }
        let run = revision::wanted(readable, node.labels());
        let run = run.into_iter().map(|(name, revision)| (name.to_owned(), Arc::new(revision.clone()))).collect();
        Some(Wants { run, keep: unreadable, complete: true, suspended: self.suspended(), pods: None, namespaces: None })
    }

    /// Why nothing at all is to be attached, where someone has thrown the switch.
    fn suspended(&self) -> Option<String> {
        let switch = self.suspension.state().into_iter().next()?;
        let reason = switch.data.as_ref().and_then(|data| data.get(SUSPENSION_REASON));
        let reason = reason.map_or("no reason given", |reason| reason.trim());
        Some(format!("ConfigMap {}/{SUSPENSION}: {reason}", self.namespace))
    }

    /// Whether the API server answers on a connection of its own: one that is open may outlive what lets no new one through.
    pub async fn is_reachable(&self) -> bool {
        let asked = async {
            match self.config.clone() {
                Some(config) => Client::try_from(config)?.apiserver_version().await,
                None => self.client.apiserver_version().await,
            }
        };
        matches!(timeout(PROBE_LATE, asked).await, Ok(Ok(_)))
    }

    /// Writes the status where it says something else than what the API has. Makes the BpfNode where there is none, and
    /// again where it belongs to a Node that is gone.
    pub async fn write(&mut self, status: BpfNodeStatus) -> Result<()> {
        let Some(node) = self.node.state().into_iter().next() else { return Ok(()) };
        let api = Api::<BpfNode>::all(self.client.clone());
        let existing = self.bpf_node.state().into_iter().next();
        let uid = match existing {
            Some(existing) if owned_by(&existing, &node) => {
                // What the agent before us wrote may still be true. Later the watch may lag behind our own writes.
                if self.written.is_none() {
                    self.written = existing.status.clone().map(|status| Written { uid: existing.uid(), status });
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
        if self.written.as_ref().is_some_and(|written| written.uid == uid && written.status == status) {
            return Ok(());
        }
        let written = write_status(&api, &self.node_name, &status).await.context("write of BpfNode.status")?;
        self.written = Some(Written { uid: written.uid(), status });
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

impl Bytes for Cluster {
    async fn get(&self, digest: &str) -> Result<Vec<u8>, String> {
        let name = object_config_map(digest);
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let map = api.get(&name).await.map_err(|e| format!("ConfigMap {}/{name}: {e}", self.namespace))?;
        let bytes = map.binary_data.and_then(|mut data| data.remove(OBJECT_KEY)).map(|bytes| bytes.0);
        bytes.ok_or_else(|| format!("ConfigMap {}/{name} has no binaryData.{OBJECT_KEY}", self.namespace))
    }
}

/// All of an object.
fn version(object: &impl Resource) -> Option<String> {
    object.resource_version()
}

/// Runs one watch into a store, and says whenever what is `read` of an object changed. Errors are retried with backoff, and
/// leave the store as it is.
fn follow<K, R>(
    what: &'static str,
    stream: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    read: impl Fn(&K) -> R + Send + 'static,
    changed: &Arc<Notify>,
    tasks: &mut JoinSet<Result<()>>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    R: PartialEq + Send + 'static,
{
    let (store, writer) = reflector::store();
    let changed = Arc::clone(changed);
    let stream =
        stream.modify(|object: &mut K| object.meta_mut().managed_fields = None).default_backoff().reflect(writer);
    tasks.spawn(async move {
        let mut stream = pin!(stream);
        let mut last = None;
        loop {
            let now = match stream.try_next().await {
                Ok(Some(watcher::Event::Init | watcher::Event::InitApply(_))) => continue,
                Ok(Some(watcher::Event::Apply(object))) => Some(read(&object)),
                Ok(Some(watcher::Event::Delete(_) | watcher::Event::InitDone)) => None,
                Ok(None) => bail!("the watch of {what} ended"),
                Err(error) => {
                    tracing::warn!(%error, "the watch of {what} failed; keeping what it told before");
                    continue;
                }
            };
            if now.is_none() || now != last {
                tracing::debug!(what, "a watch told something");
                changed.notify_one();
            }
            last = now;
        }
    });
    store
}

fn owned_by(bpf_node: &BpfNode, node: &PartialObjectMeta<Node>) -> bool {
    let uid = node.uid();
    bpf_node.owner_references().iter().any(|owner| owner.kind == "Node" && Some(&owner.uid) == uid.as_ref())
}

fn ignore<T>(answer: kube::Result<T>, codes: &[u16]) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map(drop),
    }
}
