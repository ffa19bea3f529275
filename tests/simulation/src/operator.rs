//! [`Operator`]: an operator's process: its own election, queue, stores and reconciliations, and around them a loop
//! that takes no random branch.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use kube::{
    Client, Resource as _,
    core::DeserializeGuard,
    runtime::{
        events::Reporter,
        reflector::{ObjectRef, Store},
        watcher::Event as Shown,
    },
};
use serde_json::{from_value, json};
use sockeye_client::Decode;
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision};
use sockeye_operator::{
    Health,
    controller::queue::Queue,
    events::publisher::Publisher,
    images::Images,
    leader::{
        election::{Answer, Effect, Election, Event},
        gate::Gate,
        requests::Requests,
    },
    reconcile::{
        Context, Outcome, apply::Writer, cache::ProgramCache, gather::Reader, reconcile, stored_object::StoredObjects,
    },
    signing::Signing,
    watch::{
        nodes::{PartialNode, PartialPod},
        stores::{ConfigMapMeta, Stores},
        trigger::{Pace, Trigger, Watched},
        trim::Trim,
    },
};
use tokio::{
    select,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    api::{Api, NAMESPACE, Shared, feed::Feed, kind::Kind},
    fault::Fault,
    random::Random,
};

/// The number of BpfPrograms that are reconciled at the same time.
const CONCURRENCY: usize = 4;
/// A BpfProgram is reconciled without a trigger after this long, which no world lasts: triggers are to suffice.
const RESYNC: Duration = Duration::from_secs(3_600);

/// The watches.
struct Feeds {
    programs: Feed<DeserializeGuard<BpfProgram>>,
    revisions: Feed<DeserializeGuard<BpfRevision>>,
    reports: Feed<DeserializeGuard<BpfNode>>,
    nodes: Feed<PartialNode>,
    pods: Feed<PartialPod>,
    config_maps: Feed<ConfigMapMeta>,
}

/// What the writers do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    StandBy,
    Lead,
    Stop,
}

/// The process of one operator.
pub struct Operator {
    shared: Shared,
    changes: watch::Receiver<u64>,
    /// Tells it to stop.
    stop: Arc<Notify>,
    is_stopping: bool,
    feeds: Feeds,
    context: Arc<Context>,
    queue: Queue,
    caches: BTreeMap<String, ProgramCache>,
    running: JoinSet<(String, ProgramCache, Outcome)>,
    election: Election,
    requests: Arc<Requests>,
    asked: JoinSet<Answer>,
    gate: Gate,
    phase: Phase,
    fault: Option<Fault>,
}

impl Operator {
    /// Returns the process of an operator that has just started.
    pub fn new(shared: Shared, name: &str, (client, random): (Client, Random), stop: Arc<Notify>) -> Self {
        let (gate, health, fault) = (Gate::default(), Health::default(), shared.lock().fault);
        let feeds = Feeds {
            programs: Feed::new(name, Kind::Program, |_| true, random.fork(1)),
            revisions: Feed::new(name, Kind::Revision, |_| true, random.fork(2)),
            reports: Feed::new(name, Kind::Report, |_| true, random.fork(3)),
            nodes: Feed::new(name, Kind::Node, |_| true, random.fork(4)),
            pods: Feed::new(name, Kind::Pod, |_| true, random.fork(5)),
            config_maps: Feed::new(name, Kind::ConfigMap, |_| true, random.fork(6)),
        };
        let stores = Stores {
            programs: feeds.programs.store(),
            revisions: feeds.revisions.store(),
            reports: feeds.reports.store(),
            nodes: feeds.nodes.store(),
            pods: feeds.pods.store(),
            config_maps: feeds.config_maps.store(),
        };
        let guarded = gate.guard(client.clone());
        let reporter = Reporter { controller: "sockeye-operator".to_owned(), instance: Some(name.to_owned()) };
        let stored = StoredObjects::new(guarded.clone(), NAMESPACE);
        let publisher = Publisher::new(guarded.clone(), reporter);
        let namespace = NAMESPACE.to_owned();
        let writer = Writer::new(guarded.clone(), namespace.clone(), stored.clone(), publisher, health.clone());
        let images = Images::new(RESYNC);
        let reader =
            Reader { client: guarded, namespace: namespace.clone(), stores, stored, images, needs_proof: false };
        let context = Context { reader, writer, event_budget: Arc::default(), signing: Signing::default() };
        Self {
            changes: shared.subscribe(),
            shared,
            stop,
            is_stopping: false,
            feeds,
            context: Arc::new(context),
            queue: Queue::new(RESYNC),
            caches: BTreeMap::new(),
            running: JoinSet::new(),
            election: Election::new(name.to_owned(), Instant::now().into_std()),
            requests: Arc::new(Requests::new(client, namespace, name.to_owned(), health)),
            asked: JoinSet::new(),
            gate,
            phase: Phase::StandBy,
            fault,
        }
    }

