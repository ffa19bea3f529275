//! [`simulate`]: runs a scenario to its end, on a paused clock and one thread, until all is quiet and as it should be.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    runtime::Builder,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    agent::{self, Agent},
    api::{
        Shared,
        checks::OPERATOR,
        kind::Kind,
        link::{Link, LinkState},
    },
    control_plane::{node_name, node_object, pod_name, tend},
    fault::Fault,
    invariants,
    node::SimNode,
    operator::Operator,
    random::Random,
    scenario::{Action, OPERATORS, Process, Scenario},
};

/// The longest time in which all is as it should be, after all is well.
const LIMIT: Duration = Duration::from_secs(150);
/// Then nothing is written for this long but the Lease.
const QUIET: Duration = Duration::from_secs(15);

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The broken promise, if there is one.
    pub failure: Option<String>,
    /// The number of changes of objects.
    pub changes: usize,
    /// A hash of all changes, in their order and with their times.
    pub trace: u64,
}

/// Runs a scenario.
pub fn simulate(scenario: &Scenario, fault: Option<Fault>) -> Outcome {
    // Checks of objects run on one thread besides, one after the other and while the clock stands still.
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(scenario, fault);
        let failure = world.run(scenario).await.err();
        let (changes, trace) = world.trace();
        Outcome { failure, changes, trace }
    })
}

/// A process that may be killed.
struct Running {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct World {
    seed: u64,
    start: Instant,
    shared: Shared,
    nodes: BTreeMap<usize, SimNode>,
    /// The processes by their names.
    running: BTreeMap<String, Running>,
    /// The number of processes that were started so far: each draws its own choices.
    starts: u64,
}

impl World {
    fn new(scenario: &Scenario, fault: Option<Fault>) -> Self {
        let mut world = Self {
            seed: scenario.seed,
            start: Instant::now(),
            shared: Shared::new(fault),
            nodes: BTreeMap::new(),
            running: BTreeMap::new(),
            starts: 0,
        };
        (0..scenario.nodes).for_each(|node| world.join(node));
        (0..OPERATORS).for_each(|operator| world.start_process(Process::Operator(operator), Duration::ZERO));
        tokio::spawn(tend(world.shared.clone()));
        world
    }

    async fn run(&mut self, scenario: &Scenario) -> Result<(), String> {
        for (gap, action) in &scenario.actions {
            self.wait(*gap).await?;
            self.act(*action);
        }
        // Until what lasts a while has ended.
        self.wait(Duration::from_secs(21)).await?;
        self.heal();
        let mut waited = Duration::ZERO;
        while let Some(unsettled) = self.unsettled() {
            if waited >= LIMIT {
                return Err(format!("not settled after {LIMIT:?}: {unsettled}"));
            }
            let step = Duration::from_secs(3);
            self.wait(step).await?;
            waited += step;
        }
        // What is throttled is written meanwhile.
        self.wait(Duration::from_secs(5)).await?;
        let before = self.shared.lock().log().len();
        self.wait(QUIET).await?;
        let api = self.shared.lock();
        let mut others = api.log()[before..].iter().filter(|change| change.kind != Kind::Lease);
        match others.next() {
            None => Ok(()),
            Some(change) => Err(format!("{:?} {} is written although nothing changes", change.kind, change.name)),
        }
    }

    fn unsettled(&mut self) -> Option<String> {
        let api = self.shared.lock();
        let mut nodes: BTreeMap<String, SimNode> =
            self.nodes.iter().map(|(node, kernel)| (node_name(*node), kernel.clone())).collect();
        invariants::unsettled(&api, &mut nodes)
    }

    /// Waits, and ends at the first broken promise.
    async fn wait(&mut self, time: Duration) -> Result<(), String> {
        let mut changes = self.shared.subscribe();
        let broken = async {
            loop {
                if let Some(broken) = self.shared.lock().violations.first() {
                    return broken.clone();
                }
                if changes.changed().await.is_err() {
                    sleep(time).await;
                }
            }
        };
        match timeout(time, broken).await {
            Ok(broken) => Err(broken),
            Err(_) => Ok(()),
        }
    }

