//! Drive: when an agent takes its next pass: when something changed, when an attempt is due again, when a glance shows that
//! something was undone, and from time to time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Config};
use sockeye_client::Readiness;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    agent::{Agent, Bytes, Wants},
    fetch::{cluster::Cluster, folder::Folder},
    gate::Gate,
    host::Host,
    layout::Verdict,
    probation::Probation,
    watch::{Stirred, Watch},
};

/// Everything is looked at again so often, whether or not anything was said to have changed.
const SWEEP: Duration = Duration::from_secs(300);
/// The same where inotify does not tell of all pins.
const SWEEP_BLIND: Duration = Duration::from_secs(4);
/// What is attached is queried so often.
const GLANCE: Duration = Duration::from_secs(2);

/// When passes are taken, and what belongs to each.
struct Turns {
    watch: Watch,
    /// The bpffs that it watches, by its device.
    bpffs: Option<u64>,
    /// Of the cgroups in which pods come and go.
    pods: Watch,
    next_sweep: Instant,
    next_glance: Instant,
    /// Whether something happened that a pass is to look at.
    due: bool,
}

impl Turns {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            watch: Watch::new(),
            bpffs: None,
            pods: Watch::of_cgroups(),
            next_sweep: now,
            next_glance: now,
            due: true,
        }
    }

    /// Whether a pass is to be taken.
    fn is_due<H: Host>(&mut self, agent: &mut Agent<H>) -> bool {
        let now = Instant::now();
        if self.next_glance <= now {
            self.next_glance = now + GLANCE;
            self.due |= agent.glance();
        }
        self.due || self.next_sweep <= now || agent.next_retry().is_some_and(|retry| retry <= now)
    }

    /// Takes one.
    async fn pass<H: Host>(&mut self, agent: &mut Agent<H>, wants: &Wants, bytes: &impl Bytes) {
        let now = Instant::now();
        let sweep = self.next_sweep <= now;
        if sweep {
            self.next_sweep = now + if self.watch.is_blind() || self.pods.is_blind() { SWEEP_BLIND } else { SWEEP };
        }
        self.cover_pods(agent, wants);
        agent.pass(wants, bytes, sweep).await;
        // A pod that came meanwhile has a directory of its own that is to be watched, and looked into after that.
        self.due = self.cover_pods(agent, wants);
        let observed = agent.observed();
        // What is reported is what runs now; and others that attach beside it from here on are news.
        self.due |= !observed.is_empty() && agent.glance();
        // One that is mounted over another, or in its place while others still hold it, has the same paths.
        if self.bpffs != agent.bpffs() {
            (self.watch, self.bpffs) = (Watch::new(), agent.bpffs());
        }
        self.watch.cover(agent.directories(observed));
    }

    /// Watches the cgroups in which pods come and go, as far as anything is wanted of pods; says whether there are new ones.
    fn cover_pods<H: Host>(&mut self, agent: &Agent<H>, wants: &Wants) -> bool {
        self.pods.cover(agent.pod_directories(wants).into_iter().map(|directory| (directory, String::new())))
    }

    /// When there is something to do at the latest.
    fn wake<H: Host>(&self, agent: &Agent<H>) -> Instant {
        let wake = self.next_sweep.min(self.next_glance);
        let wake = agent.next_retry().map_or(wake, |retry| wake.min(retry));
        if self.due { Instant::now() } else { wake }
    }

    fn stirred<H: Host>(&mut self, agent: &mut Agent<H>, stirred: Stirred) {
        match stirred {
            Stirred::Homes(homes) => agent.stir(Some(&homes)),
            Stirred::Anything => agent.stir(None),
        }
        self.due = true;
    }
}

/// Runs what the Kubernetes API has for the node, and answers what waits at the gate. Ready once its lists are complete and its report is written. `config` makes
/// connections of their own, which tell whether the API server can still be reached.
pub async fn cluster<H: Host>(
    agent: Agent<H>,
    client: Client,
    config: Option<Config>,
    node_name: &str,
    namespace: &str,
    ready: Readiness,
    gate: Gate,
) -> Result<()> {
    let mut watches = JoinSet::new();
    let cluster = Cluster::watch(client, config, node_name, namespace, ready, &mut watches);
    tokio::select! {
        ended = follow(agent, cluster, gate) => ended,
        Some(ended) = watches.join_next() => match ended?? {},
    }
}

