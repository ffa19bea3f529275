//! What the Kubernetes API tells of pods: this node's own, and namespaces' labels; each is asked for from when anything needs
//! it. Does IO: requests.
//!
//! Of a pod only what targets are worked out with is kept: nothing else that changes in it is news.

use std::{collections::BTreeMap, convert::Infallible, fmt::Debug, mem, sync::Arc};

use anyhow::Result;
use k8s_openapi::api::core::v1::{self as core, Namespace};
use kube::{Api, Client, Resource, ResourceExt as _, core::PartialObjectMeta, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use sockeye_client::{Backoff, Readiness, Selection, watch};
use tokio::{
    sync::{Notify, watch as latest},
    task::JoinSet,
};

use crate::pods::{Labels, Needs, Pod};

/// Objects of one kind, reduced to what is read of them; nothing before a list was complete.
type Told<V> = Option<Arc<BTreeMap<String, V>>>;

/// Pods and namespaces, as they were told last.
pub struct PodWatch {
    needs: latest::Sender<Needs>,
    pods: latest::Receiver<Told<Pod>>,
    namespaces: latest::Receiver<Told<Labels>>,
}

impl PodWatch {
    /// Starts the watches as tasks of `tasks`; each runs for as long as the process.
    pub fn start(
        client: &Client,
        node_name: &str,
        changed: &Arc<Notify>,
        backoff: &Arc<Backoff>,
        ready: &Readiness,
        tasks: &mut JoinSet<Result<Infallible>>,
    ) -> Self {
        let (needs, needed) = latest::channel(Needs::default());
        let mut start = Start { needed, changed, backoff, ready, tasks };
        let of_node = Selection { fields: Some(format!("spec.nodeName={node_name}")), ..Selection::default() };
        let pod = |pod: &core::Pod| (pod.uid().unwrap_or_default(), Pod::read(pod));
        let pods = start.follow(Api::all(client.clone()), of_node, |needs| needs.pods, pod);
        let namespace = |namespace: &PartialObjectMeta<Namespace>| (namespace.name_any(), namespace.labels().clone());
        let namespaces =
            start.follow(Api::all(client.clone()), Selection::default(), |needs| needs.namespaces, namespace);
        Self { needs, pods, namespaces }
    }

    /// Says what is needed. What was needed once is watched from then on.
    pub fn need(&self, needs: Needs) {
        self.needs.send_if_modified(|all| {
            let more = all.and(needs);
            mem::replace(all, more) != more
        });
    }

    /// The node's pods.
    pub fn pods(&self) -> Option<Arc<Vec<Pod>>> {
        self.pods.borrow().as_ref().map(|pods| Arc::new(pods.values().cloned().collect()))
    }

    /// Namespaces' labels, by name.
    pub fn namespaces(&self) -> Told<Labels> {
        self.namespaces.borrow().clone()
    }
}

/// What every watch is started with.
struct Start<'a> {
    needed: latest::Receiver<Needs>,
    changed: &'a Arc<Notify>,
    backoff: &'a Arc<Backoff>,
    ready: &'a Readiness,
    tasks: &'a mut JoinSet<Result<Infallible>>,
}

impl Start<'_> {
    /// Runs one watch from when it is needed, and says whenever what is `read` of any object, by its key, changed.
    fn follow<K, V>(
        &mut self,
        api: Api<K>,
        selection: Selection,
        is_needed: fn(&Needs) -> bool,
        read: impl Fn(&K) -> (String, V) + Send + 'static,
    ) -> latest::Receiver<Told<V>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let (telling, told) = latest::channel(None);
        let (changed, backoff, mut needed, ready) =
            (Arc::clone(self.changed), Arc::clone(self.backoff), self.needed.clone(), self.ready.clone());
        let (mut listing, mut all) = (BTreeMap::new(), BTreeMap::new());
        let see = move |event: Event<K>| {
            match event {
                Event::Init => return listing.clear(),
                Event::InitApply(object) => return listing.extend([read(&object)]),
                Event::InitDone => all = mem::take(&mut listing),
                Event::Apply(object) => all.extend([read(&object)]),
                Event::Delete(object) => drop(all.remove(&read(&object).0)),
            }
            let is_news = telling.borrow().as_deref() != Some(&all);
            if is_news {
                telling.send_replace(Some(Arc::new(all.clone())));
                changed.notify_one();
            }
        };
        self.tasks.spawn(async move {
            needed.wait_for(is_needed).await?;
            Ok(watch(api, &selection, &backoff, see, |more| ready.watch_rejected(more)).await)
        });
        told
    }
}
