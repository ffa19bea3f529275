//! Outages of the API server, and faults on the way to it: no reload, no detach, no request storm, and statuses that
//! are right again in time.
//!
//! Operator and real agent are their binaries, the other agents are the agent's own code on fake kernels. Each group
//! has its own proxy before a real API server, which injects faults and records requests. KUBECONFIG names the API
//! server; helm and kubectl are on PATH (tests/run.sh api). Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod load;
#[path = "../../../agent/tests/kernel/node/mod.rs"]
#[allow(dead_code)]
mod node;
mod world;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;
use serde_json::json;
use sockeye_crds::{Reason, node::State};
use sockeye_tests::{
    chart, cluster,
    identity::RELEASE,
    is_long,
    proxy::{Fault, Which},
    traffic::Traffic,
};
use tokio::time::sleep;
use world::{CHANGING, KEPT, NODE, World};

/// The time within which statuses have to be right once the API server is back, and in which requests are counted.
const RIGHT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// The requests of a client that starts. An agent lists and watches four kinds, fetches an object and writes its
/// report; it reads and writes its BpfNodeDetail too, for which there is no allowance. The operator lists and watches
/// six and its Lease, which it reads and takes, and makes nine requests for a BpfProgram that changed.
const AGENT_STARTS: usize = 4 + 4 + 1 + 1;
const OPERATOR_STARTS: usize = 6 + 6 + 4 + 9;

/// The duration of a fault.
const FAULT: Duration = Duration::from_secs(4);

/// The number of agents on fake kernels.
const OTHERS: usize = 30;

/// Returns how long the API server is stopped, in each round.
fn outages() -> impl Iterator<Item = Duration> {
    let seconds: &[u32] = if is_long() { &[20, 120, 600] } else { &[20] };
    seconds.iter().map(|seconds| SECOND * *seconds)
}

/// Returns the faults by name; the short form has the first four.
fn faults() -> impl Iterator<Item = (&'static str, Fault)> {
    let all = |code, retry_after| Fault::Answered(Which::All, code, retry_after);
    let faults = [
        ("429 with `Retry-After: 1`", all(StatusCode::TOO_MANY_REQUESTS, Some(1))),
        ("503", all(StatusCode::SERVICE_UNAVAILABLE, None)),
        ("409 to every write", Fault::Answered(Which::Writes, StatusCode::CONFLICT, None)),
        ("watches expired, said in the stream", Fault::Expired),
        ("410 to every watch", Fault::Answered(Which::Watches, StatusCode::GONE, None)),
        ("500", all(StatusCode::INTERNAL_SERVER_ERROR, None)),
        ("connections refused", Fault::Refused),
        ("no answer", Fault::Silent),
        ("writes taken, their answers lost", Fault::Lost),
        ("watches ended after 100 ms", Fault::Ended(SECOND / 10)),
        ("watches cut after 100 ms", Fault::Cut(SECOND / 10)),
        ("answers 1 s late", Fault::Slow(SECOND)),
    ];
    let count = if is_long() { faults.len() } else { 4 };
    faults.into_iter().take(count)
}

/// The requests during a fault and after it, and how soon statuses were right.
struct Outcome {
    right: Duration,
    lasted: Duration,
    during: [Traffic; 3],
    after: [Traffic; 3],
}

impl Outcome {
    fn of(world: &World, start: Instant, back: Instant, right: Duration) -> Self {
        let (during, after) = (world.proxies.during(start, back - start), world.proxies.during(back, RIGHT));
        Self { right, lasted: back - start, during, after }
    }

    fn print(&self, what: &str) {
        let Self { right, lasted, during, after } = self;
        println!(
            "| {what} | {:.0} s | {:.1} s |{}{}",
            lasted.as_secs_f64(),
            right.as_secs_f64(),
            row(during),
            row(after)
        );
    }

