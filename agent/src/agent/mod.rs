//! `Agent`: brings one node to what is wanted, one BpfProgram after the other: observe, plan, execute, observe again.
//!
//! Level-triggered and without a state of its own to lose: all that it knows of the node comes from bpffs and the kernel.
//! What it keeps between passes is only what has been tried, and when to try again.
//!
//! | file | what |
//! |---|---|
//! | this one | a pass |
//! | `wants` | what a node is told to run |
//! | `work` | what a pass has to do |
//! | `attempt` | one BpfProgram: observe, plan, execute, observe again |
//! | `others` | what of other BpfPrograms one depends on |
//! | `halt` | what is to be attached nowhere |
//! | `starts` | what waits with its start for what is to be attached to it |

mod attempt;
mod halt;
mod others;
mod starts;
mod wants;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_crds::{BpfNodeStatus, names, node::NodeFacts};
use tokio::task::block_in_place;

use crate::{
    beside::Beside,
    execute::Executed,
    failure::Failure,
    host::{Host, Kernel, Order},
    kernel::{
        SysError,
        cgroup::{Root, RootError},
        facts::{self, Machine},
        load::KernelBtf,
        probe::Probe,
    },
    layout::Layout,
    observe::{Bpffs, ObserveError},
    plan,
    pods::{self, Needs, Pods},
    policy::Policy,
    report::report,
    track::Track,
    wanted::{Here, Wanted},
};
use attempt::Look;
pub use halt::Detached;
pub use starts::NotYet;
pub use wants::{Bytes, Missing, Wants};
use work::{Census, Work};

/// What others leave to do is done at once; so often in one pass.
const ROUNDS: usize = 4;
/// While a pass lasts it is asked so often whether nothing is to be attached any more.
const HALT_ASKED: Duration = Duration::from_millis(100);

/// Where things are on this node.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where bpffs is mounted for this process.
    pub bpffs: PathBuf,
    /// Where the host has it: pin paths are reported so.
    pub host_bpffs: PathBuf,
    /// The node's cgroup root; found where absent.
    pub cgroup_root: Option<PathBuf>,
    /// The kubelet's own root, as a path below the node's cgroup root: pods' cgroups are below it.
    pub kubelet_root: String,
    /// Whether there is an API server that the agent must be able to reach.
    pub has_api: bool,
}

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no cgroup root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The kernel refused.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// One node's agent.
pub struct Agent<H> {
    host: H,
    layout: Layout,
    policy: Policy,
    facts: NodeFacts,
    tracks: BTreeMap<String, Track>,
    /// The bpffs that was there at the last look, if it found one.
    bpffs: Option<Option<u64>>,
    /// Why nothing is to be attached here, where someone has said so.
    suspended: Option<String>,
    /// Whether that was said on this node.
    marked: bool,
    beside: Beside,
    /// Whether BpfPrograms stand in any order but that of their attachment, as of the last look.
    ordered: bool,
    /// Whether a map of any is to be another's, as of then.
    sharing: bool,
    /// The pods as they were at the last look, and whether they were others before.
    pods: Pods,
    pods_moved: bool,
    /// The cgroup that held all pods at the last look, as far as any target asked for it.
    pods_root: String,
    /// Pods that the container runtime told of, by UID, as long as they have a cgroup.
    told: BTreeMap<String, pods::Pod>,
    /// Why the container runtime starts containers without asking, where it does.
    unasked: Option<String>,
    /// What was observed since [`Agent::observed`] was asked last.
    observed: BTreeSet<String>,
}

impl Agent<Kernel> {
    /// The agent of this very node. Looks around; changes nothing.
    pub fn start(places: Places, policy: Policy) -> Result<Self, StartError> {
        let Places { bpffs, host_bpffs, cgroup_root, kubelet_root, has_api } = places;
        let root = Root::find(cgroup_root.as_deref())?;
        let Probe { has, lacks, lacking } = Probe::ask();
        let facts = facts::read(root.mode, &has)?;
        let layout = Layout::new(&bpffs, &host_bpffs);
        tracing::info!(cgroup_root = %root.path.display(), pins = %layout.directory().display(), "started");
        tracing::info!(kernel = facts.kernel_release, ?lacks, "asked the kernel what it has");
        let host = Kernel::new(layout.clone(), root, kubelet_root, Machine::read()?, lacking, has_api);
        Ok(Self::new(host, layout, policy, facts))
    }
}

impl<H: Host> Agent<H> {
    /// An agent of some node.
    pub fn new(host: H, layout: Layout, policy: Policy, facts: NodeFacts) -> Self {
        Self {
            host,
            layout,
            policy,
            facts,
            tracks: BTreeMap::new(),
            bpffs: None,
            suspended: None,
            marked: false,
            beside: Beside::default(),
            ordered: false,
            sharing: false,
            pods: Pods::default(),
            pods_moved: false,
            pods_root: String::new(),
            told: BTreeMap::new(),
            unasked: None,
            observed: BTreeSet::new(),
        }
    }

