//! `Agent`: brings one node to what is wanted, one BpfProgram after the other: observe, plan, execute, observe again.
//!
//! Level-triggered and without a state of its own to lose: all that it knows of the node comes from bpffs and the kernel.
//! What it keeps between passes is only what has been tried, and when to try again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use sockeye_crds::{BpfNodeStatus, BpfRevision, Reason, node::NodeFacts};
use tokio::task::block_in_place;

use crate::{
    beside::Beside,
    drift,
    execute::Executed,
    failure::Failure,
    held::Names,
    host::{Host, Kernel, Order},
    kernel::{
        SysError,
        cgroup::{Cgroup, Root, RootError},
        facts::{self, Machine},
        load::KernelBtf,
    },
    layout::{Layout, Trial, Verdict},
    observe::ObserveError,
    plan::{self, Step, plan},
    policy::Policy,
    report::report,
    track::Track,
    wanted::{Here, Wanted},
};

/// A plan that something came in between of, as the death of a cgroup, is made anew at once; so often in all.
const ROUNDS: usize = 2;

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

/// Gives the bytes of an object.
pub trait Bytes {
    /// The bytes of that digest, checked against it, or why there are none.
    fn get(&self, digest: &str) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
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

/// What a node is told to run.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// The revision to run, by BpfProgram.
    pub run: BTreeMap<String, Arc<BpfRevision>>,
    /// BpfPrograms that are to keep what they have, and why: what is wanted of them can't be told.
    pub keep: BTreeMap<String, String>,
    /// Whether a BpfProgram that is not named is to have nothing here. Otherwise it keeps what it has.
    pub complete: bool,
    /// Why nothing at all is to be attached, where someone has said so for the whole cluster.
    pub suspended: Option<String>,
}

impl Wants {
    /// Why a BpfProgram is to be left as it is, where it is.
    fn leave_alone(&self, name: &str, revision: Option<&BpfRevision>) -> Option<String> {
        match self.keep.get(name) {
            Some(why) => Some(why.clone()),
            None if self.complete || revision.is_some() => None,
            None => Some("not everything that is wanted here could be read".to_owned()),
        }
    }
}

/// What one pass has to do.
#[derive(Default)]
struct Work {
    /// What is to be left as it is, and why.
    leave: Vec<(String, String)>,
    /// What changed, or has to be looked at again.
    due: Vec<String>,
    /// What something happened to while its next attempt is not due: its report must stay true.
    look: Vec<String>,
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
    /// What was observed since [`Agent::directories`] was asked last.
    observed: BTreeSet<String>,
}

impl Agent<Kernel> {
    /// The agent of this very node. Looks around; changes nothing.
    pub fn start(places: Places, policy: Policy) -> Result<Self, StartError> {
        let Places { bpffs, host_bpffs, cgroup_root, kubelet_root, has_api } = places;
        let root = Root::find(cgroup_root.as_deref())?;
        let facts = facts::read(root.mode)?;
        let layout = Layout::new(&bpffs, &host_bpffs);
        tracing::info!(cgroup_root = %root.path.display(), pins = %layout.directory().display(), "started");
        let host = Kernel::new(layout.clone(), root, kubelet_root, Machine::read()?, has_api);
        Ok(Self::new(host, layout, policy, facts))
    }
}

impl<H: Host> Agent<H> {
    /// An agent of some node.
    pub fn new(host: H, layout: Layout, policy: Policy, facts: NodeFacts) -> Self {
        let (tracks, beside, observed) = (BTreeMap::new(), Beside::default(), BTreeSet::new());
        Self { host, layout, policy, facts, tracks, bpffs: None, suspended: None, marked: false, beside, observed }
    }

    /// One pass over the BpfPrograms that changed, to which something happened, whose time to try again has come, or, in a
    /// sweep, all.
    pub async fn pass(&mut self, wants: &Wants, bytes: &impl Bytes, sweep: bool) {
        let kernel_btf = KernelBtf::default();
        // Without bpffs nothing can be told of what is there, and nothing kept: every attempt fails, and says so.
        let here = block_in_place(|| self.look(wants, sweep)).map_err(Failure::from);
        let Work { leave, due, look } = self.work(wants, sweep);
        for (name, why) in leave.into_iter().filter(|_| here.is_ok()) {
            self.leave_alone(&name, why);
        }
        for name in look.into_iter().filter(|_| here.is_ok()) {
            self.refresh(&name);
        }
        for name in due {
            let outcome = match &here {
                Ok(here) => self.attempt(&name, wants.run.get(&name).map(Arc::as_ref), here, bytes, &kernel_btf).await,
                Err(failure) => Err(failure.clone()),
            };
            self.note(&name, outcome);
        }
        self.tracks.retain(|_, track| track.is_wanted() || !track.held.is_empty() || track.failure.is_some());
    }