    /// Fails if statuses were late or a client made too many requests: within ten seconds after the fault as many as in
    /// two starts, during it as in three, since failed lists are repeated, and one a second. The operator also renews
    /// its Lease.
    fn judge(&self, what: &str) -> Result<()> {
        for (traffic, lasted, starts, a_second) in [(&self.during, self.lasted, 3, 1), (&self.after, RIGHT, 2, 0)] {
            let seconds = usize::try_from(lasted.as_secs())?;
            for (who, traffic, clients, once, renewals) in [
                ("the operator", &traffic[0], 1, OPERATOR_STARTS, seconds / 2),
                ("the agent", &traffic[1], 1, AGENT_STARTS, 0),
                ("an agent", &traffic[2], OTHERS, AGENT_STARTS, 0),
            ] {
                let most = starts * once + a_second * seconds + renewals;
                let asked = traffic.most_by_one().max(traffic.count() / clients);
                ensure!(asked <= most, "{what}: {who} asked {asked} times, not {most} at most: {traffic}");
            }
        }
        ensure!(self.right <= RIGHT, "{what}: right only after {:?}", self.right);
        Ok(())
    }
}

/// Prints the operator's requests, the most of one agent, and the most within one second of all agents.
fn row([operator, agent, swarm]: &[Traffic; 3]) -> String {
    let by_one = agent.most_by_one().max(swarm.most_by_one()).max(swarm.count().div_ceil(OTHERS));
    format!(" {} | {by_one} | {} of {} |", operator.count(), swarm.busiest_second(), swarm.count())
}