    /// One pass over the BpfPrograms that changed, to which something happened, whose time to try again has come, or, in a
    /// sweep, all.
    pub async fn pass(&mut self, wants: &Wants, bytes: &impl Bytes, sweep: bool) {
        let kernel_btf = KernelBtf::default();
        let census @ Census { needs, .. } = self.take(wants);
        // Without bpffs nothing can be told of what is there, and nothing kept: every attempt fails, and says so.
        let here = block_in_place(|| self.look(wants, census, sweep)).map_err(Failure::from);
        let Work { leave, mut due, look, go_on } = self.work(wants, needs, sweep);
        if let Ok(here) = &here {
            for (name, why) in leave {
                self.leave_alone(&name, why);
            }
            for name in look {
                self.refresh(&name);
            }
            for (name, look) in go_on {
                self.go_on(&name, wants, look, here, bytes, &kernel_btf).await;
            }
        }
        let (mut asked, mut halted) = (Instant::now(), false);
        for _ in 0..ROUNDS {
            for (name, look) in due {
                if asked.elapsed() >= HALT_ASKED {
                    (asked, halted) = (Instant::now(), self.is_halted(wants, bytes));
                }
                if halted {
                    self.track(&name).changed = true;
                    continue;
                }
                tracing::debug!(program = name, "attempt");
                let revision = wants.run.get(&name).map(Arc::as_ref);
                let outcome = match &here {
                    Ok(here) => self.attempt(&name, revision, look, here, bytes, &kernel_btf).await,
                    Err(failure) => Err(failure.clone()),
                };
                self.note(&name, outcome);
                if let Ok(here) = &here {
                    self.go_on(&name, wants, Look::Known, here, bytes, &kernel_btf).await;
                }
            }
            let stale = if here.is_ok() { block_in_place(|| self.stale()) } else { BTreeSet::new() };
            due = stale.into_iter().map(|name| (name, Look::Anew)).collect();
            if due.is_empty() {
                break;
            }
        }
        self.tracks.retain(|_, track| track.is_wanted() || !track.held.is_empty() || track.failure.is_some());
    }

    /// Whether someone has said since the pass began that nothing is to be attached here.
    fn is_halted(&self, wants: &Wants, bytes: &impl Bytes) -> bool {
        let marked = || block_in_place(|| self.host.bpffs()).is_ok_and(|bpffs| bpffs.suspended.is_some());
        self.suspended.is_none() && (bytes.is_halted(wants) || marked())
    }

    /// Looks whether bpffs is there, and the same as before; in a sweep for homes that nobody wants; whether anything is to be
    /// attached at all; and at what revisions are worked out with, pods among it.
    fn look(&mut self, wants: &Wants, census: Census, sweep: bool) -> Result<Here, ObserveError> {
        let Census { needs, differ, share, .. } = census;
        let bpffs = self.host.bpffs();
        let before = self.bpffs.replace(bpffs.as_ref().ok().map(|bpffs| bpffs.device));
        let Bpffs { device, suspended: mark } = bpffs?;
        let mounted_anew = before.is_some_and(|before| before != Some(device));
        if mounted_anew {
            tracing::warn!("bpffs was mounted anew: what was pinned is pinned again");
        }
        if sweep || mounted_anew {
            for name in self.host.homes()? {
                self.tracks.entry(name).or_default();
            }
        }
        self.marked = mark.is_some();
        let suspended = wants.suspended.clone().or_else(|| mark.map(|why| format!("detach --all on this node: {why}")));
        // Whoever threw the switch chose the words.
        let suspended = suspended.map(|why| names::line(&why, 512));
        let turned = suspended.is_some() != self.suspended.is_some();
        if turned {
            tracing::warn!(
                why = suspended,
                "{}",
                if suspended.is_some() { "everything is detached" } else { "attached again" }
            );
        }
        self.suspended = suspended;
        if turned || mounted_anew {
            self.tracks.values_mut().for_each(Track::forget_failures);
        }
        let mut here = self.host.here(needs)?;
        self.ordered = differ && !here.lacking.order;
        self.sharing = share;
        if needs.pods {
            let cgroups = self.host.pod_cgroups(needs.containers)?;
            self.told.retain(|uid, _| cgroups.contains_key(uid));
            here.pods = Pods {
                pods: pods::joined(&wants.pods.clone().unwrap_or_default(), &self.told),
                namespaces: wants.namespaces.clone().unwrap_or_default(),
                cgroups,
            };
        } else {
            self.told.clear();
        }
        self.pods_moved = here.pods != self.pods;
        self.pods = here.pods.clone();
        self.pods_root.clone_from(&here.pods_root);
        Ok(here)
    }

