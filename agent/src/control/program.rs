//! `ProgramState`: one BpfProgram on this node over time: what is there of it, why that is not its revision. No IO.

mod keep_known_good;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{
    BpfRevision, Reason,
    node::{Drift, RefusedConnections, State},
    program::MapRef,
};

use super::{
    drift::{self, Change},
    known_good::KnownGood,
    program_entries::ProgramEntries,
    retry::Retry,
    spec_summary::SpecSummary,
};
use crate::{
    model::{
        assignment::{ReportedRevision, UnreadableRevision},
        desired::Desired,
        kernel::MapInfo,
        observed::{Observed, ObservedMap},
        pods::RequiredInputs,
        refusal::Refusal,
        trial::Trial,
    },
    node::failure::Failure,
    plan::order::Rank,
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
    /// The revisions that were in effect. Whichever of them is, is kept where a newer one fails.
    known_good: KnownGood,
    /// The revision in effect according to the BpfNode when this agent started: the node may have been rebooted since.
    pub(super) reported: Option<ReportedRevision>,
    /// Maps of the last load that are not pinned, by name. Those that no program uses went with the loader.
    pub unpinned: BTreeMap<String, MapInfo>,
    /// What the user may not expect of the programs and maps that this agent loaded.
    pub load_notes: Vec<String>,
    /// Where it has device programs: by cgroup path, one program of others at or below it, as path and ID.
    pub foreign_devices: BTreeMap<String, (String, u32)>,
    /// The number of its links that were attached anew, since the agent started, for their attach order.
    pub moved: usize,
    /// The entries of its maps.
    pub entries: ProgramEntries,
    /// Recent external changes to it.
    pub drift: Vec<Drift>,
    /// The pods whose connections it refused, as counted last.
    pub refused: Vec<RefusedConnections>,
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
    /// The sockets in its maps are to be counted again.
    pub sockets: bool,
}

impl Pending {
    /// Returns the reason of sockets alone.
    pub fn for_sockets() -> Self {
        Self { sockets: true, ..Self::default() }
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

    /// Returns whether it is known what is desired here, be it nothing.
    pub const fn is_assigned(&self) -> bool {
        self.assigned.is_known
    }

    /// Returns whether anything is desired here.
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

    /// Records the assigned revision. A failure of another revision says nothing about this one.
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

    /// Records the revision as worked out for this node.
    pub fn desire(&mut self, desired: Option<Arc<Desired>>) {
        self.priority = desired.as_ref().map(|desired| desired.priority);
        self.desired = desired;
    }

    /// Records a new observation. The memory that a map holds can change with its content: the first figure stays, so
    /// that traffic causes no API writes.
    pub fn observe(&mut self, mut observed: Observed) {
        self.was_observed = true;
        self.pending.dirty = false;
        self.pending.sweep = false;
        self.pending.sockets = false;
        for (pin, map) in &mut observed.maps {
            if let Some(before) = self.observed.maps.get(pin).filter(|before| before.info.id == map.info.id) {
                map.info.memlock_bytes = before.info.memlock_bytes;
            }
        }
        self.observed = observed;
    }

    /// Records an observation of a BpfProgram whose desired state is unknown, be it because of its revision or of its
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

    /// Records the name of the assigned revision if that can't be read, so that the failure is reported as its own.
    pub fn assign_unreadable(&mut self, unreadable: Option<&UnreadableRevision>) {
        if let Some(UnreadableRevision { name: Some(name), uid, why: _ }) = unreadable {
            self.assigned.name = Some(name.clone());
            self.assigned.uid = uid.clone().or(self.assigned.uid.take());
        }
    }

    /// Records the outcome of an attempt, and schedules the next one after a failure.
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
        let message = format!(
            "what is attached is undone by others again and again: it is repaired in {} s. The drift in this node's \
                 BpfNode says what they change: keep them from it",
            put_off.as_secs()
        );
        Err(Failure::new(Reason::NotInEffect, message))
    }

    /// Records maps that a load made anew.
    pub fn record_recreated(&mut self, changes: Vec<Change>, time_of_day: Timestamp) {
        changes.iter().for_each(|change| tracing::info!("{}", change.message));
        changes.into_iter().for_each(|change| drift::remember(&mut self.drift, change, time_of_day));
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
        self.required().union(self.known_good.required())
    }

    /// Returns whether its only failure is that its object is being fetched.
    pub fn is_awaiting(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.awaits)
    }

    /// Returns whether the assigned revision waits for an object.
    fn awaits(&self, digest: &str) -> bool {
        let assigned = self.assigned.revision.as_ref().filter(|_| self.is_awaiting());
        assigned.is_some_and(|assigned| assigned.spec.template.has_bytes(digest))
    }

    /// Returns whether the assigned revision waits for an object, or the kept known good one uses it.
    pub fn uses(&self, digest: &str) -> bool {
        let good = || self.kept_known_good().is_some_and(|(good, _)| good.spec.template.has_bytes(digest));
        self.awaits(digest) || good()
    }

    /// Is tried again, now that an object that it uses arrived.
    pub fn object_arrived(&mut self, digest: &str) {
        let changed = self.awaits(digest);
        self.pending.changed |= changed;
        self.pending.dirty |= !changed;
    }

    /// Returns its trial while that is undecided. A program that is attached nowhere is not on trial.
    pub fn undecided_trial(&self) -> Option<Trial> {
        let Observed { trial, links, .. } = &self.observed;
        let is_undecided =
            |Trial { state, .. }: &&Trial| state.is_undecided() && !(state.is_open() && links.is_empty());
        trial.as_ref().filter(is_undecided).cloned()
    }

    /// Returns whether it is attached anew as pods come and go: not while it fails for another cause.
    pub fn follows_pods(&self) -> bool {
        self.required().pods && self.failure.as_ref().is_none_or(|failure| failure.partial)
    }

    /// Returns whether it waits for a cgroup that is named by its path.
    pub fn waits_for_cgroup(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| failure.reason == Reason::CgroupNotFound) && !self.keeps_known_good()
    }

    /// Returns its rank if it was suspended, and is attached nowhere yet.
    pub fn comes_back(&self) -> Option<Rank> {
        let Observed { claimed, links, .. } = &self.observed;
        let priority = self.assigned.summary.priority?;
        (self.suspended.is_some() && links.is_empty()).then_some(Rank { priority, claimed: *claimed })
    }

    /// Returns whether container starts wait for it.
    pub const fn is_strict(&self) -> bool {
        self.assigned.summary.strict
    }

    /// Returns whether any of its maps is to be another BpfProgram's.
    pub const fn shares(&self) -> bool {
        self.assigned.summary.shares
    }

    /// Returns the assigned priority, and the one that was worked out last.
    pub fn priorities(&self) -> impl Iterator<Item = i64> {
        self.assigned.summary.priority.into_iter().chain(self.priority)
    }

    /// Records the unpinned maps that a load left, and its notes.
    pub fn loaded(&mut self, unpinned: BTreeMap<String, MapInfo>, notes: Vec<String>) {
        (self.unpinned, self.load_notes) = (unpinned, notes);
    }
}
