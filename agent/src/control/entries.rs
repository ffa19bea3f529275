//! The entries of one BpfProgram's maps: the bytes that list them, and the comparison with what the maps hold.
//!
//! Entries are compared after each load and each edit, and whenever a BpfProgram is observed anew, as each sweep does.
//! A poll does not read maps.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::{Reason, node::DriftKind, program::MapSpec};
use sockeye_ebpf::{
    Object,
    values::{list::Lists, settings::Settings},
};

use super::{Controller, drift::Change};
use crate::{
    model::{
        assignment::Assignment,
        desired::Desired,
        entries::{EntryCounts, ListedMaps, listed_maps},
    },
    node::{
        Node,
        entries::{EntriesOutcome, EntriesTask},
        failure::Failure,
    },
};

/// What the agent remembers of the entries of one BpfProgram's maps.
#[derive(Clone, Debug, Default)]
pub struct ProgramEntries {
    /// The counts of the last comparison, by the maps' names in the ELF.
    pub counts: BTreeMap<String, EntryCounts>,
    /// The revision whose entries were all in step when they were last compared.
    in_step: Option<String>,
    /// The entries of the revision that was last compared.
    listed: Option<Listed>,
    /// The object and the lists that are at hand, by digest: an edit of entries does not fetch the object again.
    held: BTreeMap<String, Arc<[u8]>>,
}

/// The entries of a revision, and what they follow from.
#[derive(Clone, Debug)]
struct Listed {
    digest: String,
    settings: Vec<MapSpec>,
    maps: Arc<ListedMaps>,
}

impl ProgramEntries {
    /// Forgets the bytes that are of no more use: all but the object of what is desired.
    fn hold_only(&mut self, digest: &str) {
        self.held.retain(|held, _| held == digest);
    }
}

/// The bytes that a revision needs.
pub(super) struct RevisionBytes {
    /// The object's.
    pub object: Arc<[u8]>,
    /// Those of the lists of entries.
    pub lists: Lists,
}

/// Reports whether the content of any map is compared with the spec's.
pub(super) fn has_entries(desired: &Desired) -> bool {
    desired.settings.iter().any(MapSpec::has_entries)
}

impl<N: Node> Controller<N> {
    /// Returns the bytes that a revision needs and that are at hand; has the others fetched.
    pub(super) fn revision_bytes(
        &mut self,
        name: &str,
        desired: &Desired,
        assignment: &Assignment,
    ) -> Result<RevisionBytes, Failure> {
        if !has_entries(desired) {
            return Ok(RevisionBytes { object: self.object(&desired.digest, assignment)?, lists: Lists::new() });
        }
        let lists = desired.settings.iter().filter_map(|map| Some((map.name.clone(), map.list_digest()?)));
        let lists: Vec<(String, &str)> = lists.collect();
        let mut missing: Option<Failure> = None;
        // All are asked for at once. What has come is held until the last one has.
        for digest in lists.iter().map(|(_, digest)| *digest).chain([desired.digest.as_str()]) {
            if self.touch(name).entries.held.contains_key(digest) {
                continue;
            }
            match self.object(digest, assignment) {
                Ok(bytes) => drop(self.touch(name).entries.held.insert(digest.to_owned(), bytes)),
                Err(failure) if missing.as_ref().is_none_or(|missing| missing.awaits) => missing = Some(failure),
                Err(_) => {}
            }
        }
        if let Some(missing) = missing {
            return Err(missing);
        }
        let held = &self.touch(name).entries.held;
        let get = |digest: &str| held.get(digest).cloned().ok_or_else(|| Failure::internal("bytes are not held"));
        let object = get(&desired.digest)?;
        let lists = lists.into_iter().map(|(map, digest)| Ok((map, get(digest)?))).collect::<Result<_, Failure>>()?;
        Ok(RevisionBytes { object, lists })
    }

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
        self.node.keep_entries(name, &listed, EntriesTask::Check).map(drop)
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
        let was_in_step = self.touch(name).entries.in_step.as_ref() == Some(&desired.revision);
        let outcomes = match was_in_step {
            true => self.repair_entries(name, &listed)?,
            false => self.node.keep_entries(name, &listed, EntriesTask::Apply)?,
        };
        let program = self.touch(name);
        let synced = outcomes.iter().filter(|outcome| outcome.now.sync);
        let pins = synced.filter_map(|outcome| listed.get(&outcome.map)).map(|map| map.pin.clone());
        program.observed.recorded.extend(pins);
        program.entries.counts = outcomes.iter().map(|outcome| (outcome.map.clone(), outcome.now)).collect();
        program.entries.hold_only(&desired.digest);
        program.entries.in_step = None;
        for EntriesOutcome { map, before, now, example } in &outcomes {
            if before != now {
                let (revision, key) = (program.revision(), example.as_deref());
                tracing::info!(program = name, revision, map, listed = now.listed, key, "entries written");
            }
        }
        if let Some(behind) = outcomes.iter().find(|outcome| outcome.now.sync && !outcome.now.is_current()) {
            let EntryCounts { listed, in_place, stale, .. } = behind.now;
            let message = format!(
                "map {}: {in_place} of {listed} entries are in place, and {stale} are to be deleted: others change them \
                 as fast as they are written",
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
        if let Some(listed) = &self.touch(name).entries.listed
            && listed.digest == desired.digest
            && listed.settings == desired.settings
        {
            return Ok(Arc::clone(&listed.maps));
        }
        let RevisionBytes { object, lists } = self.revision_bytes(name, desired, assignment)?;
        let object = Object::read(&object).map_err(|error| Failure::new(Reason::InvalidObject, error.to_string()))?;
        let mut settings = Settings::read_with(&object, &BTreeMap::new(), &desired.settings, &lists)
            .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
        let maps = Arc::new(listed_maps(desired, &mut settings));
        let (digest, settings) = (desired.digest.clone(), desired.settings.clone());
        self.touch(name).entries.listed = Some(Listed { digest, settings, maps: Arc::clone(&maps) });
        Ok(maps)
    }
}

fn entries_changed(map: &str) -> Change {
    let message =
        format!("map {map}: entries that the spec keeps in step were changed or removed: they are written again");
    Change { kind: DriftKind::EntryChanged, message }
}
