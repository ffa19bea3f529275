//! The entries of one BpfProgram's maps, compared with what the maps hold.
//!
//! Entries are compared after each load and each edit, and whenever a BpfProgram is observed anew, as each sweep does.
//! A poll does not read maps.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::{Reason, node::DriftKind};
use sockeye_ebpf::{Object, values::settings::Settings};

use super::{Controller, bytes::RevisionBytes, drift::Change, entry_state::Listed};
use crate::{
    model::{
        assignment::Assignment,
        desired::Desired,
        entries::{EntryCounts, ListedMap, ListedMaps, listed_maps},
    },
    node::{
        Node,
        entries::{EntriesOutcome, EntriesTask},
        failure::Failure,
    },
};

impl<N: Node> Controller<N> {
    /// Refuses a revision whose entries would not fit into the maps that it finds, before anything of it is done.
    pub(super) fn check_entries(
        &mut self,
        name: &str,
        desired: &Desired,
        assignment: &Assignment,
    ) -> Result<(), Failure> {
        if self.touch(name).observed.maps.is_empty() {
            return Ok(());
        }
        let listed = self.listed(name, desired, assignment)?;
        // A map that is made anew, or taken from another BpfProgram, holds nothing of what is there now.
        let observed = &self.touch(name).observed.maps;
        let stays = |(map, its): &(&String, &ListedMap)| {
            let both = desired.maps.get(*map).zip(observed.get(&its.pin));
            both.is_some_and(|(map, pinned)| pinned.from == map.from && pinned.shape() == map.shape)
        };
        let kept: ListedMaps = listed.iter().filter(stays).map(|(map, its)| (map.clone(), its.clone())).collect();
        self.node.keep_entries(name, &kept, EntriesTask::Check).map(drop)
    }

    /// Compares the entries of all maps with the spec's, and writes those that are kept in step. A failure is no reason
    /// to stop following pods.
    pub(super) fn keep_entries(
        &mut self,
        name: &str,
        desired: &Desired,
        assignment: &Assignment,
    ) -> Result<(), Failure> {
        self.try_keep_entries(name, desired, assignment).map_err(|failure| Failure { partial: true, ..failure })
    }

    fn try_keep_entries(&mut self, name: &str, desired: &Desired, assignment: &Assignment) -> Result<(), Failure> {
        let listed = self.listed(name, desired, assignment)?;
        // Until they are compared and written, nothing is known to be in step: what is put off is no new change when
        // it is due.
        let was_in_step = self.touch(name).entries.in_step.take().as_deref() == Some(desired.revision.as_str());
        let outcomes = match was_in_step {
            true => self.repair_entries(name, &listed)?,
            false => self.node.keep_entries(name, &listed, EntriesTask::Apply)?,
        };
        let program = self.touch(name);
        let synced = outcomes.iter().filter(|outcome| outcome.now.sync);
        let pins = synced.filter_map(|outcome| listed.get(&outcome.map)).map(|map| map.pin.clone());
        program.observed.recorded.extend(pins);
        program.entries.counts = outcomes.iter().map(|outcome| (outcome.map.clone(), outcome.now)).collect();
        program.entries.hold_only(&[&desired.digest]);
        for EntriesOutcome { map, before, now, example } in &outcomes {
            if before != now {
                let (revision, key) = (program.revision(), example.as_deref());
                tracing::info!(program = name, revision, map, listed = now.listed, key, "entries written");
            }
        }
        if let Some(behind) = outcomes.iter().find(|outcome| outcome.now.sync && !outcome.now.is_current()) {
            let EntryCounts { listed, in_place, stale, .. } = behind.now;
            let message = format!(
                "map {}: {in_place} of {listed} entries are in place, and {stale} are to be deleted: others change \
                 them as fast as they are written",
                behind.map
            );
            return Err(Failure::new(Reason::EntriesNotInStep, message));
        }
        program.entries.in_step = Some(desired.revision.clone());
        Ok(())
    }

    /// Compares entries that were in step before: what differs, others have changed. It is written again, unless that
    /// is put off because they do so again and again.
    fn repair_entries(&mut self, name: &str, listed: &ListedMaps) -> Result<Vec<EntriesOutcome>, Failure> {
        let outcomes = self.node.keep_entries(name, listed, EntriesTask::Check)?;
        let changed = outcomes.iter().filter(|outcome| outcome.now.sync && !outcome.now.is_current());
        let changes: Vec<Change> = changed.map(|outcome| entries_changed(&outcome.map)).collect();
        let recorded = &self.touch(name).observed.recorded;
        let is_recorded = |pin: &String| recorded.contains(pin);
        if changes.is_empty() && listed.values().filter(|map| map.sync).all(|map| is_recorded(&map.pin)) {
            return Ok(outcomes);
        }
        let (now, time_of_day) = (self.now, (self.settings.time_of_day)());
        self.touch(name).record_drift(changes, now, time_of_day)?;
        self.node.keep_entries(name, listed, EntriesTask::Apply)
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

fn entries_changed(map: &str) -> Change {
    let message =
        format!("map {map}: entries that the spec keeps in step were changed or removed: they are written again");
    Change { kind: DriftKind::EntryChanged, message }
}