    /// Takes what is wanted, and says what there is to do. Most of the time that is nothing for most BpfPrograms: tracks and
    /// revisions are both in the order of names, so that one walk along both finds the others, and only their names are copied.
    fn work(&mut self, wants: &Wants, sweep: bool) -> Work {
        let mut work = Work::default();
        let now = Instant::now();
        let mut revisions = wants.run.iter().peekable();
        let mut new = Vec::new();
        for (name, track) in &mut self.tracks {
            while let Some((wanted, _)) = revisions.next_if(|(wanted, _)| *wanted < name) {
                new.push(wanted.clone());
            }
            let revision = revisions.next_if(|(wanted, _)| *wanted == name).map(|(_, revision)| &**revision);
            let stirred = std::mem::take(&mut track.stirred) || sweep;
            if let Some(why) = wants.leave_alone(name, revision) {
                work.leave.push((name.clone(), why));
            } else if track.set_revision(revision) || track.retry_at().map_or(stirred, |at| at <= now) {
                work.due.push(name.clone());
            } else if stirred {
                work.look.push(name.clone());
            }
        }
        new.extend(revisions.map(|(wanted, _)| wanted.clone()));
        for name in new {
            let revision = wants.run.get(&name).map(Arc::as_ref);
            let track = self.tracks.entry(name.clone()).or_default();
            match wants.leave_alone(&name, revision) {
                Some(why) => work.leave.push((name, why)),
                None => {
                    track.set_revision(revision);
                    work.due.push(name);
                }
            }
        }
        work
    }

    /// Looks whether bpffs is there, and the same as before; in a sweep for homes that nobody wants; whether anything is to be
    /// attached at all; and at what revisions are worked out with.
    fn look(&mut self, wants: &Wants, sweep: bool) -> Result<Here, ObserveError> {
        let bpffs = self.host.bpffs();
        let before = self.bpffs.replace(bpffs.as_ref().ok().copied());
        let bpffs = bpffs?;
        let mounted_anew = before.is_some_and(|before| before != Some(bpffs));
        if mounted_anew {
            tracing::warn!("bpffs was mounted anew: what was pinned is pinned again");
        }
        if sweep || mounted_anew {
            for name in self.host.homes()? {
                self.tracks.entry(name).or_default();
            }
        }
        let mark = self.host.suspension()?;
        self.marked = mark.is_some();
        let suspended = wants.suspended.clone().or_else(|| mark.map(|why| format!("detach --all on this node: {why}")));
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
        Ok(self.host.here()?)
    }

    /// Says that something may have happened to BpfPrograms; to all, where none is named.
    pub fn stir(&mut self, names: Option<&BTreeSet<String>>) {
        for (name, track) in &mut self.tracks {
            track.stirred |= names.is_none_or(|names| names.contains(name));
        }
    }

    /// A look at what is attached, one query a cgroup and attach type: whatever of ours is no longer listed is looked at in
    /// the next pass, and whatever of others is new there is noted. Says whether there is anything new, or another bpffs, or
    /// someone has said that nothing is to be attached.
    pub fn glance(&mut self) -> bool {
        let Self { host, tracks, beside, bpffs, marked, .. } = self;
        block_in_place(|| {
            let elsewhere = Some(host.bpffs().ok()) != *bpffs;
            let turned = host.suspension().is_ok_and(|mark| mark.is_some() != *marked);
            beside.glance(host, tracks) || elsewhere || turned
        })
    }

    /// The directories of what was observed since the last call, and whose they are.
    pub fn directories(&mut self) -> Vec<(PathBuf, String)> {
        let observed = std::mem::take(&mut self.observed);
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
        report(&self.facts, &self.layout, &self.tracks, self.suspended.as_deref())
    }