    /// The directories in which what is wanted has something come and go: pods' cgroups, and their containers'.
    pub fn pod_directories(&self, wants: &Wants) -> Vec<PathBuf> {
        let Needs { pods: true, containers, .. } = wants.needs() else { return Vec::new() };
        let found = block_in_place(|| self.host.pod_directories(containers));
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "pods are followed by sweeps alone");
            Vec::new()
        })
    }

    /// Says that something may have happened to BpfPrograms; to all, where none is named.
    pub fn stir(&mut self, names: Option<&BTreeSet<String>>) {
        for (name, track) in &mut self.tracks {
            track.stirred |= names.is_none_or(|names| names.contains(name));
        }
    }

    /// A look at what is attached, one query a cgroup and attach type: whatever of ours is no longer listed is looked at in
    /// the next pass, and whatever of others is new there is noted. Says whether there is anything new, or another bpffs, or
    /// someone has said that nothing is to be attached, or a cgroup has come that one waits for.
    pub fn glance(&mut self) -> bool {
        let Self { host, tracks, beside, bpffs, marked, .. } = self;
        block_in_place(|| {
            let now = host.bpffs();
            let elsewhere = Some(now.as_ref().ok().map(|now| now.device)) != *bpffs;
            let turned = now.is_ok_and(|now| now.suspended.is_some() != *marked);
            let mut has_come = false;
            for track in tracks.values_mut().filter(|track| track.waits_for_cgroup()) {
                let all =
                    |wanted: &Wanted| host.cgroups(wanted).is_ok_and(|there| plan::missing(wanted, &there).is_none());
                if track.wanted.as_deref().is_some_and(all) {
                    track.forget_failures();
                    has_come = true;
                }
            }
            beside.glance(host, tracks) || elsewhere || turned || has_come
        })
    }

    /// The device of the bpffs that was there at the last pass.
    pub fn bpffs(&self) -> Option<u64> {
        self.bpffs.flatten()
    }

    /// The BpfPrograms that were observed since the last call.
    pub fn observed(&mut self) -> BTreeSet<String> {
        mem::take(&mut self.observed)
    }

    /// The directories of what was observed, and whose they are.
    pub fn directories(&self, observed: BTreeSet<String>) -> Vec<(PathBuf, String)> {
        let of = |name: String| {
            let held = self.tracks.get(&name).map(|track| &track.held).filter(|held| !held.is_empty());
            let directories = held.map(|held| self.host.directories(&name, held)).unwrap_or_default();
            directories.into_iter().map(move |directory| (directory, name.clone()))
        };
        observed.into_iter().flat_map(of).collect()
    }

    /// When the next attempt is due, if any failed.
    pub fn next_retry(&self) -> Option<Instant> {
        self.tracks.values().filter_map(Track::retry_at).min()
    }

    /// The node's status.
    pub fn report(&self) -> BpfNodeStatus {
        report(&self.facts, &self.layout, &self.tracks, &self.beside, self.suspended.as_deref())
    }

    /// The BpfPrograms that only wait for bytes that are on their way.
    pub fn awaiting(&self) -> BTreeSet<&str> {
        let awaits = |track: &Track| track.failure.as_ref().is_some_and(|failure| failure.awaits);
        self.tracks.iter().filter(|(_, track)| awaits(track)).map(|(name, _)| name.as_str()).collect()
    }

    /// Executes a plan, and observes what there is then, whatever came of it.
    fn execute(&mut self, name: &str, order: &Order<'_>) -> Result<Executed, Failure> {
        let before = mem::take(&mut self.track(name).held);
        let (executed, held) = match self.host.execute(name, &before, order) {
            Ok((executed, held)) => (Ok(executed), Ok(held)),
            Err(failure) => (Err(failure), self.host.observe(name)),
        };
        let track = self.track(name);
        track.held = before;
        track.observe(held?);
        executed
    }

    /// The track of a BpfProgram that is about to be observed.
    fn track(&mut self, name: &str) -> &mut Track {
        if !self.observed.contains(name) {
            self.observed.insert(name.to_owned());
        }
        self.tracks.entry(name.to_owned()).or_default()
    }

    /// Looks at what is there, and changes nothing; but where nothing is to be attached, this is not either.
    fn leave_alone(&mut self, name: &str, why: String) {
        let held = block_in_place(|| self.host.observe(name));
        match held {
            Ok(held) => self.track(name).leave_alone(held, why),
            Err(error) => tracing::warn!(program = name, %error, "can't look at what it has"),
        }
        if let Err(failure) = self.detach_where_suspended(name) {
            tracing::warn!(program = name, %failure, "can't be detached");
        }
    }

    fn refresh(&mut self, name: &str) {
        match block_in_place(|| self.host.observe(name)) {
            Ok(held) => self.track(name).observe(held),
            Err(error) => tracing::warn!(program = name, %error, "can't look at what it has"),
        }
    }

    /// Notes what an attempt came to; says what is new in it.
    fn note(&mut self, name: &str, outcome: Result<(), Failure>) {
        let Some(track) = self.tracks.get_mut(name) else { return };
        match &outcome {
            Err(failure) if track.failure.as_ref() != Some(failure) => {
                tracing::warn!(program = name, revision = track.revision, %failure, "not in effect");
            }
            Ok(()) if track.failure.is_some() && track.is_wanted() => tracing::info!(program = name, "in effect again"),
            _ => {}
        }
        track.outcome(outcome, Instant::now());
    }
}