fn heading() {
    println!(
        "| fault | lasts | right after | operator's requests | an agent's, at most | swarm's busiest second \
         | operator's after | an agent's after, at most | swarm's busiest second after |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_right_within_ten_seconds_after_each_fault() -> Result<()> {
    let mut world = World::new(OTHERS).await?;
    let said = world.status_of_kept().await?;
    heading();
    for (what, fault) in faults() {
        let start = Instant::now();
        world.proxies.set(&fault);
        let generation = world.edit().await?;
        sleep(FAULT).await;
        world.proxies.set(&Fault::None);
        let back = Instant::now();
        world.ready(CHANGING, generation).await?;
        let right = back.elapsed();
        sleep(RIGHT.saturating_sub(right)).await;
        let outcome = Outcome::of(&world, start, back, right);
        outcome.print(what);
        outcome.judge(what)?;
        world.ensure_untouched()?;
    }
    ensure!(
        world.status_of_kept().await? == said,
        "the status of a BpfProgram that did not change was written: {said:#}"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_api_server_detaches_and_reloads_nothing() -> Result<()> {
    let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?);
    let home = kubeconfig.parent().context("no directory")?.display().to_string();
    let mut world = World::new(OTHERS).await?;
    let said = world.status_of_kept().await?;
    heading();
    for lasts in outages() {
        let start = Instant::now();
        cluster(&["api-stop", &home])?;
        world.drift().await?;
        world.ensure_untouched()?;
        world.restart_agent();
        sleep(lasts.saturating_sub(start.elapsed())).await;
        world.ensure_untouched()?;
        let starting = std::thread::spawn({
            let home = home.clone();
            move || cluster(&["api-start", &home])
        });
        world.answers().await?;
        let back = Instant::now();
        let generation = world.edit().await?;
        world.ready(CHANGING, generation).await?;
        world.reported().await?;
        let right = back.elapsed();
        starting.join().expect("a thread")?;
        sleep(RIGHT.saturating_sub(back.elapsed())).await;
        world.detailed().await?;
        let outcome = Outcome::of(&world, start, back, right);
        outcome.print("API server and etcd stopped");
        outcome.judge("API server and etcd stopped")?;
        world.ensure_untouched()?;
        ensure!(
            world.status_of_kept().await? == said,
            "the status of a BpfProgram that did not change was written: {said:#}"
        );
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_lists_and_a_missing_crd_remove_nothing() -> Result<()> {
    let mut world = World::new(0).await?;
    for (what, fault) in [
        ("403 to lists and watches", Fault::Answered(Which::Views, StatusCode::FORBIDDEN, None)),
        ("404 to BpfRevisions", Fault::Answered(Which::Resource("bpfrevisions"), StatusCode::NOT_FOUND, None)),
        ("404 to BpfNodes", Fault::Answered(Which::Resource("bpfnodes"), StatusCode::NOT_FOUND, None)),
        ("404 to BpfNodeDetails", Fault::Answered(Which::Resource("bpfnodedetails"), StatusCode::NOT_FOUND, None)),
        ("lists cut in the middle", Fault::Halved),
    ] {
        world.proxies.agent.set(fault.clone());
        world.proxies.operator.set(fault);
        sleep(SECOND).await;
        world.ensure_untouched()?;
        world.restart_agent();
        world.restart_operator().await?;
        sleep(SECOND).await;
        world.ensure_untouched()?;
        let generation = world.edit().await?;
        world.proxies.agent.set(Fault::None);
        world.proxies.operator.set(Fault::None);
        let back = Instant::now();
        world.ready(CHANGING, generation).await?;
        println!("{what}: right after {:.1?}", back.elapsed());
        ensure!(back.elapsed() < RIGHT, "{what}: right only after {:?}", back.elapsed());
        world.ensure_untouched()?;
    }
    chart::kubectl(&["delete", "crd", "bpfnodes.sockeye.dev", "bpfnodedetails.sockeye.dev"], "")?;
    sleep(SECOND).await;
    world.ensure_untouched()?;
    world.restart_agent();
    sleep(SECOND).await;
    world.ensure_untouched()?;
    chart::apply_crds()?;
    let back = Instant::now();
    world.reported().await?;
    println!("the definitions of BpfNodes and BpfNodeDetails deleted: right after {:.1?}", back.elapsed());
    ensure!(back.elapsed() < RIGHT, "right only after {:?}", back.elapsed());
    world.detailed().await?;
    world.ensure_untouched()?;
    world.end().await
}

/// Deleting a CRD deletes its objects: agents cannot tell that from a deletion by the operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_went_with_the_revisions_crd_return_with_it() -> Result<()> {
    let world = World::new(0).await?;
    chart::kubectl(&["delete", "crd", "bpfrevisions.sockeye.dev"], "")?;
    let gone = Instant::now();
    while [KEPT, CHANGING].iter().any(|name| !world.node.pins(name).is_empty()) {
        ensure!(gone.elapsed() < RIGHT, "the programs stay attached:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    chart::apply_crds()?;
    let back = Instant::now();
    while [KEPT, CHANGING].iter().any(|name| world.node.pins(name).len() != 3) {
        // The operator's backoff may just have grown.
        ensure!(back.elapsed() < RIGHT * 3, "the programs do not come back:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    println!("the BpfRevisions' definition deleted: attached again after {:.1?}", back.elapsed());
    world.reported().await?;
    world.take_down().await
}

/// An agent that is rolled back finds the status that a newer one wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_overwrites_the_status_of_a_newer_agent() -> Result<()> {
    let mut world = World::new(0).await?;
    world.node.stop("KILL");
    let newer = json!({"status": {"programs": {CHANGING: r#"{"uid": "u", "state": "AsNeverBefore"}"#}}}).to_string();
    // Only the node's agent may.
    let agent = format!("--as=system:serviceaccount:{RELEASE}:sockeye-agent");
    let on_node = format!("--as-user-extra=authentication.kubernetes.io/node-name={NODE}");
    let as_agent = [&*agent, &*on_node, "--as-group=system:masters"];
    let patch = ["patch", "bpfnode", NODE, "--subresource=status", "--type=merge", "-p", &newer];
    chart::kubectl(&[&as_agent[..], &patch].concat(), "")?;
    // The operator reads it as a failure: the node still holds the BpfProgram.
    let read = world.node_program().await?.context("the newer status has no entry")?;
    ensure!(read.state == State::Failed && read.reason == Some(Reason::Other), "{read:?}");
    world.start_agent();
    let back = Instant::now();
    while let Err(error) = world.reported().await {
        ensure!(back.elapsed() < RIGHT, "{error:#}:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    world.ensure_untouched()?;
    world.end().await
}
