//! An attempt at one BpfProgram: observe, plan, execute, observe again. What an attempt that failed has left is observed too,
//! and is what is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use sockeye_crds::{BpfRevision, Reason};
use tokio::task::block_in_place;

use super::{Agent, Bytes, Missing, Wants};
use crate::{
    around::Around,
    drift::{self, Seen},
    execute::Executed,
    failure::Failure,
    held::Held,
    host::{Host, Order},
    kernel::{SysError, cgroup::Cgroup, facts::Machine, load::KernelBtf},
    plan::{self, Step, plan},
    track::{self, MapBytes, Track},
    wanted::{Here, Wanted},
};

/// `BPF_CGROUP_DEVICE`
const CGROUP_DEVICE: u32 = 6;

/// A plan that something came in between of, as the death of a cgroup, is made anew at once; so often in all.
const ROUNDS: usize = 4;

/// What an attempt begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// An observation.
    Anew,
    /// What was observed last: nothing is known to have happened to it, and pods have come or gone.
    Known,
}

impl<H: Host> Agent<H> {
    /// Takes one.
    pub(super) async fn attempt(
        &mut self,
        name: &str,
        revision: Option<&BpfRevision>,
        look: Look,
        here: &Here,
        bytes: &impl Bytes,
        kernel_btf: &KernelBtf,
    ) -> Result<(), Failure> {
        let wanted = revision.map(|revision| Wanted::new(revision, here).map(Arc::new)).transpose();
        let mut found = Some(self.take_in(name, wanted.as_ref().ok().cloned().flatten(), look)?);
        if revision.is_some() && self.is_suspended(name)? {
            return Ok(());
        }
        if let Some(revision) = revision {
            self.make_room(name, &revision.spec.program.uid)?;
        }
        let wanted = wanted?;
        for _ in 0..ROUNDS {
            let around = block_in_place(|| {
                let cgroups = found.take().map_or_else(|| self.cgroups(wanted.as_deref()), Ok)?;
                self.around(wanted.as_deref(), cgroups)
            })?;
            if self.round(name, wanted.as_deref(), &around, here, bytes, kernel_btf).await? {
                self.look_for_devices(name);
                if let Some(refusal) = wanted.and_then(|wanted| plan::missing(&wanted, &around.cgroups)) {
                    return Err(Failure { partial: true, ..refusal.into() });
                }
                return self.is_asked(revision);
            }
        }
        Err(Failure::new(Reason::NotInEffect, "what was done did not stay in effect"))
    }

    /// Where a revision has failed that is to replace another, keeps that one as it was asked for: new pods are attached to, and
    /// what others undo is repaired.
    pub(super) async fn go_on(
        &mut self,
        name: &str,
        wants: &Wants,
        look: Look,
        here: &Here,
        bytes: &impl Bytes,
        kernel_btf: &KernelBtf,
    ) {
        let Some((good, needs)) = self.tracks.get(name).and_then(Track::last_good) else { return };
        // Without its pods it would seem to have no place at all.
        if wants.untold(needs).is_some() {
            return;
        }
        let failure = self.track(name).failure.clone();
        if let Err(error) = self.attempt(name, Some(&good), look, here, bytes, kernel_btf).await {
            tracing::warn!(program = name, revision = good.metadata.name, %error, "what ran before can't be kept whole");
        }
        self.track(name).failure = failure;
    }

    /// What a BpfProgram has left that is gone and had this name goes, whatever then keeps the new one from running.
    fn make_room(&mut self, name: &str, uid: &str) -> Result<(), Failure> {
        let held = &self.track(name).held;
        if held.uid.as_ref().is_none_or(|whose| whose == uid) {
            return Ok(());
        }
        let steps = plan(None, held, &Around::default())?;
        if steps.is_empty() { Ok(()) } else { block_in_place(|| self.execute_steps(name, &steps)) }
    }

    /// Observes, and takes in what is wanted and what others have done; gives the wanted cgroups that exist. These are looked
    /// for after the rest: of a link that died with its cgroup the cgroup must not be seen any more.
    fn take_in(
        &mut self,
        name: &str,
        wanted: Option<Arc<Wanted>>,
        look: Look,
    ) -> Result<BTreeMap<String, Cgroup>, Failure> {
        let observed = match look {
            Look::Anew => Some(block_in_place(|| self.host.observe(name))?),
            Look::Known => None,
        };
        let of_spec = wanted.as_ref().is_some_and(|wanted| wanted.suspended).then(|| "spec.suspend is true".to_owned());
        let suspended = self.suspended.clone().or(of_spec);
        let expected = self.suspended.is_some();
        // Whatever can't be looked at: what is to be attached nowhere is known, and no longer so.
        self.track(name).suspended = suspended;
        let cgroups = block_in_place(|| self.cgroups(wanted.as_deref()))?;
        let track = self.track(name);
        let goes_on = track.goes_on();
        let undone = match &observed {
            // What goes on where another fails is as the attempt at that one, which was followed by a look, has left it.
            Some(held) if (track.settled || goes_on) && !expected => {
                self.drift(name, held, wanted.as_deref(), &cgroups)?
            }
            _ => Vec::new(),
        };
        let track = self.track(name);
        let is_latest = wanted.as_ref().is_none_or(|wanted| Some(&wanted.revision) == track.revision.as_ref());
        track.want(wanted);
        if let Some(held) = observed {
            track.observe(held);
            let again = track.undone(undone, Instant::now());
            // Where something else goes on, that is repaired later, and this is tried all the same.
            if !(goes_on && is_latest) {
                again?;
            }
        }
        Ok(cgroups)
    }

