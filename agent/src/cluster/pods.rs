//! `PodWatches`: this node's pods and the labels of namespaces, each watched from when anything needs it. Does IO:
//! requests.
//!
//! Of a pod only what targets are worked out with is kept: nothing else that changes in it is news.

use std::{collections::BTreeMap, mem, sync::Arc};

use k8s_openapi::api::core::v1::{self as core, Namespace};
use kube::{Api, Client, ResourceExt as _, core::PartialObjectMeta, runtime::watcher::Event};
use sockeye_client::{Decode, Selection, watch};
use tokio::sync::watch as latest;

use super::context::{Tasks, WatchContext};
use crate::model::pods::{Labels, Pod, RequiredInputs};

/// Objects of one kind, reduced to what is read of them; absent before the first list was complete.
type Listed<V> = Option<Arc<BTreeMap<String, V>>>;

/// Pods and namespaces, as they were listed last.
pub struct PodWatches {
    required: Requirement,
    pods: latest::Receiver<Listed<Pod>>,
    namespaces: latest::Receiver<Listed<Labels>>,
}

impl PodWatches {
    /// Starts the watches as tasks, which do nothing until something is required.
    pub(super) fn start(client: &Client, node_name: &str, context: &WatchContext, tasks: &mut Tasks) -> Self {
        let (required, requirement) = latest::channel(WatchedInputs::default());
        let required = Requirement(required);
        let mut starter = Starter { requirement, context, tasks };
        let of_node = Selection { fields: Some(format!("spec.nodeName={node_name}")), ..Selection::default() };
        let pod = |pod: &core::Pod| (pod.uid().unwrap_or_default(), Pod::read(pod));
        let namespace = |namespace: &PartialObjectMeta<Namespace>| (namespace.name_any(), namespace.labels().clone());
        let all = Selection::default();
        Self {
            required,
            pods: starter.start(Api::all(client.clone()), of_node, WatchedInputs::pods, pod),
            namespaces: starter.start(Api::all(client.clone()), all, WatchedInputs::namespaces, namespace),
        }
    }

    /// Returns what says what is required.
    pub fn requirement(&self) -> Requirement {
        self.required.clone()
    }

    /// Returns the node's pods.
    pub fn pods(&self) -> Option<Arc<Vec<Pod>>> {
        self.pods.borrow().as_ref().map(|pods| Arc::new(pods.values().cloned().collect()))
    }

    /// Returns the labels of namespaces, by name.
    pub fn namespaces(&self) -> Option<Arc<BTreeMap<String, Labels>>> {
        self.namespaces.borrow().clone()
    }
}

/// The objects to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WatchedInputs {
    /// The inputs without which targets can't be worked out.
    required: RequiredInputs,
    /// The pods, for their names.
    pods: bool,
}

/// How much some objects are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    None,
    /// A node that may not list them does without, and is as ready as others.
    Optional,
    Required,
}

impl WatchedInputs {
    const fn pods(&self) -> Need {
        match (self.required.pods, self.pods) {
            (true, _) => Need::Required,
            (false, true) => Need::Optional,
            (false, false) => Need::None,
        }
    }

    const fn namespaces(&self) -> Need {
        if self.required.namespaces { Need::Required } else { Need::None }
    }
}

/// Says what is required of pods and namespaces.
#[derive(Clone)]
pub struct Requirement(latest::Sender<WatchedInputs>);

impl Requirement {
    /// Has everything watched that is required. What was required once is watched from then on.
    pub fn require(&self, inputs: RequiredInputs) {
        self.0.send_if_modified(|all| {
            let more = all.required.union(inputs);
            mem::replace(&mut all.required, more) != more
        });
    }

    /// Has pods watched, for their names.
    pub fn want_pods(&self) {
        self.0.send_if_modified(|all| !mem::replace(&mut all.pods, true));
    }
}

struct Starter<'a> {
    requirement: latest::Receiver<WatchedInputs>,
    context: &'a WatchContext,
    tasks: &'a mut Tasks,
}

impl Starter<'_> {
    /// Runs one watch from when it is required, and notifies whenever what is `read` of any object, by its key,
    /// changed.
    fn start<K, V>(
        &mut self,
        api: Api<K>,
        selection: Selection,
        need: fn(&WatchedInputs) -> Need,
        read: impl Fn(&K) -> (String, V) + Send + 'static,
    ) -> latest::Receiver<Listed<V>>
    where
        K: Decode + Sync,
        V: Clone + PartialEq + Send + Sync + 'static,
    {
        let (newest, receiver) = latest::channel(None);
        let WatchContext { changed, backoff, readiness, metrics } = self.context.clone();
        let selection = Selection { metrics, ..selection };
        let mut requirement = self.requirement.clone();
        let (mut listing, mut all) = (BTreeMap::new(), BTreeMap::new());
        let on_event = move |event: Event<K>| {
            match event {
                Event::Init => return listing.clear(),
                Event::InitApply(object) => return listing.extend([read(&object)]),
                Event::InitDone => all = mem::take(&mut listing),
                Event::Apply(object) => all.extend([read(&object)]),
                Event::Delete(object) => drop(all.remove(&read(&object).0)),
            }
            let is_news = newest.borrow().as_deref() != Some(&all);
            if is_news {
                newest.send_replace(Some(Arc::new(all.clone())));
                changed.notify_one();
            }
        };
        self.tasks.spawn(async move {
            requirement.wait_for(|inputs| need(inputs) > Need::None).await?;
            let mut counted = false;
            let on_rejected = |is_rejected: bool| {
                let counts = is_rejected && need(&requirement.borrow()) == Need::Required;
                if mem::replace(&mut counted, counts) != counts {
                    readiness.watch_rejected(counts);
                }
            };
            Ok(watch(api, &selection, &backoff, on_event, on_rejected).await)
        });
        receiver
    }
}