async fn follow<H: Host>(mut agent: Agent<H>, mut cluster: Cluster, mut gate: Gate) -> Result<()> {
    let mut probation = Probation::default();
    tokio::select! {
        ready = cluster.ready() => ready?,
        () = gate.hold() => {}
        () = hold(&mut agent, &cluster, &mut probation) => {}
    }
    gate.tell(&mut agent);
    let mut turns = Turns::new();
    loop {
        let mut wake = None;
        if turns.is_due(&mut agent) {
            match cluster.wants() {
                Some(wants) => {
                    turns.pass(&mut agent, &wants, &cluster).await;
                    gate.answer(&agent, &wants);
                    cluster.tell(agent.report(), &agent.awaiting());
                }
                // That the Node is there again is told.
                None => {
                    halt(&mut agent, &cluster);
                    wake = Some(Instant::now() + GLANCE);
                }
            }
        }
        turns.due |= probe(&mut agent, &cluster, &mut probation).await;
        let wake = wake.unwrap_or_else(|| turns.wake(&agent));
        let wake = probation.next().map_or(wake, |next| wake.min(next));
        tokio::select! {
            () = cluster.changed() => turns.due = true,
            asked = gate.asked() => {
                gate.take(asked, &mut agent);
                turns.due = true;
            }
            stirred = turns.watch.stirred() => turns.stirred(&mut agent, stirred),
            _ = turns.pods.stirred() => turns.due = true,
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// Follows what an agent before this one has left on trial, and the switch, for as long as it is not known what is wanted: where
/// a program keeps the node from the API server, that is never known.
async fn hold<H: Host>(agent: &mut Agent<H>, cluster: &Cluster, probation: &mut Probation) {
    loop {
        halt(agent, cluster);
        let looked = agent.look_at_trials();
        if let Err(error) = &looked {
            tracing::debug!(%error, "what is on trial can't be told");
        }
        probe(agent, cluster, probation).await;
        let again = match (probation.next(), looked) {
            (Some(next), _) => next,
            (None, Err(_)) => Instant::now() + GLANCE,
            (None, Ok(())) => Instant::now() + SWEEP,
        };
        tokio::select! {
            () = cluster.changed() => {}
            () = sleep_until(again.into()) => {}
        }
    }
}

/// Where the switch is thrown and a pass can't be taken, detaches all the same.
fn halt<H: Host>(agent: &mut Agent<H>, cluster: &Cluster) {
    if cluster.suspended().is_some()
        && let Err(error) = agent.detach_all()
    {
        tracing::error!(%error, "nothing is to be attached here, and what is can't be told");
    }
}

/// Probes the API server, where that is due, and does what follows from it; tells whether anything did.
async fn probe<H: Host>(agent: &mut Agent<H>, cluster: &Cluster, probation: &mut Probation) -> bool {
    probation.follow(agent.undecided(), Instant::now());
    if probation.next().is_none_or(|next| next > Instant::now()) {
        return false;
    }
    let reached = cluster.is_reachable().await;
    let verdicts = probation.probed(reached, Instant::now());
    for (program, verdict) in &verdicts {
        say(program, *verdict, reached);
    }
    agent.judge(&verdicts);
    probation.follow(agent.undecided(), Instant::now());
    !verdicts.is_empty()
}

fn say(program: &str, verdict: Verdict, reached: bool) {
    match verdict {
        Verdict::Suspected | Verdict::Reverted if !reached => {
            tracing::error!(program, "the API server can't be reached since this was attached: taking it back");
        }
        Verdict::Reverted => tracing::warn!(program, "the API server is reached again: this had cut the node off"),
        Verdict::Reprieved => {
            tracing::warn!(program, "the API server is reached again, and late: this is attached once more, on trial");
        }
        Verdict::Open | Verdict::Suspected | Verdict::Reopened | Verdict::Passed => {}
    }
}

/// Runs the manifests of a folder, and prints the table of them whenever it says something else. Once: takes one pass, and
/// fails where anything is not as the manifests say.
pub async fn folder<H: Host>(mut agent: Agent<H>, mut folder: Folder, once: bool) -> Result<()> {
    agent.set_unasked(Some("an agent without a cluster does not hook into the container runtime".to_owned()));
    let mut turns = Turns::new();
    let mut manifests = Watch::new();
    manifests.cover(folder.directories().map(|directory| (directory.to_owned(), String::new())));
    loop {
        turns.due |= folder.scan()?;
        if turns.is_due(&mut agent) {
            turns.pass(&mut agent, &folder.wants(), &folder).await;
            if let Some(table) = folder.write(&agent.report(), Timestamp::now())? {
                print!("{table}");
            }
        }
        if once {
            let unready = folder.unready();
            ensure!(unready.is_empty(), "not as its manifest says: {}", unready.join(", "));
            return Ok(());
        }
        let wake = turns.wake(&agent);
        tokio::select! {
            _ = manifests.stirred() => {}
            stirred = turns.watch.stirred() => turns.stirred(&mut agent, stirred),
            _ = turns.pods.stirred() => turns.due = true,
            () = sleep_until(wake.into()) => {}
        }
    }
}
