//! [`Controller`]: the loop that reconciles BpfPrograms while this process leads, a few at a time and each once at a
//! time.
//!
//! The watches trigger it, and the [`queue`] decides when each BpfProgram is due. Now and then, while no reconciliation
//! runs, it [collects garbage](collect_garbage). A reconciliation that panics counts as failed, so one object cannot
//! stop the operator for the others.

pub mod collect_garbage;
pub mod queue;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_metrics::operator::OperatorState;
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver},
        oneshot,
        watch::Receiver,
    },
    task::{Id, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use crate::{
    config::Config,
    controller::{collect_garbage::garbage, queue::Queue},
    health::{Health, STUCK_AFTER},
    leader::Phase,
    reconcile::{
        Context, Outcome, cache::ProgramCache, gather::list_all_revisions, reconcile, stored_object::digest_in,
    },
    watch::trigger::{Pace, Trigger},
};

/// The loop runs at least this often, and collects garbage.
const LOOP_INTERVAL: Duration = Duration::from_secs(STUCK_AFTER.as_secs() / 2);

/// All watches ended, so nothing will trigger a reconciliation any more.
#[derive(Debug, thiserror::Error)]
#[error("all watches ended")]
pub struct WatchesEnded;

/// The loop.
pub struct Controller {
    context: Arc<Context>,
    config: Config,
    health: Health,
    queue: Queue,
    caches: HashMap<String, ProgramCache>,
    running: JoinSet<(ProgramCache, Outcome)>,
    names: HashMap<Id, String>,
    /// Questions of those who scrape metrics.
    questions: Questions,
}

/// Where the loop receives questions about its state.
pub type Questions = mpsc::Receiver<oneshot::Sender<OperatorState>>;

impl Controller {
    /// Creates a loop.
    pub fn new(context: Context, config: Config, health: Health, questions: Questions) -> Self {
        let queue = Queue::new(config.resync);
        let (caches, running, names) = (HashMap::new(), JoinSet::new(), HashMap::new());
        Self { context: Arc::new(context), config, health, queue, caches, running, names, questions }
    }

    /// Runs until it is to stop, or with an error if the watches end. The stores must be ready.
    pub async fn run(
        mut self,
        mut triggers: UnboundedReceiver<Trigger>,
        mut phase: Receiver<Phase>,
    ) -> Result<(), WatchesEnded> {
        self.stand_by(&mut triggers, &mut phase).await?;
        self.trigger(Trigger::All);
        let mut next_collection = Instant::now() + LOOP_INTERVAL;
        loop {
            self.health.beat();
            if *phase.borrow_and_update() == Phase::Stop {
                while self.running.join_next().await.is_some() {}
                return Ok(());
            }
            // A reconciliation may be about to use stored bytes again that no revision names yet.
            if Instant::now() >= next_collection && self.running.is_empty() {
                self.collect_garbage().await;
                next_collection = Instant::now() + LOOP_INTERVAL;
            }
            self.start_due();
            let now = Instant::now();
            let has_room = self.running.len() < self.config.concurrency;
            let due = self.queue.next_due().filter(|_| has_room);
            let collection = if self.running.is_empty() { next_collection } else { now + LOOP_INTERVAL };
            let wake = due.map_or(collection, |due| due.min(collection));
            tokio::select! {
                trigger = triggers.recv() => {
                    self.trigger(trigger.ok_or(WatchesEnded)?);
                    // Take a burst together.
                    while let Ok(trigger) = triggers.try_recv() {
                        self.trigger(trigger);
                    }
                }
                Some(joined) = self.running.join_next_with_id() => self.finish(joined),
                Some(answer) = self.questions.recv() => drop(answer.send(self.state(true))),
                Ok(()) = phase.changed() => {}
                () = sleep(wake.saturating_duration_since(now)) => {}
            }
        }
    }

    /// Waits while another process leads. No trigger is kept: the leader reconciles every BpfProgram at first.
    async fn stand_by(
        &mut self,
        triggers: &mut UnboundedReceiver<Trigger>,
        phase: &mut Receiver<Phase>,
    ) -> Result<(), WatchesEnded> {
        while *phase.borrow_and_update() == Phase::StandBy {
            self.health.beat();
            tokio::select! {
                trigger = triggers.recv() => drop(trigger.ok_or(WatchesEnded)?),
                Some(answer) = self.questions.recv() => drop(answer.send(self.state(false))),
                Ok(()) = phase.changed() => {}
                () = sleep(LOOP_INTERVAL) => {}
            }
        }
        Ok(())
    }

    /// Returns what those who scrape metrics ask for.
    fn state(&self, leads: bool) -> OperatorState {
        let (queued, oldest) = self.queue.backlog(Instant::now());
        OperatorState {
            queued,
            oldest,
            running: self.running.len(),
            leads,
            objects: self.context.reader.stores.counts().to_vec(),
        }
    }

    fn trigger(&mut self, trigger: Trigger) {
        let stores = &self.context.reader.stores;
        let (names, pace) = match trigger {
            Trigger::Nothing => return,
            Trigger::All => (stores.program_names(), Pace::Paced),
            Trigger::Programs(names, pace) => (names.into_iter().collect(), pace),
            Trigger::Shared { names, lender } => {
                (stores.programs_that_borrow_from(&lender).into_iter().chain(names).collect(), Pace::Immediate)
            }
            // What somebody does to bytes that the operator stored is no reason to retry at once.
            Trigger::ConfigMap(name) if digest_in(&name).is_some() => {
                (stores.programs_with_bytes_in(&name), Pace::Paced)
            }
            Trigger::ConfigMap(name) => (stores.programs_with_bytes_in(&name), Pace::Immediate),
        };
        let (interval, now) = (reconcile_interval(stores.nodes.len()), Instant::now());
        for name in names {
            self.queue.trigger(&name, pace, interval, now);
        }
    }

    fn start_due(&mut self) {
        while self.running.len() < self.config.concurrency {
            let Some(name) = self.queue.start(Instant::now()) else { return };
            let mut cache = self.caches.remove(&name).unwrap_or_default();
            let (context, program) = (Arc::clone(&self.context), name.clone());
            let task = self.running.spawn(async move {
                let outcome = reconcile(&context, &program, &mut cache).await;
                (cache, outcome)
            });
            self.names.insert(task.id(), name);
        }
    }

    fn finish(&mut self, joined: Result<(Id, (ProgramCache, Outcome)), JoinError>) {
        let (id, cache, outcome) = match joined {
            Ok((id, (cache, outcome))) => (id, cache, outcome),
            Err(panic) => {
                error!(%panic, "a reconciliation panicked");
                self.context.metrics.errors.inc(&["panic"]);
                (panic.id(), ProgramCache::default(), Outcome::Failed)
            }
        };
        let Some(name) = self.names.remove(&id) else { return };
        self.queue.finish(&name, outcome, Instant::now());
        if outcome != Outcome::Gone {
            self.caches.insert(name, cache);
        }
    }

    async fn collect_garbage(&self) {
        match timeout(LOOP_INTERVAL / 2, self.delete_garbage()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot delete unused bytes; retrying later"),
            Err(_) => warn!("deleting unused bytes takes too long; retrying later"),
        }
    }

    /// Deletes the stored bytes that no revision names. Once there may be some, the revisions are asked for: the watch
    /// may not have brought the one yet that was just created.
    async fn delete_garbage(&self) -> anyhow::Result<()> {
        let Context { reader, writer, .. } = &*self.context;
        let (config_maps, now) = (reader.stores.config_maps.state(), Timestamp::now());
        let watched = reader.stores.revisions.state();
        if garbage(watched.iter().map(Arc::as_ref), &config_maps, self.config.bytes_grace, now).is_empty() {
            return Ok(());
        }
        let revisions = list_all_revisions(&reader.client).await?;
        for config_map in garbage(revisions.iter(), &config_maps, self.config.bytes_grace, now) {
            match writer.delete_bytes(&config_map).await {
                Err(error) if error.is_conflict() => debug!(%error, "kept bytes that have changed; retrying later"),
                deleted => deleted?,
            }
        }
        Ok(())
    }
}

/// Returns the least time between two paced reconciliations of a BpfProgram.
///
/// During a rollout every node's report triggers one, and one takes microseconds per node. The
/// [`throttle`](crate::reconcile::throttle) bounds the status writes.
fn reconcile_interval(nodes: usize) -> Duration {
    Duration::from_micros(200 * nodes as u64)
}
