//! `watch`: keeps the [`Stores`] as the API server has them, and says which BpfPrograms each change touches. IO: lists and
//! watches, nothing else. A watch that fails is tried again for ever; readiness waits for the first lists.

use std::{convert::Infallible, fmt::Debug, sync::Arc};

use kube::{
    Api, Client, Resource,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use sockeye_client::{Backoff, Selection, watch};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::debug;

use crate::{
    config::Config,
    stores::Stores,
    trigger::{Touched, Watched},
};

/// A page of a list; smaller pages keep the memory of a large cluster's list small.
const PAGE: u32 = 50;

/// Where the watches send what they noticed.
pub type Triggers = mpsc::UnboundedSender<Touched>;

/// Starts every watch in `tasks`.
pub fn start(client: &Client, config: &Config, triggers: &Triggers, tasks: &mut Tasks) -> Stores {
    let all = Selection { page_size: Some(PAGE), ..Selection::default() };
    let agents = Selection { labels: Some(config.agent_selector.clone()), ..all.clone() };
    let namespace = config.namespace.as_str();
    let mut start = Start { triggers, backoff: Arc::default(), tasks };
    Stores {
        programs: start.watch(Api::all(client.clone()), &all),
        revisions: start.watch(Api::all(client.clone()), &all),
        reports: start.watch(Api::all(client.clone()), &all),
        nodes: start.watch(Api::all(client.clone()), &all),
        pods: start.watch(Api::namespaced(client.clone(), namespace), &agents),
        config_maps: start.watch(Api::namespaced(client.clone(), namespace), &all),
    }
}

type Tasks = JoinSet<crate::Result<Infallible>>;

struct Start<'a> {
    triggers: &'a Triggers,
    backoff: Arc<Backoff>,
    tasks: &'a mut Tasks,
}

impl Start<'_> {
    fn watch<K: Kind>(&mut self, api: Api<K>, selection: &Selection) -> Store<K> {
        let (store, writer) = reflector::store();
        let mut seen = Seen { store: store.clone(), writer, triggers: self.triggers.clone() };
        let (selection, backoff) = (selection.clone(), Arc::clone(&self.backoff));
        self.tasks.spawn(async move { Ok(watch(api, &selection, &backoff, |event| seen.see(event), |_| ()).await) });
        store
    }
}

/// What an object must be to be watched and kept.
trait Kind: Watched + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}

impl<K: Watched + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Kind for K {}

/// What becomes of what a watch tells.
struct Seen<K: Kind> {
    store: Store<K>,
    writer: Writer<K>,
    triggers: Triggers,
}

impl<K: Kind> Seen<K> {
    fn see(&mut self, event: Event<K>) {
        let event = event.modify(K::trim);
        let touched = match &event {
            Event::Apply(new) => K::touched(self.store.get(&ObjectRef::from_obj(new)).as_deref(), Some(new)),
            Event::Delete(old) => K::touched(Some(old), None),
            // What changed unseen, deletions too, is in the new list.
            Event::InitDone => Touched::All,
            Event::Init | Event::InitApply(_) => Touched::Nothing,
        };
        // First the store, then the word that it changed.
        self.writer.apply_watcher_event(&event);
        debug!(kind = %K::kind(&()), ?touched, "seen");
        if touched != Touched::Nothing {
            // Nobody hears it only when the process is about to end.
            let _ = self.triggers.send(touched);
        }
    }
}
