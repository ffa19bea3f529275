//! Two operators and one Lease, on a real API server: who writes, how soon another one does, and that what the first
//! one sent too late changes nothing.
//!
//! Each operator is its binary, with a proxy of its own. Nothing else runs: nodes have no agents, only Ready pods.
//! KUBECONFIG names the API server; helm and kubectl are on PATH (tests/run.sh api).
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use rustix::process::Signal;
use serde_json::{from_value, json};
use sockeye_crds::{BpfProgram, BpfRevision};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    chart,
    identity::{RELEASE, admin},
    nodes,
    operator::Operator,
    proxy::Proxy,
};
use tempfile::TempDir;
use tokio::time::sleep;

const LEASE: &str = "sockeye-operator";
/// The time within which another operator has to write after the leader is killed.
const AFTER_KILL: Duration = Duration::from_secs(15);
/// The time within which another operator has to write after the leader is told to stop, at the fastest of a few times.
const AFTER_STOP: Duration = Duration::from_secs(2);
/// The time within which everything without a bound of its own has to happen.
const TIMEOUT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

/// One operator and its proxy.
struct Replica {
    name: &'static str,
    proxy: Proxy,
    operator: Option<Operator>,
    /// The number of processes so far.
    lives: usize,
    work: PathBuf,
}

impl Replica {
    async fn new(name: &'static str, work: &Path) -> Result<Self> {
        let work = work.join(name);
        std::fs::create_dir(&work)?;
        Ok(Self { name, proxy: Proxy::start().await?, operator: None, lives: 0, work })
    }

    /// Starts the operator in a pod of its own.
    async fn start(&mut self, client: &Client) -> Result<()> {
        let binary = std::env::current_exe()?.ancestors().nth(2).context("no directory")?.join("sockeye-operator");
        ensure!(binary.exists(), "no {}: cargo build -p sockeye-operator", binary.display());
        self.lives += 1;
        let (url, uid) = (self.proxy.url(), self.lives.to_string());
        let operator = Operator::start_in(client, &binary, Some(&url), &self.work, (self.name, &uid)).await?;
        self.operator = Some(operator);
        Ok(())
    }

    /// Tells the operator to stop, and waits until it has.
    async fn stop(&mut self) -> Result<()> {
        let operator = self.operator.take().context("it does not run")?;
        tokio::task::spawn_blocking(|| operator.stop()).await?
    }

    fn kill(&mut self) {
        self.operator = None;
    }

    /// Waits until the operator has ended by itself, and fails unless it said that it lost the Lease.
    async fn lost(&mut self) -> Result<()> {
        let (start, operator) = (Instant::now(), self.operator.as_mut().context("it does not run")?);
        let status = loop {
            if let Some(status) = operator.ended()? {
                break status;
            }
            ensure!(start.elapsed() < TIMEOUT, "it still runs:\n{}", self.log());
            sleep(TICK).await;
        };
        self.operator = None;
        ensure!(status.code() == Some(1), "it ended with {status}");
        ensure!(self.log().contains("lost the Lease"), "{}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.work.join("operator.log")).unwrap_or_default()
    }
}

/// Two operators, of which the first leads.
struct World {
    admin: Client,
    leader: Replica,
    other: Replica,
    priority: i64,
    _work: TempDir,
}

impl World {
    /// Starts both operators on an API server without a Lease. The first leads, and both have listed everything.
    async fn new() -> Result<Self> {
        chart::install()?;
        let (admin, work) = (admin().await?, tempfile::tempdir()?);
        nodes::delete_all(&admin).await?;
        let leases = Api::<Lease>::namespaced(admin.clone(), RELEASE);
        let _ = leases.delete(LEASE, &DeleteParams::default()).await;
        let (leader, other) = (Replica::new("a", work.path()).await?, Replica::new("b", work.path()).await?);
        let mut world = Self { admin, leader, other, priority: 0, _work: work };
        world.leader.start(&world.admin).await?;
        world.led_by(world.leader.name).await?;
        world.start_other().await?;
        Ok(world)
    }

