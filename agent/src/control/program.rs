//! `ProgramState`: one BpfProgram on this node over time: its revision, what is there of it, why these differ, when to
//! try again. No IO.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{
    BpfRevision, Reason,
    node::{Drift, State},
    program::{DEFAULT_PRIORITY, MapRef},
    target::PodsTarget,
};

use super::{
    drift::{self, Change},
    retry::Retry,
};
use crate::{
    model::{
        desired::Desired,
        kernel::{Machine, MapInfo},
        map_shape::MapShape,
        observed::{Observed, ObservedMap},
        pods::RequiredInputs,
        refusal::Refusal,
    },
    node::failure::Failure,
};

/// The first lists of pods and namespaces take at most this long, unless something is wrong.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// One BpfProgram on this node.
#[derive(Clone, Debug, Default)]
pub struct ProgramState {
    assigned: Assigned,
    /// The revision as worked out for this node; absent where nothing is desired, or where it can't be worked out.
    pub desired: Option<Arc<Desired>>,
    /// The priority in `desired`.
    priority: Option<i64>,
    /// The last observation.
    pub observed: Observed,
    /// It was observed at least once.
    pub was_observed: bool,
    /// A plan from `observed` to `desired` has no steps.
    pub converged: bool,
    /// The reason why `observed` is not `desired`, if so.
    pub failure: Option<Failure>,
    /// The reason why it is attached nowhere, if someone suspended it.
    pub suspended: Option<String>,
    /// The reasons to reconcile it.
    pub pending: Pending,
    /// The time of the next attempt after a failure.
    pub retry: Retry,
    /// The time since which its desired state is unknown.
    frozen_since: Option<Instant>,
    /// The revision that came into effect last, after its predecessor if that can be reverted to. Whichever of them is
    /// in effect is kept where a newer one fails.
    known_good: Vec<(Arc<BpfRevision>, SpecSummary)>,
    /// Maps of the last load that are not pinned, by name. Those that no program uses went with the loader.
    pub unpinned: BTreeMap<String, MapInfo>,
    /// What the user may not expect of the programs and maps that this agent loaded.
    pub load_notes: Vec<String>,
    /// Where it has device programs: by cgroup path, one program of others at or below it, as path and ID.
    pub foreign_devices: BTreeMap<String, (String, u32)>,
    /// The number of its links that were attached anew, since the agent started, for their attach order.
    pub moved: usize,
    /// Recent external changes to it.
    pub drift: Vec<Drift>,
    /// The bytes that its maps may hold, once computed.
    map_bytes: Option<MapBytes>,
}

/// The revision that the assignment names.
#[derive(Clone, Debug, Default)]
struct Assigned {
    /// The BpfProgram's UID.
    uid: Option<String>,
    /// The revision's name; absent once the BpfProgram is to have nothing here.
    name: Option<String>,
    /// The revision as it was assigned: the same value again is not read again.
    revision: Option<Arc<BpfRevision>>,
    summary: SpecSummary,
    /// The assignment covered it at least once: a home found at start is reconciled, desired or not.
    is_known: bool,
}

/// The reasons to reconcile a BpfProgram in the next pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Another revision is assigned than at the last attempt, or the object it waited for arrived.
    pub changed: bool,
    /// Something may have happened to it since it was last observed.
    pub dirty: bool,
    /// Pods came, went or changed.
    pub pods: bool,
    /// A sweep has not come to it yet.
    pub sweep: bool,
}

/// The memory that the maps of one BpfProgram may hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapBytes {
    /// Bytes of the maps that are its own.
    pub own: u64,
    /// Some of its maps are other BpfPrograms'.
    pub shares: bool,
}

/// The parts of a revision that every pass reads.
#[derive(Clone, Copy, Debug, Default)]
struct SpecSummary {
    required: RequiredInputs,
    priority: Option<i64>,
    shares: bool,
    strict: bool,
}

impl SpecSummary {
    fn of(revision: &BpfRevision) -> Self {
        let template = &revision.spec.template;
        // Where it is suspended, it has no targets.
        let targets = || template.targets().filter(|_| !template.suspend);
        Self {
            required: RequiredInputs::of(targets()),
            priority: Some(template.priority.unwrap_or(DEFAULT_PRIORITY)),
            shares: template.map_refs().next().is_some(),
            strict: template.pods_targets().any(PodsTarget::is_strict),
        }
    }
}

/// Returns a BpfProgram's map that others may share, as last observed.
pub fn shared<'a>(
    programs: &'a BTreeMap<String, ProgramState>,
    MapRef { program, name }: &MapRef,
) -> Option<&'a ObservedMap> {
    programs.get(program)?.observed.maps.get(name)
}

/// Returns the owner of a map that is another BpfProgram's, as long as that one still has it.
pub fn owned<'a>(programs: &BTreeMap<String, ProgramState>, map: &'a ObservedMap) -> Option<&'a MapRef> {
    map.from.as_ref().filter(|from| shared(programs, from).is_some_and(|theirs| theirs.info.id == map.info.id))
}

