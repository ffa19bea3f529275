//! `Watches`: the objects of the API server that a node follows, in stores: active BpfRevisions, its Node, its
//! BpfNode, and the suspension of the whole cluster. Does IO: requests.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        reflector::{self, Store, store::WriterDropped},
        watcher,
    },
};
use sockeye_client::{Decode, Selection, watch};
use sockeye_crds::{BpfNode, BpfRevision, names::SUSPENSION, revision::RevisionState};

use super::context::{Tasks, WatchContext};

/// The watched objects.
pub struct Watches {
    /// The active BpfRevisions, whichever nodes they select. A retired one leaves the watch as if it were deleted.
    pub revisions: Store<DeserializeGuard<BpfRevision>>,
    /// The node's Node.
    pub node: Store<PartialObjectMeta<Node>>,
    /// The node's BpfNode.
    pub bpf_node: Store<DeserializeGuard<BpfNode>>,
    /// The ConfigMap that suspends everything.
    pub suspension: Store<ConfigMap>,
}

impl Watches {
    /// Starts the watches as tasks.
    pub(super) fn start(
        client: &Client,
        node_name: &str,
        namespace: &str,
        context: &WatchContext,
        tasks: &mut Tasks,
    ) -> Self {
        let named = |name| Selection { fields: Some(format!("metadata.name={name}")), ..Selection::default() };
        let state = RevisionState::Active.as_str();
        let active = Selection { fields: Some(format!("spec.state={state}")), ..Selection::default() };
        let mut starter = Starter { context, tasks };
        Self {
            revisions: starter.start(Api::all(client.clone()), active, version),
            // The kubelet's heartbeat changes nothing that is read of a Node.
            node: starter.start(Api::all(client.clone()), named(node_name), |node: &PartialObjectMeta<Node>| {
                (node.uid(), node.labels().clone())
            }),
            bpf_node: starter.start(Api::all(client.clone()), named(node_name), version),
            suspension: starter.start(Api::namespaced(client.clone(), namespace), named(SUSPENSION), version),
        }
    }

    /// Waits until every list is complete.
    ///
    /// # Errors
    /// Fails where a watch has ended.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.revisions.wait_until_ready().await?;
        self.node.wait_until_ready().await?;
        self.bpf_node.wait_until_ready().await?;
        self.suspension.wait_until_ready().await
    }
}

struct Starter<'a> {
    context: &'a WatchContext,
    tasks: &'a mut Tasks,
}

impl Starter<'_> {
    /// Runs one watch into a store, and notifies whenever what is `read` of an object changed.
    fn start<K, R>(&mut self, api: Api<K>, selection: Selection, read: impl Fn(&K) -> R + Send + 'static) -> Store<K>
    where
        K: Decode + Sync,
        R: PartialEq + Send + 'static,
    {
        let (store, mut writer) = reflector::store();
        let WatchContext { changed, backoff, readiness, metrics } = self.context.clone();
        let selection = Selection { metrics, ..selection };
        let mut last = None;
        let on_event = move |event: watcher::Event<K>| {
            let event = event.modify(|object| object.meta_mut().managed_fields = None);
            writer.apply_watcher_event(&event);
            let (what, now) = match &event {
                watcher::Event::Init | watcher::Event::InitApply(_) => return,
                watcher::Event::InitDone => ("list", None),
                watcher::Event::Apply(object) => ("object", Some(read(object))),
                watcher::Event::Delete(_) => ("deletion", None),
            };
            if now.is_none() || now != last {
                tracing::debug!(kind = %K::plural(&()), what, "watch event");
                changed.notify_one();
            }
            last = now;
        };
        self.tasks.spawn(async move {
            Ok(watch(api, &selection, &backoff, on_event, |rejected| readiness.watch_rejected(rejected)).await)
        });
        store
    }
}

/// Returns what changes with anything in an object.
fn version(object: &impl Resource) -> Option<String> {
    object.resource_version()
}
