//! Many nodes: a thousand agents on fake kernels, and the operator itself, on a real API server.
//!
//! | module | noun |
//! |---|---|
//! | [`swarm`] | the agents, in a few processes |
//! | [`meter`] | the API server's own counters |

mod meter;
pub mod swarm;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgram,
    condition::{ConditionType, Status},
};
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};
use sockeye_tests::{chart, identity::admin, nodes, operator::Operator};

use crate::{
    process::memory,
    programs::program,
    table::{Bound, Figure, median},
};
use meter::{Counts, Meter};
use swarm::Swarm;

/// The number of measurements of the API server's own rate: even, since every other write undoes the one before.
const ROUNDS: usize = 4;
/// The number of changes of a BpfProgram.
const CHANGES: usize = 3;
/// The time without a write after which the API server counts as quiet. An agent writes its BpfNodeDetail every ten
/// seconds at most, so a shorter silence may only wait for that.
const QUIET: Duration = Duration::from_secs(12);
/// The resources that each agent lists.
const LISTED: [&str; 4] = ["bpfnodes", "bpfrevisions", "configmaps", "nodes"];
/// The time within which everything has to happen.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The bench's options. KUBECONFIG names an API server that nothing else uses; helm and kubectl are on PATH.
#[derive(clap::Args)]
pub struct Bench {
    /// The operator's binary.
    #[arg(long)]
    operator: PathBuf,
    /// The number of nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// The number of BpfPrograms, of which one is changed.
    #[arg(long, default_value_t = 20)]
    programs: usize,
    /// The number of processes in which the agents run.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// An empty folder for temporary files.
    #[arg(long)]
    work: PathBuf,
}

impl Bench {
    /// Measures all figures.
    pub fn run(&self) -> Result<Vec<Figure>> {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(self.measure())
    }

    async fn measure(&self) -> Result<Vec<Figure>> {
        let (nodes, programs) = (self.nodes, self.programs);
        println!("the chart, {nodes} Nodes, their agents' pods and tokens");
        chart::install()?;
        let client = admin().await?;
        let tokens = nodes::create(&client, nodes).await?;
        let scenario = Scenario { nodes, meter: Meter(client.clone()), api: Api::all(client.clone()) };

        println!("{nodes} agents and the operator; {programs} BpfPrograms at once");
        let mut swarm = Swarm::start(self.processes, &tokens, &self.work)?;
        let operator = Operator::start(&client, &self.operator, None, &self.work).await?;
        scenario.run(&mut swarm).await?;
        let all: Vec<String> = (0..programs).map(program).collect();
        let from_nothing = scenario.apply(&mut swarm, &all, TCP_EVENTS).await?;

        println!("the API server alone: {nodes} status writes, {ROUNDS} times");
        swarm.tell("stop")?;
        operator.stop()?;
        let mut bare = Vec::new();
        for _ in 0..ROUNDS {
            bare.push(swarm.tell("write")?.took.as_secs_f64());
        }

        println!("the agents and the operator again, all at once");
        let operator = Operator::start(&client, &self.operator, None, &self.work).await?;
        let before = scenario.meter.read().await?;
        scenario.run(&mut swarm).await?;
        let restart = scenario.meter.read().await? - before;

        println!("one BpfProgram of {programs} changed, {CHANGES} times");
        let one = [program(0)];
        let mut changes = Vec::new();
        for object in [TCP_EVENTS_BTF, TCP_EVENTS].into_iter().cycle().take(CHANGES) {
            let change = scenario.apply(&mut swarm, &one, object).await?;
            println!("told an agent: {:.1?}", change.told);
            changes.push(change);
        }
        println!("nothing, for {} s", QUIET.as_secs());
        let before = scenario.meter.read().await?;
        tokio::time::sleep(QUIET).await;
        let idle = scenario.meter.read().await? - before;
        println!("all BpfPrograms deleted");
        let deletion = scenario.delete().await?;
        let memory = memory(operator.pid())?;
        operator.stop()?;

        let bare = median(bare);
        let per = |n: f64| n / nodes as f64;
        let figure = |what: String, value, unit| Figure::alone("scale", format!("{nodes} nodes, {what}"), value, unit);
        let most = |f: fn(&Counts) -> f64| changes.iter().map(|change| f(&change.counts)).fold(0.0, f64::max);
        let took = median(changes.iter().map(|change| change.took).collect());
        let told = changes.iter().map(Change::told).fold(0.0, f64::max);
        let folds = took.max(1.0) / interval(nodes).as_secs_f64();
        Ok(vec![
            figure("one bare status write each".into(), bare, "s"),
            figure("one change to Ready".into(), took, "s").against(bare).at_most(Bound::Ratio(1.5)),
            figure("one change, dispatch writes".into(), most(|c| c.revisions + c.config_maps), "")
                .at_most(Bound::Value(4.0)),
            figure("one change, watch events an agent".into(), told, "").at_most(Bound::Value(3.0)),
            figure("one change, BpfNode writes a node".into(), per(most(|c| c.node_statuses)), "")
                .at_most(Bound::Value(1.5)),
            figure("one change, BpfNodeDetail writes a node".into(), per(most(|c| c.details)), "")
                .at_most(Bound::Value(1.5)),
            figure("one change, BpfProgram writes".into(), most(|c| c.programs), "")
                .at_most(Bound::Value(4.0 + folds.ceil())),
            figure(format!("{programs} from nothing to Ready"), from_nothing.took, "s").against(bare),
            figure(
                format!("{programs} from nothing, BpfNode writes a node"),
                per(from_nothing.counts.node_statuses),
                "",
            ),
            figure(
                format!("{programs} from nothing, watch events an agent and program"),
                from_nothing.told() / programs as f64,
                "",
            )
            .at_most(Bound::Value(3.0)),
            figure("everyone started again, BpfNode writes a node".into(), per(restart.node_statuses), "")
                .at_most(Bound::Value(1.0)),
            figure("everyone started again, all other writes".into(), restart.writes() - restart.node_statuses, "")
                .at_most(Bound::Value(0.0)),
            figure(format!("idle for {} s, writes", QUIET.as_secs()), idle.writes(), "").at_most(Bound::Value(0.0)),
            figure(format!("{programs} deleted and gone"), deletion, "s"),
            figure("operator, VmHWM".into(), memory.peak, "MiB").at_most(Bound::Value(256.0)),
        ])
    }
}