    /// The BpfPrograms of which it is not known yet whether they cut this node off.
    pub fn on_trial(&self) -> BTreeSet<String> {
        let open = |track: &Track| track.held.trial.as_ref().is_some_and(|trial| trial.verdict == Verdict::Open);
        self.tracks.iter().filter(|(_, track)| open(track)).map(|(name, _)| name.clone()).collect()
    }

    /// Ends the trial of BpfPrograms: those that cut the node off are detached, and not attached again.
    pub fn judge(&mut self, names: &BTreeSet<String>, verdict: Verdict) {
        for name in names {
            let Some(track) = self.tracks.get(name) else { continue };
            let Some(Trial { revision, .. }) = track.held.trial.clone() else { continue };
            let mut steps = if verdict == Verdict::Reverted { plan::detach(&track.held) } else { Vec::new() };
            steps.push(Step::SetTrial(Trial { revision, verdict }));
            if let Err(failure) = block_in_place(|| self.execute_alone(name, &steps)) {
                tracing::error!(program = name, %failure, ?verdict, "its trial could not be ended");
            }
        }
    }

    /// Executes steps that need neither an object nor what is wanted, and observes.
    fn execute_alone(&mut self, name: &str, steps: &[Step]) -> Result<(), Failure> {
        let order = Order { steps, wanted: None, bytes: None, kernel_btf: &KernelBtf::default() };
        let executed = self.host.execute(name, &order);
        let held = self.host.observe(name)?;
        let track = self.track(name);
        track.observe(held);
        track.forget_failures();
        executed.map(drop)
    }

    /// The track of a BpfProgram that is about to be observed.
    fn track(&mut self, name: &str) -> &mut Track {
        if !self.observed.contains(name) {
            self.observed.insert(name.to_owned());
        }
        self.tracks.entry(name.to_owned()).or_default()
    }