    /// What others have done to what was wanted until now, of which these cgroups of what is wanted now may be the places.
    fn drift(
        &self,
        name: &str,
        now: &Held,
        wanted: Option<&Wanted>,
        cgroups: &BTreeMap<String, Cgroup>,
    ) -> Result<Vec<Seen>, SysError> {
        let Some(track) = self.tracks.get(name) else { return Ok(Vec::new()) };
        let was = track.wanted.as_deref();
        if was.map(|was| &was.revision) == wanted.map(|wanted| &wanted.revision) {
            return Ok(drift::since(&track.held, now, cgroups));
        }
        Ok(drift::since(&track.held, now, &block_in_place(|| self.cgroups(was))?))
    }

    /// Plan, execute, observe again; says whether that brought what is wanted.
    async fn round(
        &mut self,
        name: &str,
        wanted: Option<&Wanted>,
        around: &Around,
        here: &Here,
        bytes: &impl Bytes,
        kernel_btf: &KernelBtf,
    ) -> Result<bool, Failure> {
        let track = self.track(name);
        let mut steps = plan(wanted, &track.held, around)?;
        // What goes on while another is wanted, and has stood its trial, leaves the note on another's alone.
        let revision = wanted.map(|wanted| &wanted.revision);
        let noted = track.held.trial.as_ref().map(|trial| &trial.revision);
        let notes = revision == track.revision.as_ref() || noted.is_none() || noted == revision;
        steps.retain(|step| notes || !matches!(step, Step::SetTrial(_)));
        track.settled = steps.is_empty();
        if track.settled {
            return Ok(true);
        }
        let loads = steps.iter().any(|step| matches!(step, Step::Load { .. }));
        let object = match wanted.filter(|_| loads) {
            Some(wanted) => {
                let policy = self.policy;
                policy.admit(wanted, || self.map_bytes_besides(name, &here.machine), &here.machine)?;
                Some(fetch(bytes, &wanted.digest).await?)
            }
            None => None,
        };
        block_in_place(|| {
            let order = Order { steps: &steps, wanted, bytes: object.as_deref(), kernel_btf };
            let Executed { unpinned, refused, moved, left } = self.execute(name, &order)?;
            let track = self.track(name);
            track.moved += moved;
            if loads {
                track.loaded(unpinned);
            }
            if !refused.is_empty() {
                return Err(Failure::at_pods(refused));
            }
            if let Some(failure) = left {
                return Err(failure);
            }
            // What was moved is looked for again where it is now.
            track.settled = plan(wanted, &track.held, around)?.is_empty();
            let (revision, settled) = (&track.revision, track.settled);
            tracing::info!(program = name, revision, steps = steps.len(), settled, "done");
            Ok(settled)
        })
    }

    /// Device programs are many containers' own, and the runtimes': what of others' is at or below ours is said, and left alone.
    fn look_for_devices(&mut self, name: &str) {
        let wanted = self.tracks.get(name).and_then(|track| track.wanted.as_ref());
        let functions = wanted.into_iter().flat_map(|wanted| wanted.functions.values());
        let devices = functions.filter(|function| function.kind.attach_type == CGROUP_DEVICE);
        let paths: BTreeSet<&String> = devices.flat_map(|function| function.paths.keys()).collect();
        // Hardly any BpfProgram has one, and what is ours takes a walk over all of them.
        let strangers = match paths.is_empty() {
            true => BTreeMap::new(),
            false => {
                let links = self.tracks.values().flat_map(|track| track.held.links.values());
                let ours: BTreeSet<u32> = links.map(|link| link.info.program_id).collect();
                let stranger = |path: &String| Some((path.clone(), self.host.stranger(path, CGROUP_DEVICE, &ours)?));
                block_in_place(|| paths.into_iter().filter_map(stranger).collect())
            }
        };
        self.track(name).devices = strangers;
    }

    /// What the maps of all other BpfPrograms here may hold. One that is shared counts with the one whose it is.
    fn map_bytes_besides(&mut self, name: &str, machine: &Machine) -> u64 {
        // An agent that has just started has not come to all of them yet.
        let unseen = self.tracks.iter().filter(|(_, track)| !track.observed);
        let unseen: Vec<String> = unseen.map(|(other, _)| other.clone()).collect();
        unseen.iter().for_each(|other| self.refresh(other));
        let (mut sum, mut sharing) = (0_u64, Vec::new());
        for (other, track) in &mut self.tracks {
            let MapBytes { own, shares } = track.map_bytes(machine);
            sum = sum.saturating_add(own);
            sharing.extend(shares.then(|| other.clone()));
        }
        sum = sum.saturating_sub(self.track(name).map_bytes(machine).own);
        let sharing = sharing.iter().filter(|other| *other != name).filter_map(|other| self.tracks.get(other));
        let maps = sharing.flat_map(|track| track.held.maps.values());
        let orphans = maps.filter(|map| map.from.is_some() && track::owned(&self.tracks, map).is_none());
        orphans.map(|map| map.shape().bytes(machine)).fold(sum, u64::saturating_add)
    }

    fn cgroups(&self, wanted: Option<&Wanted>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        wanted.map_or_else(|| Ok(BTreeMap::new()), |wanted| self.host.cgroups(wanted))
    }
}

async fn fetch(bytes: &impl Bytes, digest: &str) -> Result<Vec<u8>, Failure> {
    let unavailable = |why: Missing| Failure {
        awaits: why == Missing::Awaited,
        ..Failure::new(Reason::BytecodeUnavailable, format!("the object {digest} can't be had: {why}"))
    };
    let bytes = bytes.get(digest).await.map_err(unavailable)?;
    match sockeye_crds::names::digest(&bytes) {
        found if found == digest => Ok(bytes),
        found => Err(Failure::new(Reason::InvalidObject, format!("what is stored as {digest} has digest {found}"))),
    }
}