impl ProgramState {
    /// Returns the assigned revision's name.
    pub fn revision(&self) -> Option<&str> {
        self.assigned.name.as_deref()
    }

    /// Returns the assigned BpfProgram's UID.
    pub fn uid(&self) -> Option<&str> {
        self.assigned.uid.as_deref()
    }

    /// Reports whether anything is desired here.
    pub const fn is_desired(&self) -> bool {
        self.assigned.name.is_some()
    }

    /// Returns the state as the BpfNode reports it.
    pub fn state(&self) -> State {
        let links = &self.observed.links;
        match (self.is_desired(), &self.failure) {
            (false, _) => State::Removing,
            (true, None) if self.converged && self.suspended.is_some() && links.is_empty() => State::Suspended,
            (true, None) if self.converged && links.values().all(|link| link.in_effect) => State::Attached,
            (true, _) => State::Failed,
        }
    }

    /// Takes the assigned revision. A failure of another revision says nothing about this one.
    pub fn assign(&mut self, revision: Option<&Arc<BpfRevision>>) {
        if let (Some(known), Some(revision)) = (&self.assigned.revision, revision)
            && Arc::ptr_eq(known, revision)
        {
            return;
        }
        let name = revision.and_then(|revision| revision.metadata.name.clone());
        // A BpfProgram that was deleted and made again begins with the same names.
        let uid = revision.map(|revision| revision.spec.program_ref.uid.clone());
        let was_known = std::mem::replace(&mut self.assigned.is_known, true);
        if name != self.assigned.name || uid != self.assigned.uid || (name.is_none() && !was_known) {
            self.retry.reset_failures();
            (self.assigned.name, self.assigned.uid) = (name, uid);
            self.pending.changed = true;
        }
        self.assigned.summary = revision.map(|revision| SpecSummary::of(revision)).unwrap_or_default();
        self.assigned.revision = revision.cloned();
    }

    /// Takes the revision as worked out for this node.
    pub fn desire(&mut self, desired: Option<Arc<Desired>>) {
        self.priority = desired.as_ref().map(|desired| desired.priority);
        self.desired = desired;
    }

    /// Takes a new observation. The memory that a map holds can change with its content: the first figure stays, so
    /// that traffic causes no API writes.
    pub fn observe(&mut self, mut observed: Observed) {
        self.was_observed = true;
        self.pending.dirty = false;
        self.pending.sweep = false;
        for (pin, map) in &mut observed.maps {
            if let Some(before) = self.observed.maps.get(pin).filter(|before| before.info.id == map.info.id) {
                map.info.memlock_bytes = before.info.memlock_bytes;
            }
        }
        self.observed = observed;
        self.map_bytes = None;
    }

    /// Takes an observation of a BpfProgram whose desired state is unknown, be it because of its revision or of its
    /// pods: what is there stays, and is reported with the reason. Of one that has nothing here, that is reported only
    /// if it lasts: the first list of pods takes a moment.
    pub fn freeze(&mut self, observed: Observed, why: Refusal, is_revision_known: bool, now: Instant) {
        self.observe(observed);
        let frozen_since = *self.frozen_since.get_or_insert(now);
        if !is_revision_known || now.saturating_duration_since(frozen_since) < FIRST_LISTS {
            self.assigned = Assigned {
                uid: self.observed.uid.clone(),
                name: self.observed.revision.clone(),
                summary: self.assigned.summary,
                ..Assigned::default()
            };
        }
        self.failure = Some(why.into());
        self.converged = false;
        // Once the desired state is known again, a look is due whatever else happened.
        self.pending.dirty = true;
    }

    /// Takes the outcome of an attempt, and schedules the next one after a failure.
    pub fn finish_attempt(&mut self, outcome: Result<(), Failure>, now: Instant) {
        self.frozen_since = None;
        if outcome.as_ref().err().is_none_or(|failure| failure.partial) {
            self.remember_known_good();
        }
        match outcome {
            Ok(()) => {
                self.failure = None;
                self.retry.reset();
            }
            Err(failure) => {
                self.converged = false;
                self.retry.failed(failure.reason, now);
                self.failure = Some(failure);
            }
        }
    }

    fn remember_known_good(&mut self) {
        let in_effect = |revision: &&Arc<BpfRevision>| revision.metadata.name == self.observed.revision;
        let Some(revision) = self.assigned.revision.as_ref().filter(in_effect) else { return };
        let before = self.observed.previous.as_ref().and_then(|predecessor| predecessor.revision.as_ref());
        self.known_good.retain(|(good, _)| before.is_some() && good.metadata.name.as_ref() == before);
        self.known_good.push((Arc::clone(revision), self.assigned.summary));
    }

