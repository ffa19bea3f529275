//! The API server away, or the way to it bad: no reload, no detach, no storm, and statuses that are right again in time.
//!
//! The operator is its binary, the real node's agent is its binary on this machine's kernel, and the others are the agent's
//! own code; each group has a way of its own to a real API server, which can be told to misbehave and counts requests.
//! KUBECONFIG says where; helm and kubectl are on PATH (tests/run.sh api). Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod load;
#[path = "../../../agent/tests/kernel/node.rs"]
#[allow(dead_code)]
mod node;
mod world;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;
use sockeye_tests::{
    chart, cluster,
    proxy::{Fault, Which},
    traffic::Traffic,
};
use tokio::time::sleep;
use world::{CHANGING, KEPT, NODE, World};

/// Statuses are right so soon after the API server is back, and requests are counted for so long at most.
const RIGHT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// What one client asks when it starts: an agent lists and watches four kinds, fetches an object and writes its report; the
/// operator lists and watches six, and makes eight requests for a BpfProgram that changed.
const AGENT_STARTS: usize = 4 + 4 + 1 + 1;
const OPERATOR_STARTS: usize = 6 + 6 + 8;

/// A fault lasts so long.
const FAULT: Duration = Duration::from_secs(4);

/// As few agents as show how many would behave.
const OTHERS: usize = 30;

/// Whether this is the long form.
fn is_long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// How long the API server is stopped.
fn outages() -> impl Iterator<Item = Duration> {
    let seconds: &[u32] = if is_long() { &[20, 120, 600] } else { &[20] };
    seconds.iter().map(|seconds| SECOND * *seconds)
}

/// What the way to the API server meets; the short form has the first few.
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

/// What came to pass while something was wrong, and once it was not any more.
struct Passed {
    right: Duration,
    lasted: Duration,
    during: [Traffic; 3],
    after: [Traffic; 3],
}

