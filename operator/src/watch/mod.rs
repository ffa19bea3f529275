//! Watches: they keep the [`stores`] as the API server's objects are, and [`trigger`] reconciliation. IO: requests.
//!
//! | module | noun |
//! |---|---|
//! | [`stores`] | what the watches brought |
//! | [`trim`] | the fields that are not kept |
//! | [`trigger`] | the BpfPrograms that a change concerns |
//! | [`nodes`] | nodes, agents and reports, joined |
//! | [`revisions`] | the BpfRevisions of one BpfProgram |
//! | [`sharing`] | the BpfPrograms that lend and borrow maps |

pub mod nodes;
pub mod revisions;
pub mod sharing;
pub mod stores;
pub mod trigger;
pub mod trim;

use std::{convert::Infallible, sync::Arc};

use kube::{
    Api, Client,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use sockeye_client::{Backoff, Decode, Selection, watch};
use sockeye_metrics::ClientMetrics;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::debug;

use crate::{
    config::Config,
    watch::{
        stores::Stores,
        trigger::{Trigger, Watched},
        trim::Trim,
    },
};

/// The number of objects in a page of a list. It bounds the memory that a list of a large cluster takes.
const PAGE_SIZE: u32 = 50;

/// The channel on which the watches trigger reconciliation.
pub type Triggers = mpsc::UnboundedSender<Trigger>;

/// Starts a watch of each kind as a task in `tasks`. A watch retries for ever.
pub fn start<E: Send + 'static>(
    client: &Client,
    (config, metrics): (&Config, &ClientMetrics),
    triggers: &Triggers,
    tasks: &mut JoinSet<Result<Infallible, E>>,
) -> Stores {
    let all = Selection { page_size: Some(PAGE_SIZE), metrics: Some(metrics.clone()), ..Selection::default() };
    let agents = Selection { labels: Some(config.agent_selector.clone()), ..all.clone() };
    let namespace = config.namespace.as_str();
    let mut watches = Watches { triggers, backoff: Arc::default(), tasks };
    Stores {
        programs: watches.start(Api::all(client.clone()), &all),
        revisions: watches.start(Api::all(client.clone()), &all),
        reports: watches.start(Api::all(client.clone()), &all),
        nodes: watches.start(Api::all(client.clone()), &all),
        pods: watches.start(Api::namespaced(client.clone(), namespace), &agents),
        config_maps: watches.start(Api::namespaced(client.clone(), namespace), &all),
    }
}

struct Watches<'a, E> {
    triggers: &'a Triggers,
    backoff: Arc<Backoff>,
    tasks: &'a mut JoinSet<Result<Infallible, E>>,
}

impl<E: Send + 'static> Watches<'_, E> {
    fn start<K: Kind>(&mut self, api: Api<K>, selection: &Selection) -> Store<K> {
        let (store, writer) = reflector::store();
        let mut handler = Handler { store: store.clone(), writer, triggers: self.triggers.clone() };
        let (selection, backoff) = (selection.clone(), Arc::clone(&self.backoff));
        self.tasks
            .spawn(async move { Ok(watch(api, &selection, &backoff, |event| handler.handle(event), |_| ()).await) });
        store
    }
}

/// The bounds of a watched kind.
trait Kind: Watched + Trim + Decode + Sync {}

impl<K: Watched + Trim + Decode + Sync> Kind for K {}

/// Handles the events of one watch.
struct Handler<K: Kind> {
    store: Store<K>,
    writer: Writer<K>,
    triggers: Triggers,
}

impl<K: Kind> Handler<K> {
    fn handle(&mut self, event: Event<K>) {
        let event = event.modify(K::trim);
        let trigger = match &event {
            Event::Apply(new) => K::trigger(self.store.get(&ObjectRef::from_obj(new)).as_deref(), Some(new)),
            Event::Delete(old) => K::trigger(Some(old), None),
            // A new list shows every change that the watch missed, deletions too.
            Event::InitDone => Trigger::All,
            Event::Init | Event::InitApply(_) => Trigger::Nothing,
        };
        // The store must have the change before anyone reads it.
        self.writer.apply_watcher_event(&event);
        debug!(kind = %K::kind(&()), ?trigger, "handled a watch event");
        if trigger != Trigger::Nothing {
            // Sending fails only while the process ends.
            let _ = self.triggers.send(trigger);
        }
    }
}
