//! `Driver`: the loop. Takes what the watches noticed, keeps the [`Queue`], and lets looks run, a few at a time and never
//! two at the same BpfProgram. A look that panics counts as failed: one object must not take the others' operator away.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use sockeye_crds::revision::ProgramRef;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{Id, JoinSet},
};
use tracing::{error, warn};

use crate::{
    config::Config,
    health::{self, Health},
    memory::Memory,
    queue::{Ended, Queue},
    reconcile::{Context, reconcile},
    stores::Stores,
    sweep,
    trigger::{Pace, Touched},
};

/// The loop turns at least so often, and looks for bytes that may go.
const TURN: Duration = Duration::from_secs(health::STUCK_AFTER.as_secs() / 2);

/// The watches are gone, so there is nothing left to do.
#[derive(Debug, thiserror::Error)]
#[error("no watch is left")]
pub struct Deaf;

/// The loop.
pub struct Driver {
    context: Arc<Context>,
    config: Config,
    health: Health,
    queue: Queue,
    memories: HashMap<String, Memory>,
    looks: JoinSet<(Memory, Ended)>,
    names: HashMap<Id, String>,
}

impl Driver {
    /// A loop with nothing to do yet.
    pub fn new(context: Context, config: Config, health: Health) -> Self {
        let queue = Queue::new(config.resync);
        let (memories, looks, names) = (HashMap::new(), JoinSet::new(), HashMap::new());
        Self { context: Arc::new(context), config, health, queue, memories, looks, names }
    }

    /// Turns until the watches are gone. The stores must be ready.
    pub async fn run(mut self, mut triggers: UnboundedReceiver<Touched>) -> Result<Infallible, Deaf> {
        self.touch(Touched::All);
        let mut next_sweep = Instant::now() + TURN;
        loop {
            self.health.beat();
            self.start_looks();
            let now = Instant::now();
            let due = self.queue.next_due().filter(|_| self.looks.len() < self.config.concurrency);
            let wake = due.map_or(next_sweep, |due| due.min(next_sweep));
            tokio::select! {
                touched = triggers.recv() => {
                    self.touch(touched.ok_or(Deaf)?);
                    // A burst is one turn.
                    while let Ok(touched) = triggers.try_recv() {
                        self.touch(touched);
                    }
                }
                Some(look) = self.looks.join_next_with_id() => self.look_ended(look),
                () = tokio::time::sleep(wake.saturating_duration_since(now)) => {
                    if Instant::now() >= next_sweep {
                        self.sweep().await;
                        next_sweep = Instant::now() + TURN;
                    }
                }
            }
        }
    }

    fn touch(&mut self, touched: Touched) {
        let stores = &self.context.stores;
        let (names, pace) = match touched {
            Touched::Nothing => return,
            Touched::All => (stores.program_names(), Pace::Paced),
            Touched::Programs(names, pace) => (names.into_iter().collect(), pace),
            Touched::Bytecode(config_map) => (users_of(stores, &config_map), Pace::Now),
        };
        let (interval, now) = (interval(stores.nodes.len()), Instant::now());
        for name in names {
            self.queue.touch(&name, pace, interval, now);
        }
    }

    fn start_looks(&mut self) {
        while self.looks.len() < self.config.concurrency {
            let Some(name) = self.queue.take(Instant::now()) else { return };
            let mut memory = self.memories.remove(&name).unwrap_or_default();
            let context = Arc::clone(&self.context);
            let program = name.clone();
            let look = self.looks.spawn(async move {
                let ended = reconcile(&context, &program, &mut memory).await.unwrap_or_else(|error| {
                    warn!(program, step = error.step(), %error, "trying again later");
                    if error.is_transient() { Ended::Hindered } else { Ended::Failed }
                });
                (memory, ended)
            });
            self.names.insert(look.id(), name);
        }
    }

    fn look_ended(&mut self, look: Result<(Id, (Memory, Ended)), tokio::task::JoinError>) {
        let (id, memory, ended) = match look {
            Ok((id, (memory, ended))) => (id, memory, ended),
            Err(panicked) => {
                error!(%panicked, "a look at a BpfProgram panicked");
                (panicked.id(), Memory::default(), Ended::Failed)
            }
        };
        let Some(name) = self.names.remove(&id) else { return };
        self.queue.ended(&name, ended, Instant::now());
        if ended != Ended::Gone {
            self.memories.insert(name, memory);
        }
    }

    async fn sweep(&self) {
        let Context { stores, writer, .. } = &*self.context;
        let steps = sweep::sweep(stores, self.config.bytes_grace, Timestamp::now());
        // No BpfProgram is meant: bytes belong to none.
        match tokio::time::timeout(TURN / 2, writer.apply(&ProgramRef::default(), steps)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "removing unused bytes; trying again later"),
            Err(_) => warn!("removing unused bytes takes too long; trying again later"),
        }
    }
}

/// How often what is observed is looked at: every report of a rollout over many nodes touches the same BpfProgram, and a
/// look takes some microseconds for each node. How often that is told is [`told`](crate::told)'s.
fn interval(nodes: usize) -> Duration {
    Duration::from_micros(200 * nodes as u64)
}

/// The BpfPrograms whose bytes come from that ConfigMap, or are stored in it.
fn users_of(stores: &Stores, config_map: &str) -> Vec<String> {
    let programs = stores.programs.state();
    let users = programs.iter().filter(|program| {
        let Ok(program) = &program.0 else { return false };
        let source = program.spec.bytecode.config_map.as_ref().is_some_and(|source| source.name == config_map);
        let dispatch = program.status.as_ref().and_then(|status| status.dispatch.as_ref());
        let stored = dispatch.is_some_and(|it| sockeye_crds::names::object_config_map(&it.digest) == config_map);
        source || stored
    });
    users.map(|program| program.name_any()).collect()
}