    /// Returns the number of changes and their hash.
    fn trace(&self) -> (usize, u64) {
        let api = self.shared.lock();
        let mut hasher = DefaultHasher::new();
        for change in api.log() {
            let at = change.at.duration_since(self.start).as_millis();
            (at, &change.name, format!("{:?}", change.kind), change.is_deletion).hash(&mut hasher);
        }
        (api.log().len(), hasher.finish())
    }

    fn random(&mut self) -> Random {
        self.starts += 1;
        Random::of(self.seed, "process").fork(self.starts)
    }

    fn start_process(&mut self, process: Process, after: Duration) {
        let name = name(process);
        let random = self.random();
        let slot = match process {
            Process::Operator(number) => number,
            Process::Agent(number) => OPERATORS + number,
        };
        let start = self.start;
        let (shared, stop) = (self.shared.clone(), Arc::new(Notify::new()));
        let told = Arc::clone(&stop);
        let kernel = match process {
            Process::Operator(_) => None,
            Process::Agent(node) => match self.nodes.get(&node) {
                Some(kernel) => Some((node_name(node), kernel.clone())),
                None => return,
            },
        };
        let of = name.clone();
        let task = tokio::spawn(async move {
            sleep(after).await;
            for restart in 0.. {
                let random = random.fork(restart);
                let client = Link::client(&shared, &of, slot as u64, (start, random.fork(u64::MAX)));
                match &kernel {
                    Some((node, kernel)) => {
                        Agent::new(kernel.clone(), node, shared.clone(), (client, random)).run().await;
                    }
                    None => Operator::new(shared.clone(), &of, (client, random), Arc::clone(&told)).run().await,
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        self.shared.lock().links.entry(name.clone()).or_default();
        self.running.insert(name, Running { task, stop });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Apply(program, spec) => self.apply(program, spec.json()),
            Action::Delete(program) => drop(self.shared.lock().delete(Kind::Program, program)),
            Action::Kill(process, down) => self.kill(process, down),
            Action::Stop(operator) => {
                if let Some(running) = self.running.get(&name(Process::Operator(operator))) {
                    running.stop.notify_one();
                }
            }
            Action::Cut(process, lasts) => {
                self.disturb(
                    process,
                    lasts,
                    |link| link.cut_since = Some(Instant::now()),
                    |link| {
                        link.cut_since = None;
                    },
                );
            }
            Action::Lose(process, lasts) => {
                self.disturb(process, lasts, |link| link.loss = 40, |link| link.loss = 0);
            }
            Action::Hold(process, kind, lasts) => {
                let now = Instant::now();
                // No watch is held for longer, however often that happens.
                let hold = move |link: &mut LinkState| {
                    let until = link.held.entry(kind).or_insert(now);
                    if *until <= now {
                        *until = now + lasts;
                    }
                };
                self.disturb(process, lasts, hold, |_| ());
            }
            Action::BreakWatches(process) => {
                self.disturb(process, Duration::ZERO, |link| link.breaks += 1, |_| ());
            }
            Action::DeleteBytes => self.delete_bytes(),
            of_node => self.act_on_node(of_node),
        }
    }

    fn act_on_node(&mut self, action: Action) {
        match action {
            Action::Join(node) => self.join(node),
            Action::Reboot(node) if self.nodes.contains_key(&node) => {
                self.stop_agent(node);
                self.boot(node);
                self.start_process(Process::Agent(node), Duration::from_secs(2));
            }
            Action::Leave(node) if self.nodes.remove(&node).is_some() => {
                self.stop_agent(node);
                let (name, mut api) = (node_name(node), self.shared.lock());
                api.links.remove(&agent::process(&name));
                drop(api.delete(Kind::Pod, &pod_name(&name)));
                drop(api.delete(Kind::Node, &name));
            }
            Action::Forget(node, lasts) if self.nodes.contains_key(&node) => {
                let (name, shared) = (node_name(node), self.shared.clone());
                drop(shared.lock().delete(Kind::Node, &name));
                tokio::spawn(async move {
                    sleep(lasts).await;
                    let mut api = shared.lock();
                    // It may have left meanwhile.
                    if api.links.contains_key(&agent::process(&name)) {
                        drop(api.create(Kind::Node, node_object(&name)));
                    }
                });
            }
            Action::Label(node, is_ssd) => {
                let labels = if is_ssd { json!({"disk": "ssd"}) } else { json!({}) };
                let set = |object: &mut Value| object["metadata"]["labels"] = labels;
                drop(self.shared.lock().update(Kind::Node, &node_name(node), set));
            }
            Action::DeleteReport(node) => drop(self.shared.lock().delete(Kind::Report, &node_name(node))),
            Action::FailLoads(node, lasts) => {
                let Some(kernel) = self.nodes.get(&node).cloned() else { return };
                kernel.fail_loads(true);
                tokio::spawn(async move {
                    sleep(lasts).await;
                    kernel.fail_loads(false);
                });
            }
            _ => {}
        }
    }

    fn apply(&self, program: &str, spec: Value) {
        let mut api = self.shared.lock();
        let is_deleted = |object: &Value| object["metadata"].get("deletionTimestamp").is_some();
        match api.get(Kind::Program, program).map(is_deleted) {
            Some(true) => {}
            Some(false) => drop(api.update(Kind::Program, program, |object| object["spec"] = spec)),
            None => {
                let object = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
                    "metadata": {"name": program}, "spec": spec});
                drop(api.create(Kind::Program, object));
            }
        }
    }

    fn delete_bytes(&self) {
        let mut api = self.shared.lock();
        let names: Vec<String> = api.list(Kind::ConfigMap).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| drop(api.delete(Kind::ConfigMap, name)));
    }