    /// Runs until it was told to stop, or has lost the Lease.
    pub async fn run(mut self) {
        if self.fault == Some(Fault::WritesWithoutLeading) {
            self.lead(Instant::now() + RESYNC);
        }
        let mut event = Event::Tick;
        loop {
            self.pull();
            if self.feeds.are_listed() {
                for effect in self.election.handle(event, Instant::now().into_std()) {
                    if self.carry_out(effect).is_break() {
                        return;
                    }
                }
                self.start_due();
            }
            event = self.next_event().await;
        }
    }

    async fn next_event(&mut self) -> Event {
        if self.phase == Phase::Stop && self.running.is_empty() {
            self.phase = Phase::StandBy;
            return Event::WritersStopped;
        }
        let wake = self.wake();
        select! {
            biased;
            Some(answer) = self.asked.join_next() => answer.map_or(Event::Tick, Event::Answered),
            Some(done) = self.running.join_next() => {
                match done {
                    Ok(done) => self.finish(done),
                    Err(panic) => self.shared.lock().violate(format!("a reconciliation panicked: {panic}")),
                }
                Event::Tick
            }
            () = self.stop.notified(), if !self.is_stopping => {
                self.is_stopping = true;
                Event::Stop
            }
            _ = self.changes.changed() => Event::Tick,
            () = sleep_until(wake) => Event::Tick,
        }
    }

