//! The known good revision of a BpfProgram, which is kept running while the assigned one fails.

use std::{sync::Arc, time::Instant};

use sockeye_crds::{BpfRevision, RevisionTemplate};

use super::ProgramState;
use crate::model::pods::RequiredInputs;

impl ProgramState {
    pub(super) fn remember_known_good(&mut self) {
        let in_effect = |revision: &&Arc<BpfRevision>| revision.metadata.name == self.observed.revision;
        let Some(revision) = self.assigned.revision.as_ref().filter(in_effect) else { return };
        let before = self.observed.previous.as_ref().and_then(|predecessor| predecessor.revision.as_ref());
        self.known_good.remember(revision, self.assigned.summary, before);
        self.reported = None;
    }

    /// Returns the name of the revision that was in effect last: by its note, or on a node that was rebooted since by
    /// the BpfNode.
    pub fn last_in_effect(&self) -> Option<&str> {
        let reported = self.reported.as_ref().filter(|reported| Some(&reported.uid) == self.assigned.uid.as_ref());
        let is_new = self.observed.uid.is_none() || self.observed.uid == self.assigned.uid;
        let reported = reported.filter(|_| is_new).map(|reported| reported.revision.as_str());
        self.observed.revision.as_deref().or(reported)
    }

    /// Returns the template of the revision that is in effect, if that is the assigned one or a known good one.
    pub fn template_in_effect(&self) -> Option<&RevisionTemplate> {
        let name = self.observed.revision.as_deref()?;
        let assigned = self.assigned.revision.as_ref().filter(|one| one.metadata.name.as_deref() == Some(name));
        let known = assigned.or_else(|| self.known_good.get(name).map(|(good, _)| good));
        known.map(|revision| &revision.spec.template)
    }

    /// Returns the name of the known good revision that is to be kept running because the assigned one fails.
    fn known_good_to_keep(&self) -> Option<&str> {
        let fails = self.failure.as_ref().is_some_and(|failure| !failure.partial);
        let assigned = self.assigned.revision.as_ref()?;
        let good = self.last_in_effect().filter(|good| Some(*good) != assigned.metadata.name.as_deref())?;
        let is_kept = fails && self.suspended.is_none() && !self.retry.puts_off_repair();
        (is_kept && !assigned.spec.template.suspend).then_some(good)
    }

    /// Returns the known good revision that is kept running because the assigned one fails, and what must be known of
    /// pods for it.
    pub fn kept_known_good(&self) -> Option<(Arc<BpfRevision>, RequiredInputs)> {
        let (good, required) = self.known_good.get(self.known_good_to_keep()?)?;
        let is_same_program = self.assigned.uid.as_ref() == Some(&good.spec.program_ref.uid);
        is_same_program.then(|| (Arc::clone(good), required))
    }

    /// Returns the name of the known good revision if the API server has to be asked for it: an earlier agent brought
    /// it into effect.
    pub fn known_good_to_fetch(&mut self, now: Instant) -> Option<String> {
        let good = self.known_good_to_keep().filter(|_| !self.is_awaiting())?.to_owned();
        self.known_good.asks_for(&good, now).then_some(good)
    }

    /// Takes the API server's answer about a known good revision.
    pub fn known_good_arrived(&mut self, name: &str, answer: Result<Arc<BpfRevision>, String>, now: Instant) {
        self.pending.dirty |= self.known_good.arrived(self.assigned.uid.as_deref(), name, answer, now);
    }

    /// Says why the known good revision is not kept as it should be, if the API server does not give it.
    pub fn known_good_gap(&self) -> Option<String> {
        let good = self.known_good_to_keep()?;
        let why = self.known_good.refusal(good)?;
        Some(format!("{good} stays where it is attached, and no new pod gets it: {why}"))
    }

    /// Reports whether a known good revision is kept running.
    pub fn keeps_known_good(&self) -> bool {
        self.kept_known_good().is_some()
    }
}