    /// Returns the known good revision that is kept running because the assigned one fails, and what must be known of
    /// pods for it.
    pub fn kept_known_good(&self) -> Option<(Arc<BpfRevision>, RequiredInputs)> {
        let fails = self.failure.as_ref().is_some_and(|failure| !failure.partial);
        let (good, summary) = self.known_good.iter().find(|(good, _)| good.metadata.name == self.observed.revision)?;
        let assigned = self.assigned.revision.as_ref()?;
        let is_kept = fails
            && self.suspended.is_none()
            && !self.retry.puts_off_repair()
            && good.spec.program_ref.uid == assigned.spec.program_ref.uid
            && good.metadata.name != assigned.metadata.name
            && !assigned.spec.template.suspend;
        is_kept.then(|| (Arc::clone(good), summary.required))
    }

    /// Reports whether a known good revision is kept running.
    pub fn keeps_known_good(&self) -> bool {
        self.kept_known_good().is_some()
    }

    /// Records external changes to what was in effect. They are repaired at once, unless others make them again and
    /// again: then the repair is put off, which is the failure returned.
    pub fn record_drift(&mut self, changes: Vec<Change>, now: Instant, time_of_day: Timestamp) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            tracing::warn!(kind = change.kind.as_str(), "{}", change.message);
            drift::remember(&mut self.drift, change, time_of_day);
        }
        let Some(put_off) = self.retry.undone(now) else { return Ok(()) };
        self.converged = false;
        let message =
            format!("what is attached is undone by others again and again: it is repaired in {} s", put_off.as_secs());
        Err(Failure::new(Reason::NotInEffect, message))
    }

    /// Retries at once: the cause of its failure may have changed.
    pub const fn forget_failures(&mut self) {
        self.retry.reset();
        self.pending.dirty = true;
    }

    /// Returns what must be known of pods for the assigned revision.
    pub const fn required(&self) -> RequiredInputs {
        self.assigned.summary.required
    }

    /// Returns the same for the assigned revision and those that are known good.
    pub fn required_in_all(&self) -> RequiredInputs {
        self.known_good.iter().fold(self.required(), |all, (_, summary)| all.and(summary.required))
    }

    /// Reports whether its only failure is that its object is being fetched.
    pub fn is_awaiting(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.awaits)
    }

    /// Is tried again if it waits for the object that arrived; reports whether it does.
    pub fn object_arrived(&mut self, digest: &str) -> bool {
        let is_its = |revision: &Arc<BpfRevision>| revision.spec.template.digest == digest;
        let changed = self.is_awaiting() && self.assigned.revision.as_ref().is_some_and(is_its);
        let dirty = !changed && self.kept_known_good().is_some_and(|(good, _)| is_its(&good));
        self.pending.changed |= changed;
        self.pending.dirty |= dirty;
        changed || dirty
    }

    /// Reports whether it is attached anew as pods come and go: not while it fails for another cause.
    pub fn follows_pods(&self) -> bool {
        self.required().pods && self.failure.as_ref().is_none_or(|failure| failure.partial)
    }

    /// Reports whether it waits for a cgroup that is named by its path.
    pub fn waits_for_cgroup(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| failure.reason == Reason::CgroupNotFound) && !self.keeps_known_good()
    }

    /// Reports whether container starts wait for it.
    pub const fn is_strict(&self) -> bool {
        self.assigned.summary.strict
    }

    /// Reports whether any of its maps is to be another BpfProgram's.
    pub const fn shares(&self) -> bool {
        self.assigned.summary.shares
    }

    /// Returns the assigned priority, and the one that was worked out last.
    pub fn priorities(&self) -> impl Iterator<Item = i64> {
        self.assigned.summary.priority.into_iter().chain(self.priority)
    }

    /// Takes the unpinned maps that a load left, and its notes.
    pub fn loaded(&mut self, unpinned: BTreeMap<String, MapInfo>, notes: Vec<String>) {
        self.unpinned = unpinned;
        self.load_notes = notes;
        self.map_bytes = None;
    }

    /// Returns the bytes that its maps may hold. A map that is not pinned counts as long as the agent that loaded it
    /// runs.
    pub fn map_bytes(&mut self, machine: &Machine) -> MapBytes {
        let Self { observed, unpinned, .. } = self;
        let uses = |map: u32| observed.functions.values().any(|function| function.info.map_ids.contains(&map));
        *self.map_bytes.get_or_insert_with(|| {
            let pinned = observed.maps.values().filter(|map| map.from.is_none()).map(ObservedMap::shape);
            let unpinned = unpinned.values().filter(|map| uses(map.id)).map(MapShape::of);
            let own = pinned.chain(unpinned).fold(0, |sum: u64, shape| sum.saturating_add(shape.bytes(machine)));
            MapBytes { own, shares: observed.maps.values().any(|map| map.from.is_some()) }
        })
    }
}