    fn carry_out(&mut self, effect: Effect) -> ControlFlow<()> {
        match effect {
            Effect::Send(request) => {
                let requests = Arc::clone(&self.requests);
                self.asked.spawn(async move { requests.ask(request).await });
            }
            Effect::Lead(until) => self.lead(until.into()),
            Effect::Renewed(until) => self.gate.open_until(until.into()),
            Effect::StopWriters => self.phase = Phase::Stop,
            Effect::End(_) => {
                self.gate.close();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn lead(&mut self, until: Instant) {
        self.gate.open_until(until);
        self.phase = Phase::Lead;
        self.trigger(Trigger::All);
    }

    /// Takes what the watches show. While another one leads, nothing is triggered.
    fn pull(&mut self) {
        let shared = self.shared.clone();
        let triggers = self.feeds.pull(&shared.lock(), self.fault);
        if self.phase == Phase::Lead {
            triggers.into_iter().for_each(|trigger| self.trigger(trigger));
        }
    }

    /// Does what the controller does with a trigger.
    fn trigger(&mut self, trigger: Trigger) {
        let stores = &self.context.reader.stores;
        let (names, pace): (Vec<String>, Pace) = match trigger {
            Trigger::Nothing => return,
            Trigger::All => (stores.program_names(), Pace::Paced),
            Trigger::Programs(names, pace) => (names.into_iter().collect(), pace),
            Trigger::Shared { names, lender } => {
                (stores.programs_that_borrow_from(&lender).into_iter().chain(names).collect(), Pace::Immediate)
            }
            Trigger::ConfigMap(name) => (stores.programs_with_bytes_in(&name), Pace::Paced),
        };
        let now = Instant::now().into_std();
        for name in names {
            self.queue.trigger(&name, pace, Duration::from_millis(1), now);
        }
    }

    fn start_due(&mut self) {
        while self.phase == Phase::Lead && self.running.len() < CONCURRENCY {
            let Some(name) = self.queue.start(Instant::now().into_std()) else { return };
            let mut cache = self.caches.remove(&name).unwrap_or_default();
            let context = Arc::clone(&self.context);
            self.running.spawn(async move {
                let outcome = reconcile(&context, &name, &mut cache).await;
                (name, cache, outcome)
            });
        }
    }

    fn finish(&mut self, (name, cache, outcome): (String, ProgramCache, Outcome)) {
        self.queue.finish(&name, outcome, Instant::now().into_std());
        if outcome != Outcome::Gone {
            self.caches.insert(name, cache);
        }
    }

    fn wake(&mut self) -> Instant {
        // It does nothing before all is listed.
        let is_listed = self.feeds.are_listed();
        let has_room = is_listed && self.phase == Phase::Lead && self.running.len() < CONCURRENCY;
        let due = self.queue.next_due().filter(|_| has_room);
        let election = self.election.wake_at().filter(|_| is_listed);
        let times = due.into_iter().chain(election).map(Instant::from_std);
        let shared = self.shared.clone();
        let feed = self.feeds.next_due(&shared.lock());
        times.chain(feed).fold(Instant::now() + Duration::from_secs(10), Instant::min)
    }
}

impl Feeds {
    fn are_listed(&self) -> bool {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        programs.is_listed()
            && revisions.is_listed()
            && reports.is_listed()
            && nodes.is_listed()
            && pods.is_listed()
            && config_maps.is_listed()
    }

    fn pull(&mut self, api: &Api, fault: Option<Fault>) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        let mut ignored = Vec::new();
        self.programs.pull(api, |store, event| shown(store, event, &mut triggers));
        self.revisions.pull(api, |store, event| shown(store, event, &mut triggers));
        let of_reports = if fault == Some(Fault::ReportsTriggerNothing) { &mut ignored } else { &mut triggers };
        self.reports.pull(api, |store, event| shown(store, event, of_reports));
        self.nodes.pull(api, |store, event| shown(store, event, &mut triggers));
        let sees_pods = fault != Some(Fault::NodesSeemDead);
        self.pods.pull(api, |store, event| {
            let event = shown(store, event, &mut triggers);
            if sees_pods { event } else { event.modify(|pod| *pod = unready(pod)) }
        });
        self.config_maps.pull(api, |store, event| shown(store, event, &mut triggers));
        triggers
    }

    fn next_due(&mut self, api: &Api) -> Option<Instant> {
        let due = [
            self.programs.next_due(api),
            self.revisions.next_due(api),
            self.reports.next_due(api),
            self.nodes.next_due(api),
            self.pods.next_due(api),
            self.config_maps.next_due(api),
        ];
        due.into_iter().flatten().min()
    }
}

/// Does what the operator's watches do with an event: trims it, and finds what it triggers.
fn shown<K>(store: &Store<K>, event: Shown<K>, triggers: &mut Vec<Trigger>) -> Shown<K>
where
    K: Watched + Trim + Decode + Sync,
{
    let event = event.modify(K::trim);
    let trigger = match &event {
        Shown::Apply(new) => K::trigger(store.get(&ObjectRef::from_obj(new)).as_deref(), Some(new)),
        Shown::Delete(old) => K::trigger(Some(old), None),
        Shown::InitDone => Trigger::All,
        Shown::Init | Shown::InitApply(_) => Trigger::Nothing,
    };
    if trigger != Trigger::Nothing {
        triggers.push(trigger);
    }
    event
}

/// Returns a Pod of the same name that is not Ready, on the same node.
fn unready(pod: &PartialPod) -> PartialPod {
    let name = pod.meta().name.clone().unwrap_or_default();
    let node = pod.node_name().unwrap_or_default();
    let pod = json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"nodeName": node}});
    from_value(pod).unwrap()
}