impl Passed {
    fn note(world: &World, start: Instant, back: Instant, right: Duration) -> Self {
        let (during, after) = (world.ways.during(start, back - start), world.ways.during(back, RIGHT));
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

    /// In the first ten seconds after, no client may ask more than if it were started twice; while something is wrong, three
    /// times, for lists that lead to nothing are made again, and one thing a second more.
    fn judge(&self, what: &str) -> Result<()> {
        let seconds = usize::try_from(self.lasted.as_secs())?;
        for (traffic, starts, more) in [(&self.during, 3, seconds), (&self.after, 2, 0)] {
            for (who, traffic, clients, once) in [
                ("the operator", &traffic[0], 1, OPERATOR_STARTS),
                ("the agent", &traffic[1], 1, AGENT_STARTS),
                ("an agent", &traffic[2], OTHERS, AGENT_STARTS),
            ] {
                let most = starts * once + more;
                let asked = traffic.most_by_one().max(traffic.count() / clients);
                ensure!(asked <= most, "{what}: {who} asked {asked} times, not {most} at most: {traffic}");
            }
        }
        ensure!(self.right <= RIGHT, "{what}: right only after {:?}", self.right);
        Ok(())
    }
}

/// The operator's, the most by one agent, and the most in one second by all of the swarm.
fn row([operator, agent, swarm]: &[Traffic; 3]) -> String {
    let by_one = agent.most_by_one().max(swarm.most_by_one()).max(swarm.count().div_ceil(OTHERS));
    format!(" {} | {by_one} | {} of {} |", operator.count(), swarm.busiest_second(), swarm.count())
}

fn heading() {
    println!(
        "| fault | lasts | right after | operator's requests | an agent's, at most | swarm's busiest second \
         | operator's after | an agent's after, at most | swarm's busiest second after |\n|---|---|---|---|---|---|---|---|---|"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_sat_out() -> Result<()> {
    let mut world = World::new(OTHERS).await?;
    let said = world.said().await?;
    heading();
    for (what, fault) in faults() {
        let start = Instant::now();
        world.ways.set(&fault);
        let generation = world.edit().await?;
        sleep(FAULT).await;
        world.ways.set(&Fault::None);
        let back = Instant::now();
        world.ready(CHANGING, generation).await?;
        let right = back.elapsed();
        sleep(RIGHT.saturating_sub(right)).await;
        let passed = Passed::note(&world, start, back, right);
        passed.print(what);
        passed.judge(what)?;
        world.untouched()?;
    }
    ensure!(world.said().await? == said, "something was said of a program that nothing happened to: {said:#}");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_and_etcd_stopped() -> Result<()> {
    let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?);
    let home = kubeconfig.parent().context("no directory")?.display().to_string();
    let mut world = World::new(OTHERS).await?;
    let said = world.said().await?;
    heading();
    for lasts in outages() {
        let start = Instant::now();
        cluster(&["api-stop", &home])?;
        world.drift().await?;
        world.untouched()?;
        world.restart_agent();
        sleep(lasts.saturating_sub(start.elapsed())).await;
        world.untouched()?;
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
        let passed = Passed::note(&world, start, back, right);
        passed.print("API server and etcd stopped");
        passed.judge("API server and etcd stopped")?;
        world.untouched()?;
        ensure!(world.said().await? == said, "something was said of a program that nothing happened to: {said:#}");
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_on_a_guess() -> Result<()> {
    let mut world = World::new(0).await?;
    for (what, fault) in [
        ("403 to lists and watches", Fault::Answered(Which::Views, StatusCode::FORBIDDEN, None)),
        ("404 to BpfRevisions", Fault::Answered(Which::Resource("bpfrevisions"), StatusCode::NOT_FOUND, None)),
        ("404 to BpfNodes", Fault::Answered(Which::Resource("bpfnodes"), StatusCode::NOT_FOUND, None)),
        ("lists cut in the middle", Fault::Halved),
    ] {
        world.ways.agent.set(fault.clone());
        world.ways.operator.set(fault);
        sleep(SECOND).await;
        world.untouched()?;
        world.restart_agent();
        world.restart_operator().await?;
        sleep(SECOND).await;
        world.untouched()?;
        let generation = world.edit().await?;
        world.ways.agent.set(Fault::None);
        world.ways.operator.set(Fault::None);
        let back = Instant::now();
        world.ready(CHANGING, generation).await?;
        println!("{what}: right after {:.1?}", back.elapsed());
        ensure!(back.elapsed() < RIGHT, "{what}: right only after {:?}", back.elapsed());
        world.untouched()?;
    }
    chart::kubectl(&["delete", "crd", "bpfnodes.sockeye.dev"], "")?;
    sleep(SECOND).await;
    world.untouched()?;
    world.restart_agent();
    sleep(SECOND).await;
    world.untouched()?;
    chart::definitions()?;
    let back = Instant::now();
    world.reported().await?;
    println!("the BpfNodes' definition deleted: right after {:.1?}", back.elapsed());
    ensure!(back.elapsed() < RIGHT, "right only after {:?}", back.elapsed());
    world.untouched()?;
    world.end().await
}

/// Who deletes a definition deletes all that it defines: agents can't tell that from the operator's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_with_the_revisions_definition_comes_back_with_it() -> Result<()> {
    let world = World::new(0).await?;
    chart::kubectl(&["delete", "crd", "bpfrevisions.sockeye.dev"], "")?;
    let gone = Instant::now();
    while [KEPT, CHANGING].iter().any(|name| !world.node.pins(name).is_empty()) {
        ensure!(gone.elapsed() < RIGHT, "it stays attached:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    chart::definitions()?;
    let back = Instant::now();
    while [KEPT, CHANGING].iter().any(|name| world.node.pins(name).len() != 3) {
        // The operator may just have begun to wait for longer.
        ensure!(back.elapsed() < RIGHT * 3, "it does not come back:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    println!("the BpfRevisions' definition deleted: attached again after {:.1?}", back.elapsed());
    world.reported().await?;
    world.take_down().await
}

/// An agent that is rolled back finds its BpfNode as the newer one has left it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_in_words_of_a_newer_agent_is_written_anew() -> Result<()> {
    let mut world = World::new(0).await?;
    world.node.stop("KILL");
    let state =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/programs/items/properties/state/enum";
    let anything = format!(r#"[{{"op": "remove", "path": "{state}"}}]"#);
    chart::kubectl(&["patch", "crd", "bpfnodes.sockeye.dev", "--type=json", "-p", &anything], "")?;
    let newer = r#"[{"op": "replace", "path": "/status/programs/0/state", "value": "AsNeverBefore"}]"#;
    let say = || chart::kubectl(&["patch", "bpfnode", NODE, "--subresource=status", "--type=json", "-p", newer], "");
    let start = Instant::now();
    // The definition as it is now takes a moment.
    while say().is_err() {
        ensure!(start.elapsed() < RIGHT, "it can't be said");
        sleep(SECOND / 10).await;
    }
    ensure!(world.reported().await.is_err(), "it can be read");
    world.start_agent();
    let back = Instant::now();
    while let Err(error) = world.reported().await {
        ensure!(back.elapsed() < RIGHT, "{error:#}:\n{}", world.node.log());
        sleep(SECOND / 10).await;
    }
    chart::definitions()?;
    world.untouched()?;
    world.end().await
}
