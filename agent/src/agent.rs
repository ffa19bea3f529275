//! `Agent`: brings one node to what is wanted, one BpfProgram after the other: observe, plan, execute, observe again.
//!
//! Level-triggered and without a state of its own to lose: all that it knows of the node comes from bpffs and the kernel.
//! What it keeps between passes is only what has been tried, and when to try again.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use sockeye_crds::{BpfNodeStatus, BpfRevision, Reason, node::NodeFacts};
use tokio::task::block_in_place;

use crate::{
    failure::Failure,
    held::Names,
    host::{Host, Kernel, Order},
    kernel::{
        SysError,
        cgroup::{Cgroup, Root, RootError},
        facts::{self, Machine},
        load::KernelBtf,
        probe::Probe,
    },
    layout::Layout,
    observe::ObserveError,
    plan::{Step, plan},
    policy::Policy,
    report::report,
    track::Track,
    wanted::{Here, Wanted},
};

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
}

/// One node's agent.
pub struct Agent<H> {
    host: H,
    layout: Layout,
    policy: Policy,
    facts: NodeFacts,
    tracks: BTreeMap<String, Track>,
}

impl Agent<Kernel> {
    /// The agent of this very node. Looks around; changes nothing.
    pub fn start(places: Places, policy: Policy) -> Result<Self, StartError> {
        let Places { bpffs, host_bpffs, cgroup_root, kubelet_root } = places;
        let root = Root::find(cgroup_root.as_deref())?;
        let Probe { has, lacks, lacking } = Probe::ask();
        let facts = facts::read(root.mode, &has)?;
        let layout = Layout::new(&bpffs, &host_bpffs);
        tracing::info!(cgroup_root = %root.path.display(), pins = %layout.directory().display(), "started");
        tracing::info!(kernel = facts.kernel_release, ?lacks, "asked the kernel what it has");
        let host = Kernel::new(layout.clone(), root, kubelet_root, Machine::read()?, lacking);
        Ok(Self::new(host, layout, policy, facts))
    }
}

impl<H: Host> Agent<H> {
    /// An agent of some node.
    pub const fn new(host: H, layout: Layout, policy: Policy, facts: NodeFacts) -> Self {
        Self { host, layout, policy, facts, tracks: BTreeMap::new() }
    }

    /// One pass over the BpfPrograms that changed, whose time to try again has come, or, in a sweep, all.
    pub async fn pass(&mut self, wants: &Wants, bytes: &impl Bytes, sweep: bool) {
        let kernel_btf = KernelBtf::default();
        // Without bpffs nothing can be told of what is there, and nothing kept: every attempt fails, and says so.
        let here = block_in_place(|| self.look(sweep)).map_err(Failure::from);
        let Work { leave, due } = self.work(wants, sweep);
        for (name, why) in leave.into_iter().filter(|_| here.is_ok()) {
            self.leave_alone(&name, why);
        }
        for name in due {
            tracing::debug!(program = name, "attempt");
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
            if let Some(why) = wants.leave_alone(name, revision) {
                work.leave.push((name.clone(), why));
            } else if track.set_revision(revision) || track.retry_at().map_or(sweep, |at| at <= now) {
                work.due.push(name.clone());
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

    /// Looks whether bpffs is there, in a sweep for homes that nobody wants, and at what revisions are worked out with.
    fn look(&mut self, sweep: bool) -> Result<Here, ObserveError> {
        if sweep {
            for name in self.host.homes()? {
                self.tracks.entry(name).or_default();
            }
        } else {
            self.host.usable()?;
        }
        Ok(self.host.here()?)
    }

    /// When the next attempt is due, if any failed.
    pub fn next_retry(&self) -> Option<Instant> {
        self.tracks.values().filter_map(Track::retry_at).min()
    }

    /// The node's status.
    pub fn report(&self) -> BpfNodeStatus {
        report(&self.facts, &self.layout, &self.tracks)
    }

    /// Looks at what is there, and changes nothing.
    fn leave_alone(&mut self, name: &str, why: String) {
        let held = block_in_place(|| self.host.observe(name));
        let track = self.tracks.entry(name.to_owned()).or_default();
        match held {
            Ok(held) => track.leave_alone(held, why),
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
        let held = block_in_place(|| self.host.observe(name))?;
        let track = self.tracks.entry(name.to_owned()).or_default();
        track.observe(held);
        track.wanted = wanted.as_ref().ok().cloned().flatten();
        let wanted = wanted?;

        let cgroups = block_in_place(|| self.cgroups(wanted.as_ref()))?;
        let track = self.tracks.entry(name.to_owned()).or_default();
        let steps = plan(wanted.as_ref(), &track.held, &cgroups)?;
        track.settled = steps.is_empty();
        if track.settled {
            return Ok(());
        }
        let names = Names::of(&track.held).after(&steps);
        let object = match (&wanted, steps.iter().any(|step| matches!(step, Step::Load { .. }))) {
            (Some(wanted), true) => {
                self.policy.admit(wanted, || self.map_bytes_besides(name, &here.machine), &here.machine)?;
                Some(fetch(bytes, &wanted.digest).await?)
            }
            _ => None,
        };
        block_in_place(|| {
            let order = Order { steps: &steps, wanted: wanted.as_ref(), bytes: object.as_deref(), kernel_btf };
            let executed = self.host.execute(name, &order);
            let held = match &executed {
                Ok(()) => self.host.observe_known(name, &names)?,
                Err(_) => self.host.observe(name)?,
            };
            let track = self.tracks.entry(name.to_owned()).or_default();
            track.observe(held);
            executed?;
            track.settled = plan(wanted.as_ref(), &track.held, &cgroups)?.is_empty();
            tracing::info!(
                program = name,
                revision = track.revision,
                steps = steps.len(),
                settled = track.settled,
                "done"
            );
            if track.settled {
                Ok(())
            } else {
                Err(Failure::new(Reason::NotInEffect, "what was done did not stay in effect"))
            }
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