    fn kill(&mut self, process: Process, down: Duration) {
        if !self.running.contains_key(&name(process)) {
            return;
        }
        match process {
            Process::Agent(node) => self.stop_agent(node),
            Process::Operator(_) => drop(self.running.remove(&name(process))),
        }
        self.start_process(process, down);
    }

    fn stop_agent(&mut self, node: usize) {
        self.running.remove(&name(Process::Agent(node)));
        self.shared.lock().ready_agents.remove(&node_name(node));
    }

    /// Does something to a process's connection, and after a while something else.
    fn disturb(
        &self,
        process: Process,
        lasts: Duration,
        begin: impl FnOnce(&mut LinkState),
        end: impl FnOnce(&mut LinkState) + Send + 'static,
    ) {
        let (name, shared) = (name(process), self.shared.clone());
        change_link(&shared, &name, begin);
        tokio::spawn(async move {
            sleep(lasts).await;
            change_link(&shared, &name, end);
        });
    }

    fn join(&mut self, node: usize) {
        if self.nodes.contains_key(&node) {
            return;
        }
        let name = node_name(node);
        drop(self.shared.lock().create(Kind::Node, node_object(&name)));
        self.boot(node);
        self.start_process(Process::Agent(node), Duration::from_secs(1));
    }

    fn boot(&mut self, node: usize) {
        let random = self.random();
        self.nodes.insert(node, SimNode::new(&node_name(node), self.shared.clone(), random));
    }

    /// Ends whatever keeps the world from being well.
    fn heal(&self) {
        let mut api = self.shared.lock();
        for link in api.links.values_mut() {
            *link = LinkState { breaks: link.breaks, ..LinkState::default() };
        }
        self.nodes.values().for_each(|kernel| kernel.fail_loads(false));
        api.notify();
    }
}

fn change_link(shared: &Shared, process: &str, change: impl FnOnce(&mut LinkState)) {
    let mut api = shared.lock();
    if let Some(link) = api.links.get_mut(process) {
        change(link);
    }
    api.notify();
}

fn name(process: Process) -> String {
    match process {
        Process::Operator(number) => format!("{OPERATOR}-{number}"),
        Process::Agent(node) => agent::process(&node_name(node)),
    }
}