/// Returns the operator's interval between status writes for so many nodes.
fn interval(nodes: usize) -> Duration {
    Duration::from_millis(2 * nodes as u64).max(Duration::from_secs(1))
}

/// One change, from its write to the folded status that its user sees.
struct Change {
    /// The seconds that it took.
    took: f64,
    /// The watch events per agent, by kind and type.
    told: BTreeMap<String, f64>,
    counts: Counts,
}

impl Change {
    /// Returns the number of watch events per agent.
    fn told(&self) -> f64 {
        self.told.values().sum()
    }
}

struct Scenario {
    nodes: usize,
    meter: Meter,
    api: Api<BpfProgram>,
}

impl Scenario {
    /// Applies BpfPrograms all at once, waits until each is in effect on every node, and then until nothing is written.
    async fn apply(&self, swarm: &mut Swarm, names: &[String], object: &[u8]) -> Result<Change> {
        let objects: Vec<Value> = names.iter().map(|name| manifest(name, object)).collect::<Result<_>>()?;
        let (before, told_before) = (self.meter.read().await?, swarm.tell("count")?.told);
        let start = Instant::now();
        let params = PatchParams::apply("kubectl").force();
        let (api, params) = (&self.api, &params);
        let applied: Vec<BpfProgram> = futures::stream::iter(names.iter().zip(&objects))
            .map(|(name, object)| async move { api.patch(name, params, &Patch::Apply(object)).await })
            .buffer_unordered(8)
            .try_collect()
            .await?;
        self.ready(applied.iter().map(|p| (p.name_any(), p.metadata.generation.unwrap_or_default())).collect()).await?;
        let took = start.elapsed().as_secs_f64();
        self.quiet(swarm).await?;
        let told = swarm.tell("count")?.told.into_iter().map(|(what, count)| {
            let new = count - told_before.get(&what).copied().unwrap_or_default();
            (what, new as f64 / self.nodes as f64)
        });
        let told = told.filter(|(_, count)| *count > 0.0).collect();
        Ok(Change { took, told, counts: self.meter.read().await? - before })
    }

    /// Waits until each status says that its generation is in effect on every node.
    async fn ready(&self, mut waited: Vec<(String, i64)>) -> Result<()> {
        let waiting = async {
            let mut events = std::pin::pin!(watcher(self.api.clone(), watcher::Config::default()));
            while !waited.is_empty() {
                let Some(event) = events.try_next().await? else { break };
                if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) = event {
                    let name = object.name_any();
                    waited.retain(|(waited, generation)| *waited != name || !self.everywhere(&object, *generation));
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(TIMEOUT, waiting).await.context("not in effect everywhere in time")?
    }

    fn everywhere(&self, object: &BpfProgram, generation: i64) -> bool {
        let Some(status) = &object.status else { return false };
        let ready = status.conditions.iter().any(|c| c.type_ == ConditionType::Ready && c.status == Status::True);
        let nodes = status.nodes.as_ref().map(|nodes| nodes.updated) == i64::try_from(self.nodes).ok();
        ready && nodes && status.observed_generation == Some(generation)
    }

    /// Starts the agents, waits until each has all its lists, and then until nothing is written.
    async fn run(&self, swarm: &mut Swarm) -> Result<()> {
        let lists = |told: &BTreeMap<String, u64>| {
            LISTED.map(|what| told.get(&format!("{what} list")).copied().unwrap_or_default())
        };
        let (before, start) = (lists(&swarm.tell("count")?.told), Instant::now());
        swarm.tell("run")?;
        while lists(&swarm.tell("count")?.told).iter().zip(before).any(|(now, before)| now - before < self.nodes as u64)
        {
            ensure!(start.elapsed() < TIMEOUT, "not all agents get their lists");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.quiet(swarm).await
    }

    /// Waits until nothing is written and no agent gets a watch event.
    async fn quiet(&self, swarm: &mut Swarm) -> Result<()> {
        let start = Instant::now();
        let mut last = (self.meter.read().await?, swarm.tell("count")?.told);
        loop {
            tokio::time::sleep(QUIET).await;
            let now = (self.meter.read().await?, swarm.tell("count")?.told);
            if now == last {
                return Ok(());
            }
            ensure!(start.elapsed() < TIMEOUT, "it never gets quiet: {:?}, {:?}", now.0 - last.0, now.1);
            last = now;
        }
    }

    /// Deletes all BpfPrograms, and returns the seconds until they were gone.
    async fn delete(&self) -> Result<f64> {
        let start = Instant::now();
        self.api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        while !self.api.list_metadata(&ListParams::default()).await?.items.is_empty() {
            ensure!(start.elapsed() < TIMEOUT, "not gone in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn manifest(name: &str, object: &[u8]) -> Result<Value> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let attach = json!([{"type": "Node"}]);
    Ok(json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name},
        "spec": {"bytecode": {"inline": STANDARD.encode(object)}, "attach": attach, "programs": [{"name": "my_prog"}]},
    }))
}
