//! What the Kubernetes API tells this node: live BpfRevisions, its own Node, its own BpfNode, the switch that suspends all.
//!
//! Guarantees:
//! - nothing is told before every list is complete; a watch that fails, a 403 or a missing CRD leaves what was told before;
//! - a revision that this agent can't read is told as such, so that what runs stays; a BpfNode that it can't read is its own to
//!   write anew;
//! - bytes are fetched only when asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        reflector::{self, Store},
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use sockeye_client::{Backoff, Readiness, Selection, watch};
use sockeye_crds::{
    BpfNode, BpfNodeStatus, BpfRevision,
    names::{LABEL_LIVE, LABEL_PROGRAM, SUSPENSION, SUSPENSION_REASON},
    revision,
};
use tokio::{
    sync::{Notify, watch as latest},
    task::JoinSet,
    time::timeout,
};

use crate::{
    agent::{Bytes, Missing, Wants},
    fetch::{objects::Objects, pods::PodWatch},
    report::Interim,
    tell::Teller,
};

/// A probe that takes longer has failed.
const PROBE_LATE: Duration = Duration::from_secs(2);

/// The API server, as this node's agent sees it.
pub struct Cluster {
    client: Client,
    config: Option<Config>,
    namespace: String,
    revisions: Store<DeserializeGuard<BpfRevision>>,
    /// Those that were told last, by BpfProgram: told again, they are the same values.
    run: BTreeMap<String, Arc<BpfRevision>>,
    node: Store<PartialObjectMeta<Node>>,
    bpf_node: Store<DeserializeGuard<BpfNode>>,
    suspension: Store<ConfigMap>,
    changed: Arc<Notify>,
    objects: Arc<Objects>,
    pods: PodWatch,
    interim: Interim,
    statuses: latest::Sender<BpfNodeStatus>,
}

impl Cluster {
    /// Starts the watches, those who fetch bytes and tell the node's status, as tasks of `tasks`; each runs for as long as the
    /// process.
    pub fn watch(
        client: Client,
        config: Option<Config>,
        node_name: &str,
        namespace: &str,
        ready: Readiness,
        tasks: &mut JoinSet<Result<Infallible>>,
    ) -> Self {
        let (changed, backoff) = (Arc::new(Notify::new()), Arc::new(Backoff::default()));
        let named = |name| Selection { fields: Some(format!("metadata.name={name}")), ..Selection::default() };
        let live = Selection { labels: Some(format!("{LABEL_LIVE}=true")), ..Selection::default() };
        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let mut start = Start { changed: &changed, backoff: &backoff, ready: &ready, tasks };
        let revisions = start.follow(Api::all(client.clone()), live, version);
        // Its kubelet's heartbeat changes nothing that is read of it.
        let read = |node: &PartialObjectMeta<Node>| (node.uid(), node.labels().clone());
        let node = start.follow(Api::all(client.clone()), named(node_name), read);
        let bpf_node = start.follow(Api::all(client.clone()), named(node_name), version);
        let suspension = start.follow(config_maps.clone(), named(SUSPENSION), version);

        let pods = PodWatch::start(&client, node_name, &changed, &backoff, &ready, tasks);

        let objects = Arc::new(Objects::default());
        let (fetched, with) = (Arc::clone(&objects), Arc::clone(&backoff));
        tasks.spawn(async move { Ok(fetched.fetch(config_maps, &with).await) });
        let (statuses, told) = latest::channel(BpfNodeStatus::default());
        let teller = Teller::new(client.clone(), node_name.to_owned(), node.clone(), bpf_node.clone());
        tasks.spawn(teller.run(told, ready, backoff));
        let namespace = namespace.to_owned();
        Self {
            client,
            config,
            namespace,
            revisions,
            run: BTreeMap::new(),
            node,
            bpf_node,
            suspension,
            changed,
            objects,
            pods,
            interim: Interim::default(),
            statuses,
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
    pub fn wants(&mut self) -> Option<Wants> {
        let node = self.node.state().into_iter().next()?;
        let revisions = self.revisions.state();
        let (mut unreadable, mut complete) = (BTreeMap::new(), true);
        let mut readable = Vec::new();
        for guard in &revisions {
            match &guard.0 {
                Ok(revision) => readable.push(revision),
                Err(error) => {
                    let program = error.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_PROGRAM));
                    let name = error.metadata.name.as_deref().unwrap_or_default();
                    let why = format!("BpfRevision {name} can't be read: {}", error.error);
                    match program {
                        Some(program) => drop(unreadable.insert(program.clone(), why)),
                        // Whose it is can't be told, so that nothing may go.
                        None => complete = false,
                    }
                }
            }
        }
        let run = revision::desired(readable, node.labels());
        let same = |known: &BpfRevision, revision: &BpfRevision| {
            (&known.metadata.uid, &known.metadata.resource_version)
                == (&revision.metadata.uid, &revision.metadata.resource_version)
        };
        let told = |(name, revision): (&str, &BpfRevision)| match self.run.get(name) {
            Some(known) if same(known, revision) => (name.to_owned(), Arc::clone(known)),
            _ => (name.to_owned(), Arc::new(revision.clone())),
        };
        self.run = run.into_iter().map(told).collect();
        let (run, suspended) = (self.run.clone(), self.suspended());
        let mut wants = Wants { run, keep: unreadable, complete, suspended, ..Wants::default() };
        self.pods.need(wants.needs());
        (wants.pods, wants.namespaces) = (self.pods.pods(), self.pods.namespaces());
        Some(wants)
    }