    /// Starts the operator that does not lead, and waits until it is ready to.
    async fn start_other(&mut self) -> Result<()> {
        let before = self.other.log().matches("waiting to lead").count();
        self.other.start(&self.admin).await?;
        let start = Instant::now();
        while self.other.log().matches("waiting to lead").count() == before {
            ensure!(start.elapsed() < TIMEOUT, "it is not ready to lead:\n{}", self.other.log());
            sleep(TICK).await;
        }
        // It reads the Lease now.
        sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    async fn lease(&self) -> Result<Lease> {
        Ok(Api::namespaced(self.admin.clone(), RELEASE).get(LEASE).await?)
    }

    async fn holder(&self) -> Result<String> {
        let holder = self.lease().await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        Ok(holder.split('_').next().unwrap_or_default().to_owned())
    }

    async fn led_by(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        while !self.holder().await.is_ok_and(|holder| holder == name) {
            ensure!(start.elapsed() < TIMEOUT, "{name} does not lead:\n{}\n{}", self.leader.log(), self.other.log());
            sleep(TICK).await;
        }
        Ok(())
    }

    fn programs(&self) -> Api<BpfProgram> {
        Api::all(self.admin.clone())
    }

    /// Edits a BpfProgram, and returns its generation. Its bytes stay the same, so an edit is one revision.
    async fn edit(&mut self, name: &str) -> Result<i64> {
        self.priority += 1;
        let program = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name}, "spec": {
                "bytecode": {"inline": STANDARD.encode(TCP_EVENTS_BTF)}, "priority": self.priority,
                "attach": [{"type": "Node"}], "programs": [{"name": "my_prog"}]},
        });
        let written = self.programs().patch(name, &PatchParams::apply("user").force(), &Patch::Apply(program)).await?;
        written.metadata.generation.context("no generation")
    }

    /// Waits until an operator has dispatched that generation, and said so.
    async fn observed(&self, name: &str, generation: i64) -> Result<()> {
        self.wait(name, |program| {
            let status = program.and_then(|program| program.status.as_ref());
            let current = status.and_then(|status| status.current_revision.as_ref());
            current.is_some_and(|current| current.program_generation == generation)
        })
        .await
    }

    async fn wait(&self, name: &str, holds: impl Fn(Option<&BpfProgram>) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let program = self.programs().get_opt(name).await?;
            if holds(program.as_ref()) {
                return Ok(());
            }
            let (a, b) = (&self.leader, &self.other);
            ensure!(start.elapsed() < TIMEOUT, "{name}: {program:#?}\na:\n{}\nb:\n{}", a.log(), b.log());
            sleep(TICK).await;
        }
    }

    /// Returns the version of every object that operators write, but for the Lease.
    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let (all, client) = (ListParams::default(), &self.admin);
        let programs = self.programs().list(&all).await?.items;
        let revisions = Api::<BpfRevision>::all(client.clone()).list(&all).await?.items;
        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), RELEASE).list(&all).await?.items;
        let metas = programs.into_iter().map(|program| program.metadata);
        let metas = metas.chain(revisions.into_iter().map(|revision| revision.metadata));
        let metas = metas.chain(config_maps.into_iter().map(|config_map| config_map.metadata));
        let version =
            |meta: ObjectMeta| (format!("{:?} {:?}", meta.name, meta.uid), meta.resource_version.unwrap_or_default());
        Ok(metas.map(version).collect())
    }

    fn swap(&mut self) {
        std::mem::swap(&mut self.leader, &mut self.other);
    }

    /// Deletes all BpfPrograms, and stops both operators.
    async fn end(mut self) -> Result<()> {
        self.programs().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let start = Instant::now();
        while !self.programs().list(&ListParams::default()).await?.items.is_empty() {
            ensure!(start.elapsed() < TIMEOUT, "the BpfPrograms do not go:\n{}", self.leader.log());
            sleep(TICK).await;
        }
        for replica in [&mut self.other, &mut self.leader] {
            if replica.operator.is_some() {
                replica.stop().await?;
            }
        }
        nodes::delete_all(&self.admin).await
    }
}