    /// Detaches all that is here, whoever wants it; what became of each BpfProgram that had something attached.
    pub fn detach_all(&mut self) -> Result<Vec<(String, Result<(), Failure>)>, ObserveError> {
        let mut detached = Vec::new();
        for name in self.host.homes()? {
            let held = self.host.observe(&name)?;
            if !held.links.is_empty() {
                let done = self.execute_alone(&name, &plan::detach(&held));
                if let Err(failure) = &done {
                    tracing::error!(program = name, %failure, "not detached");
                }
                detached.push((name, done));
            }
        }
        Ok(detached)
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

    /// Where nothing is to be attached on this node: detaches a BpfProgram's links.
    fn detach_where_suspended(&mut self, name: &str) -> Result<(), Failure> {
        let track = self.track(name);
        if track.held.links.is_empty() {
            return Ok(());
        }
        let steps = plan::detach(&track.held);
        if self.suspended.is_none() {
            return Ok(());
        }
        block_in_place(|| self.execute_alone(name, &steps))
    }

    /// Notes what an attempt came to; says what is new in it.
    fn note(&mut self, name: &str, outcome: Result<(), Failure>) {
        let Some(track) = self.tracks.get_mut(name) else { return };
        match &outcome {
            Err(failure) if track.failure.as_ref() != Some(failure) => {
                tracing::warn!(program = name, revision = track.revision, %failure, "not in effect");
            }
            Ok(()) if track.failure.is_some() => tracing::info!(program = name, "in effect again"),
            _ => {}
        }
        track.outcome(outcome, Instant::now());
    }

    /// Observe, plan, execute, observe again. An attempt that fails is observed too: what it left is what is reported.
    async fn attempt(
        &mut self,
        name: &str,
        revision: Option<&BpfRevision>,
        here: &Here,
        bytes: &impl Bytes,
        kernel_btf: &KernelBtf,
    ) -> Result<(), Failure> {
        let wanted = revision.map(|revision| Wanted::new(revision, here)).transpose();
        let mut cgroups = block_in_place(|| self.cgroups(wanted.as_ref().ok().and_then(Option::as_ref)))?;
        self.take_in(name, wanted.as_ref().ok().cloned().flatten(), &cgroups)?;
        if revision.is_some() && self.is_suspended(name)? {
            return Ok(());
        }
        let wanted = wanted?;
        for round in 0..ROUNDS {
            if round > 0 {
                cgroups = block_in_place(|| self.cgroups(wanted.as_ref()))?;
            }
            if self.round(name, wanted.as_ref(), &cgroups, here, bytes, kernel_btf).await? {
                return Ok(());
            }
        }
        Err(Failure::new(Reason::NotInEffect, "what was done did not stay in effect"))
    }

    /// Observes, and takes in what is wanted and what others have done.
    fn take_in(
        &mut self,
        name: &str,
        wanted: Option<Wanted>,
        cgroups: &BTreeMap<String, Cgroup>,
    ) -> Result<(), Failure> {
        let held = block_in_place(|| self.host.observe(name))?;
        let of_spec = wanted.as_ref().is_some_and(|wanted| wanted.suspended).then(|| "spec.suspend is true".to_owned());
        let suspended = self.suspended.clone().or(of_spec);
        let expected = self.suspended.is_some();
        let track = self.track(name);
        let undone = if track.settled && !expected { drift::since(&track.held, &held, cgroups) } else { Vec::new() };
        track.observe(held);
        track.wanted = wanted;
        track.suspended = suspended;
        track.undone(undone, Instant::now())
    }

    /// What is to be attached nowhere is detached before anything else, whatever may then fail. Says whether that is all,
    /// because nothing is to be attached on the node.
    fn is_suspended(&mut self, name: &str) -> Result<bool, Failure> {
        let node = self.suspended.is_some();
        let track = self.track(name);
        if track.suspended.is_some() && !track.held.links.is_empty() {
            let steps = plan::detach(&track.held);
            block_in_place(|| self.execute_alone(name, &steps))?;
        }
        if node {
            self.track(name).settled = true;
        }
        Ok(node)
    }

    /// Plan, execute, observe again; says whether that brought what is wanted.
    async fn round(
        &mut self,
        name: &str,
        wanted: Option<&Wanted>,
        cgroups: &BTreeMap<String, Cgroup>,
        here: &Here,
        bytes: &impl Bytes,
        kernel_btf: &KernelBtf,
    ) -> Result<bool, Failure> {
        let track = self.track(name);
        let steps = plan(wanted, &track.held, cgroups)?;
        track.settled = steps.is_empty();
        if track.settled {
            return Ok(true);
        }
        let names = Names::of(&track.held).after(&steps);
        let loads = steps.iter().any(|step| matches!(step, Step::Load { .. }));
        let object = match wanted.filter(|_| loads) {
            Some(wanted) => {
                self.policy.admit(wanted, || self.map_bytes_besides(name, &here.machine), &here.machine)?;
                Some(fetch(bytes, &wanted.digest).await?)
            }
            None => None,
        };
        block_in_place(|| {
            let order = Order { steps: &steps, wanted, bytes: object.as_deref(), kernel_btf };
            let executed = self.host.execute(name, &order);
            let held = match &executed {
                Ok(_) => self.host.observe_known(name, &names)?,
                Err(_) => self.host.observe(name)?,
            };
            let track = self.track(name);
            track.observe(held);
            let Executed { unpinned } = executed?;
            if loads {
                track.unpinned = unpinned;
            }
            track.settled = plan(wanted, &track.held, cgroups)?.is_empty();
            let (revision, settled) = (&track.revision, track.settled);
            tracing::info!(program = name, revision, steps = steps.len(), settled, "done");
            Ok(settled)
        })
    }

    /// What the maps of all other BpfPrograms here may hold.
    fn map_bytes_besides(&self, name: &str, machine: &Machine) -> u64 {
        let others = self.tracks.iter().filter(|(other, _)| *other != name);
        others.flat_map(|(_, track)| track.held.maps.values()).map(|map| map.shape().bytes(machine)).sum()
    }

    fn cgroups(&self, wanted: Option<&Wanted>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        wanted.map_or_else(|| Ok(BTreeMap::new()), |wanted| self.host.cgroups(wanted))
    }
}

async fn fetch(bytes: &impl Bytes, digest: &str) -> Result<Vec<u8>, Failure> {
    let got = bytes.get(digest).await.and_then(|bytes| {
        let found = sockeye_crds::names::digest(&bytes);
        if found == digest { Ok(bytes) } else { Err(format!("the bytes have digest {found}")) }
    });
    got.map_err(|why| Failure::new(Reason::BytecodeUnavailable, format!("the object {digest} can't be had: {why}")))
}
