//! `watch`: keeps the [`Stores`] as the API server has them, and says which BpfPrograms each change touches. IO: lists and
//! watches, nothing else. A watch that fails is tried again with backoff for ever; readiness waits for the first lists.

use std::{convert::Infallible, fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store, store::Writer},
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use crate::{
    config::Config,
    stores::Stores,
    trigger::{Touched, Watched},
};

/// A page of a list; smaller pages keep the memory of a large cluster's list small.
const PAGE: u32 = 50;

/// Where the watches send what they noticed.
pub type Triggers = mpsc::UnboundedSender<Touched>;

/// A watch ended, which none ever should.
#[derive(Debug, thiserror::Error)]
#[error("the watch of {0} ended")]
pub struct Ended(String);

/// Starts every watch in `tasks`.
pub fn start(client: &Client, config: &Config, triggers: &Triggers, tasks: &mut Tasks) -> Stores {
    let all = watcher::Config::default().page_size(PAGE);
    let agents = all.clone().labels(&config.agent_selector);
    let namespace = config.namespace.as_str();
    let mut start = Start { triggers, tasks };
    Stores {
        programs: start.watch(Api::all(client.clone()), &all),
        revisions: start.watch(Api::all(client.clone()), &all),
        reports: start.watch(Api::all(client.clone()), &all),
        nodes: start.watch(Api::all(client.clone()), &all),
        pods: start.watch(Api::namespaced(client.clone(), namespace), &agents),
        config_maps: start.watch(Api::namespaced(client.clone(), namespace), &all),
    }
}

/// How long a failed watch waits: twice as long each time, but not long, so that the picture is soon right once the API
/// server is back. There is one operator, so there is no herd to spread.
struct Patience(Duration);

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Without a failure for so long, the next one waits as the first did.
const CALM: Duration = Duration::from_secs(30);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let doubled = (self.0 * 2).min(LONGEST_WAIT);
        Some(std::mem::replace(&mut self.0, doubled))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0 = FIRST_WAIT;
    }
}

type Tasks = JoinSet<crate::Result<Infallible>>;

struct Start<'a> {
    triggers: &'a Triggers,
    tasks: &'a mut Tasks,
}

impl Start<'_> {
    fn watch<K: Kind>(&mut self, api: Api<K>, config: &watcher::Config) -> Store<K> {
        let (store, writer) = reflector::store();
        self.tasks.spawn(follow(api, config.clone(), store.clone(), writer, self.triggers.clone()));
        store
    }
}

/// What an object must be to be watched and kept.
trait Kind: Watched + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}

impl<K: Watched + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Kind for K {}

async fn follow<K: Kind>(
    api: Api<K>,
    config: watcher::Config,
    store: Store<K>,
    mut writer: Writer<K>,
    triggers: Triggers,
) -> crate::Result<Infallible> {
    let kind = K::kind(&()).into_owned();
    let mut events =
        pin!(watcher(api, config).backoff(ResetTimerBackoff::new(Patience(FIRST_WAIT), CALM)).modify(K::trim));
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(kind, %error, "watch failed, trying again");
                continue;
            }
        };
        let touched = match &event {
            watcher::Event::Apply(new) => K::touched(store.get(&ObjectRef::from_obj(new)).as_deref(), Some(new)),
            watcher::Event::Delete(old) => K::touched(Some(old), None),
            // What changed unseen, deletions too, is in the new list.
            watcher::Event::InitDone => Touched::All,
            watcher::Event::Init | watcher::Event::InitApply(_) => Touched::Nothing,
        };
        // First the store, then the word that it changed.
        writer.apply_watcher_event(&event);
        debug!(kind, ?touched, "seen");
        if touched != Touched::Nothing && triggers.send(touched).is_err() {
            break;
        }
    }
    Err(Ended(kind).into())
}