    /// Why nothing at all is to be attached, where someone has thrown the switch; whatever else is known.
    pub fn suspended(&self) -> Option<String> {
        let switch = self.suspension.state().into_iter().next()?;
        let reason = switch.data.as_ref().and_then(|data| data.get(SUSPENSION_REASON));
        let reason = reason.map_or("no reason given", |reason| reason.trim());
        Some(format!("ConfigMap {}/{SUSPENSION}: {reason}", self.namespace))
    }

    /// Whether the API server answers, whatever it says, on a connection of its own: one that is open may outlive what lets no
    /// new one through.
    pub async fn is_reachable(&self) -> bool {
        let asked = async {
            match self.config.clone() {
                Some(config) => sockeye_client::client(config)?.apiserver_version().await,
                None => self.client.apiserver_version().await,
            }
        };
        matches!(timeout(PROBE_LATE, asked).await, Ok(Ok(_) | Err(kube::Error::Api(_))))
    }

    /// Tells the node's status, once the API server takes it; while bytes are awaited, less of it.
    pub fn tell(&mut self, status: BpfNodeStatus, awaiting: &BTreeSet<&str>) {
        let status = self.interim.hold(status, &self.statuses.borrow(), awaiting, Instant::now());
        match status {
            Some(status) => drop(self.statuses.send_replace(status)),
            // Said again it is looked whether the API still has it.
            None if self.bpf_node.state().is_empty() => self.statuses.send_modify(|_| {}),
            None => {}
        }
    }
}

impl Bytes for Cluster {
    async fn get(&self, digest: &str) -> Result<Vec<u8>, Missing> {
        self.objects.get(digest).await
    }

    fn is_halted(&self, wants: &Wants) -> bool {
        wants.suspended.is_none() && self.suspended().is_some()
    }
}

/// What every watch is started with.
struct Start<'a> {
    changed: &'a Arc<Notify>,
    backoff: &'a Arc<Backoff>,
    ready: &'a Readiness,
    tasks: &'a mut JoinSet<Result<Infallible>>,
}

impl Start<'_> {
    /// Runs one watch into a store, and says whenever what is `read` of an object changed.
    fn follow<K, R>(&mut self, api: Api<K>, selection: Selection, read: impl Fn(&K) -> R + Send + 'static) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        R: PartialEq + Send + 'static,
    {
        let (store, mut writer) = reflector::store();
        let (changed, backoff, ready) = (Arc::clone(self.changed), Arc::clone(self.backoff), self.ready.clone());
        let mut last = None;
        let see = move |event: Event<K>| {
            let event = event.modify(|object| object.meta_mut().managed_fields = None);
            writer.apply_watcher_event(&event);
            let (told, now) = match &event {
                Event::Init | Event::InitApply(_) => return,
                Event::InitDone => ("list", None),
                Event::Apply(object) => ("object", Some(read(object))),
                Event::Delete(_) => ("deletion", None),
            };
            if now.is_none() || now != last {
                tracing::debug!(what = %K::plural(&()), told, "a watch told something");
                changed.notify_one();
            }
            last = now;
        };
        self.tasks
            .spawn(async move { Ok(watch(api, &selection, &backoff, see, |more| ready.watch_rejected(more)).await) });
        store
    }
}

/// All of an object.
fn version(object: &impl Resource) -> Option<String> {
    object.resource_version()
}
