//! The entries of one BpfProgram's maps, compared with what the maps hold.
//!
//! Entries are compared after each load and each edit, and whenever a BpfProgram is observed anew. Those that are kept
//! in sync are compared again after ten seconds, or after longer if that takes long: nothing reports changes to a map.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use sockeye_crds::{Reason, node::DriftKind};
use sockeye_ebpf::{Object, values::settings::Settings};

use super::{
    Controller,
    bytes::{RevisionBytes, has_entries},
    drift::{self, Change},
    program::ProgramState,
    program_entries::{EntriesOnTrial, Listed},
};
use crate::{
    model::{
        assignment::Assignment,
        desired::Desired,
        entries::{EntryCounts, ListedMap, ListedMaps, listed_maps},
        observed::Observed,
    },
    node::{
        Node,
        entry_sync::{EntriesOutcome, EntriesTask},
        failure::Failure,
    },
};

impl<N: Node> Controller<N> {
    /// Begins the entries of a revision that is not in effect yet. Refuses those that would not fit. Returns whether
    /// they change entries in effect.
    pub(super) fn prepare_entries(
        &mut self,
        name: &str,
        desired: Option<&Desired>,
        assignment: &Assignment,
    ) -> Result<bool, Failure> {
        let is_new = |desired: &&Desired| self.touch(name).observed.revision.as_ref() != Some(&desired.revision);
        let Some(desired) = desired.filter(is_new) else { return Ok(false) };
        let changes = has_entries(desired) && self.check_entries(name, desired, assignment)?;
        let ProgramState { entries, observed: Observed { trial, .. }, .. } = self.touch(name);
        let open = trial.as_ref().filter(|trial| trial.state.is_open());
        entries.begin_revision(&desired.revision, changes, open.map(|trial| trial.revision.as_str()));
        Ok(changes)
    }

    /// Refuses a revision whose entries would not fit into the maps that it finds, before anything of it is done.
    /// Returns whether it changes entries of these maps.
    fn check_entries(&mut self, name: &str, desired: &Desired, assignment: &Assignment) -> Result<bool, Failure> {
        if self.touch(name).observed.maps.is_empty() {
            return Ok(false);
        }
        let listed = self.listed(name, desired, assignment)?;
        // A map that is made anew, or taken from another BpfProgram, holds nothing of what is there now.
        let observed = &self.touch(name).observed.maps;
        let stays = |(map, its): &(&String, &ListedMap)| {
            let both = desired.maps.get(*map).zip(observed.get(&its.pin));
            both.is_some_and(|(map, pinned)| pinned.from == map.from && pinned.shape() == map.shape)
        };
        let kept: ListedMaps = listed.iter().filter(stays).map(|(map, its)| (map.clone(), its.clone())).collect();
        let outcomes = self.node.sync_entries(name, &kept, EntriesTask::Check)?;
        Ok(outcomes.iter().any(|outcome| outcome.now.sync && !outcome.now.is_current()))
    }

    /// Writes the entries again that were listed before a revision changed them that is reverted. What programs have
    /// added stays; the agent knows only what it has kept in sync.
    pub(super) fn restore_entries(&mut self, name: &str, revision: &str) -> Result<(), Failure> {
        let ProgramState { entries, observed, desired, .. } = self.touch(name);
        let on_trial = entries.on_trial.take_if(|on_trial| on_trial.revision == revision);
        // Nothing reads them where everything is detached.
        let Some(EntriesOnTrial { former, .. }) = on_trial.filter(|_| !observed.links.is_empty()) else {
            return Ok(());
        };
        let unknown = || Failure::new(Reason::NotInEffect, "the entries of before the trial are not known");
        let former = former.ok_or_else(unknown)?;
        let is_known = |map: &String| former.get(map).is_some_and(|former| former.sync);
        let mut maps = desired.iter().flat_map(|desired| &desired.maps);
        if maps.any(|(name, map)| map.sync && !is_known(name)) {
            return Err(unknown());
        }
        entries.synced = None;
        let outcomes = self.node.sync_entries(name, &former, EntriesTask::Apply)?;
        check_synced(&outcomes)
    }

    /// Compares the entries of all maps with the spec's, and writes those that are kept in sync. A failure is no reason
    /// to stop following pods.
    pub(super) fn sync_entries(
        &mut self,
        name: &str,
        desired: &Desired,
        assignment: &Assignment,
    ) -> Result<(), Failure> {
        self.try_sync_entries(name, desired, assignment).map_err(|failure| Failure { partial: true, ..failure })
    }