/// Fails unless the fastest of a few times is that of an orderly stop, and none is as long as after another end.
fn all_orderly(what: &str, times: &[Duration]) -> Result<()> {
    println!("{what} {times:.1?}");
    let (shortest, longest) = (times.iter().min().context("none")?, times.iter().max().context("none")?);
    ensure!(*shortest < AFTER_STOP && *longest < Duration::from_secs(7), "{what} {times:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_writes_within_fifteen_seconds_of_a_kill() -> Result<()> {
    let mut world = World::new().await?;
    let generation = world.edit("led").await?;
    world.observed("led", generation).await?;
    for _ in 0..2 {
        ensure!(world.other.proxy.traffic().writes_but_of("").count() == 0, "the other one has written");
        let killed = Instant::now();
        world.leader.kill();
        let generation = world.edit("led").await?;
        world.observed("led", generation).await?;
        println!("killed; another dispatched an edit after {:.1?}", killed.elapsed());
        ensure!(killed.elapsed() < AFTER_KILL, "only after {:?}", killed.elapsed());
        world.swap();
        world.other.proxy = Proxy::start().await?;
        world.start_other().await?;
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_writes_within_two_seconds_of_an_orderly_stop() -> Result<()> {
    let (mut world, mut times) = (World::new().await?, Vec::new());
    for _ in 0..3 {
        let told = Instant::now();
        world.leader.stop().await?;
        let generation = world.edit("led").await?;
        world.observed("led", generation).await?;
        times.push(told.elapsed());
        world.swap();
        world.start_other().await?;
    }
    all_orderly("told to stop; another dispatched an edit after", &times)?;
    // A single one starts as soon.
    world.other.stop().await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        world.leader.stop().await?;
        ensure!(world.holder().await?.is_empty(), "the Lease is held");
        let generation = world.edit("led").await?;
        let started = Instant::now();
        world.leader.start(&world.admin).await?;
        world.observed("led", generation).await?;
        times.push(started.elapsed());
    }
    all_orderly("started alone; it dispatched an edit after", &times)?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_writes_of_a_leader_that_was_cut_off_change_nothing() -> Result<()> {
    let mut world = World::new().await?;
    for name in ["edited", "counted", "deleted"] {
        let generation = world.edit(name).await?;
        world.observed(name, generation).await?;
    }
    // Counts wait for the interval after the status before.
    sleep(Duration::from_secs(2)).await;
    let cut_off = Instant::now();
    world.leader.proxy.hold_writes();
    let generation = world.edit("edited").await?;
    world.programs().delete("deleted", &DeleteParams::default()).await?;
    nodes::create_one(&world.admin, "led-1".to_owned()).await?;
    world.observed("edited", generation).await?;
    println!("cut off; another dispatched an edit after {:.1?}", cut_off.elapsed());
    ensure!(cut_off.elapsed() < AFTER_KILL, "only after {:?}", cut_off.elapsed());
    world.wait("deleted", |program| program.is_none()).await?;
    let nodes = |program: &BpfProgram| program.status.as_ref().and_then(|status| status.nodes.clone());
    world.wait("counted", |program| program.and_then(nodes).is_some_and(|nodes| nodes.desired == 1)).await?;
    world.leader.lost().await?;

    sleep(Duration::from_secs(2)).await;
    let before = world.versions().await?;
    let mut late = BTreeMap::<String, Vec<u16>>::new();
    for (request, answer) in world.leader.proxy.release_writes().await? {
        late.entry(format!("{} {}", request.verb, request.resource)).or_default().push(answer.as_u16());
    }
    println!("late writes, and the API server's answers: {late:?}");
    for expected in ["create bpfrevisions", "patch bpfprograms/status", "delete bpfrevisions", "update leases"] {
        let answers = late.get(expected).with_context(|| format!("no late {expected}: {late:?}"))?;
        ensure!(answers.iter().all(|code| matches!(code, 404 | 409 | 422)), "{expected}: {answers:?}");
    }
    ensure!(world.versions().await? == before, "a late write changed {before:#?} to {:#?}", world.versions().await?);
    ensure!(world.holder().await? == world.other.name, "the Lease changed hands");
    world.swap();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_suspended_writes_nothing_more_and_ends() -> Result<()> {
    let mut world = World::new().await?;
    let generation = world.edit("led").await?;
    world.observed("led", generation).await?;
    world.leader.operator.as_ref().context("it does not run")?.signal(Signal::STOP)?;
    let generation = world.edit("led").await?;
    world.observed("led", generation).await?;
    // There is something to write for a process that still believes to lead.
    nodes::create_one(&world.admin, "led-1".to_owned()).await?;
    let resumed = Instant::now();
    world.leader.operator.as_ref().context("it does not run")?.signal(Signal::CONT)?;
    world.leader.lost().await?;
    let traffic = world.leader.proxy.traffic().during(resumed, TIMEOUT);
    ensure!(traffic.writes_but_of("leases").count() == 0, "it wrote: {traffic}");
    world.swap();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_idle_operators_renew_the_lease_and_write_nothing_else() -> Result<()> {
    let mut world = World::new().await?;
    let generation = world.edit("led").await?;
    world.observed("led", generation).await?;
    sleep(Duration::from_secs(3)).await;
    let (start, length) = (Instant::now(), Duration::from_secs(20));
    sleep(length).await;
    let [leader, other] = [&world.leader, &world.other].map(|it| it.proxy.traffic().during(start, length));
    println!("in {length:?}, the leader: {leader}; the other: {other}");
    ensure!(leader.writes_but_of("leases").count() == 0 && other.writes_but_of("").count() == 0, "{leader}; {other}");
    let renewals = leader.of("leases").writes_but_of("").count();
    ensure!((8..=11).contains(&renewals), "{renewals} renewals in {length:?}");
    ensure!(leader.count() <= renewals + 1 && other.count() <= 1, "more requests: {leader}; {other}");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_lease_stays_its_holders() -> Result<()> {
    let world = World::new().await?;
    let leases = Api::<Lease>::namespaced(world.admin.clone(), RELEASE);
    let (mut old, mut times) = (world.lease().await?, Vec::new());
    for _ in 0..3 {
        leases.delete(LEASE, &DeleteParams::default()).await?;
        let deleted = Instant::now();
        world.led_by(world.leader.name).await?;
        times.push(deleted.elapsed());
        let new = world.lease().await?;
        ensure!(new.uid() != old.uid(), "it is the same Lease");
        let replaced = leases.replace(LEASE, &PostParams::default(), &old).await;
        ensure!(replaced.is_err(), "a write that is based on the deleted Lease succeeds");
        old = new;
    }
    all_orderly("deleted; created again after", &times)?;
    sleep(Duration::from_secs(12)).await;
    ensure!(world.holder().await? == world.leader.name, "the Lease changed hands");
    world.end().await
}

/// A candidate writes the version that it has seen, whoever deleted that meanwhile.
#[tokio::test]
async fn a_write_that_is_based_on_a_deleted_lease_creates_none() -> Result<()> {
    chart::install()?;
    let leases = Api::<Lease>::namespaced(admin().await?, RELEASE);
    let lease: Lease = from_value(json!({"metadata": {"name": "deleted"}, "spec": {"holderIdentity": "a"}}))?;
    let created = leases.create(&PostParams::default(), &lease).await?;
    leases.delete("deleted", &DeleteParams::default()).await?;
    let replaced = leases.replace("deleted", &PostParams::default(), &created).await;
    ensure!(matches!(&replaced, Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409)), "{replaced:?}");
    ensure!(leases.get_opt("deleted").await?.is_none(), "it was created");
    Ok(())
}