    fn try_sync_entries(&mut self, name: &str, desired: &Desired, assignment: &Assignment) -> Result<(), Failure> {
        let now = self.now;
        self.touch(name).entries.put_off_check(now);
        let listed = self.listed(name, desired, assignment)?;
        // Until they are compared and written, nothing is known to be in sync: what is put off is no new change when
        // it is due.
        let begin = Instant::now();
        let was_synced = self.touch(name).entries.is_synced(&desired.revision);
        self.touch(name).entries.synced = None;
        let outcomes = match was_synced {
            true => self.repair_entries(name, &listed)?,
            false => self.node.sync_entries(name, &listed, EntriesTask::Apply)?,
        };
        let program = self.touch(name);
        let synced = outcomes.iter().filter(|outcome| outcome.now.sync);
        let pins = synced.filter_map(|outcome| listed.get(&outcome.map)).map(|map| map.pin.clone());
        program.observed.recorded.extend(pins);
        program.entries.counts = outcomes.iter().map(|outcome| (outcome.map.clone(), outcome.now)).collect();
        program.entries.held.hold_only(&desired.revision, &[&desired.digest]);
        program.entries.compared(now, begin.elapsed());
        for EntriesOutcome { map, before, now, example } in &outcomes {
            if before != now {
                let (revision, key) = (program.revision(), example.as_deref());
                tracing::info!(program = name, revision, map, listed = now.listed, key, "entries written");
            }
        }
        check_synced(&outcomes)?;
        self.touch(name).entries.synced = Some((desired.revision.clone(), listed));
        Ok(())
    }

    /// Forgets the entries of a BpfProgram after an attempt for a revision that has none. Where that was the known good
    /// one, the bytes stay that have come for the assigned one.
    pub(super) fn forget_entries(&mut self, name: &str, desired: Option<&Desired>) {
        let program = self.touch(name);
        let attempted = desired.map(|desired| desired.revision.as_str());
        let waiting = program.revision().filter(|assigned| Some(*assigned) != attempted).map(str::to_owned);
        program.entries.forget(waiting.as_deref());
    }

    /// Marks the BpfPrograms whose entries are to be compared again. Returns whether there are any.
    pub(super) fn mark_entries(&mut self) -> bool {
        let now = self.now;
        let mut is_due = false;
        let is_compared = |_: &str, program: &ProgramState| {
            (program.failure.is_none() || program.keeps_known_good()) && program.entries.is_check_due(now)
        };
        for program in self.programs.those_mut(is_compared) {
            program.pending.dirty = true;
            is_due = true;
        }
        is_due
    }

    /// Compares entries that were in sync before: what differs, others have changed. It is written again, unless that
    /// is put off because they do so again and again.
    fn repair_entries(&mut self, name: &str, listed: &ListedMaps) -> Result<Vec<EntriesOutcome>, Failure> {
        let outcomes = self.node.sync_entries(name, listed, EntriesTask::Check)?;
        let changed = outcomes.iter().filter(|outcome| outcome.now.sync && !outcome.now.is_current());
        let changes: Vec<Change> = changed.map(|outcome| entries_changed(&outcome.map)).collect();
        let recorded = &self.touch(name).observed.recorded;
        let is_recorded = |pin: &String| recorded.contains(pin);
        if changes.is_empty() && listed.values().filter(|map| map.sync).all(|map| is_recorded(&map.pin)) {
            return Ok(outcomes);
        }
        let (now, time_of_day) = (self.now, (self.settings.time_of_day)());
        drift::count(&self.metrics, &changes);
        self.touch(name).record_drift(changes, now, time_of_day)?;
        self.node.sync_entries(name, listed, EntriesTask::Apply)
    }

    /// Returns the entries that a revision lists, as bytes.
    fn listed(&mut self, name: &str, desired: &Desired, assignment: &Assignment) -> Result<Arc<ListedMaps>, Failure> {
        if let Some(maps) = self.touch(name).entries.listed(&desired.digest, &desired.settings) {
            return Ok(maps);
        }
        let RevisionBytes { object, lists } = self.revision_bytes(name, desired, assignment)?;
        let object = Object::read(&object).map_err(|error| Failure::new(Reason::InvalidObject, error.to_string()))?;
        let mut settings = Settings::read_with(&object, &BTreeMap::new(), &desired.settings, &lists)
            .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
        let maps = Arc::new(listed_maps(desired, &mut settings));
        let (digest, settings) = (desired.digest.clone(), desired.settings.clone());
        self.touch(name).entries.remember(Listed { digest, settings, maps: Arc::clone(&maps) });
        Ok(maps)
    }
}

/// Fails if entries that were written are not in sync.
fn check_synced(outcomes: &[EntriesOutcome]) -> Result<(), Failure> {
    let behind = outcomes.iter().find(|outcome| outcome.now.sync && !outcome.now.is_current());
    let Some(EntriesOutcome { map, now: EntryCounts { listed, in_place, stale, .. }, .. }) = behind else {
        return Ok(());
    };
    let message = format!(
        "map {map}: {in_place} of {listed} entries are in place, and {stale} are to be deleted: others change them as \
         fast as they are written. Keep them from it, or leave entriesPolicy out"
    );
    Err(Failure::new(Reason::EntriesNotInStep, message))
}

fn entries_changed(map: &str) -> Change {
    let message =
        format!("map {map}: entries that the spec keeps in step were changed or removed: they are written again");
    Change { kind: DriftKind::EntryChanged, message }
}

#[cfg(test)]
mod tests {
    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn entries_that_others_change_are_counted() {
        let now = EntryCounts { sync: true, listed: 4, in_place: 3, stale: 1 };
        let outcome = EntriesOutcome { map: "allowed".to_owned(), before: now, now, example: None };
        let Failure { reason, message, .. } = check_synced(&[outcome]).unwrap_err();
        assert_eq!(reason, Reason::EntriesNotInStep);
        assert!(message.starts_with("map allowed: 3 of 4 entries are in place, and 1 are to be deleted"), "{message}");
        provoked(reason, &message);
    }
}
