//! `ProgramEntries`: what the agent remembers of the entries of one BpfProgram's maps. Values.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_crds::program::MapSpec;

use super::held_bytes::HeldBytes;
use crate::model::entries::{EntryCounts, ListedMaps};

/// The least time between two comparisons of synced entries.
const CHECK: Duration = Duration::from_secs(10);
/// The next comparison waits at least this many times as long as the last one took.
const SHARE: u32 = 200;

/// What the agent remembers of the entries of one BpfProgram's maps.
#[derive(Clone, Debug, Default)]
pub struct ProgramEntries {
    /// The counts of the last comparison, by the maps' names in the ELF.
    pub counts: BTreeMap<String, EntryCounts>,
    /// The revision whose entries were all in sync when they were last compared, and these entries.
    pub(super) synced: Option<(String, Arc<ListedMaps>)>,
    /// When they are to be compared again, if any are kept in sync: nothing reports that somebody changes a map.
    pub(super) next_check: Option<Instant>,
    /// The entries that a revision on trial changed.
    pub(super) on_trial: Option<EntriesOnTrial>,
    /// The entries of the revisions that were last compared: of the desired one, and of a known good one while the
    /// desired one fails.
    listed: Vec<Listed>,
    /// The objects and the lists that are at hand: an edit of entries does not fetch the object again.
    pub(super) held: HeldBytes,
}

/// Entries that a revision on trial changed.
#[derive(Clone, Debug)]
pub(super) struct EntriesOnTrial {
    /// The revision.
    pub(super) revision: String,
    /// The entries that were in sync before the trial; absent if this agent does not know them.
    pub(super) former: Option<Arc<ListedMaps>>,
}

/// The entries of a revision, and what they follow from.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) digest: String,
    pub(super) settings: Vec<MapSpec>,
    pub(super) maps: Arc<ListedMaps>,
}

impl ProgramEntries {
    /// Returns whether the entries of a revision were all in sync when they were last compared.
    pub(super) fn is_synced(&self, revision: &str) -> bool {
        self.synced.as_ref().is_some_and(|(synced, _)| synced == revision)
    }

    /// Begins a revision. If it changes entries in effect, remembers the former ones for a revert. If `open` is on
    /// trial, keeps the ones from before that trial.
    pub(super) fn begin_revision(&mut self, revision: &str, changes: bool, open: Option<&str>) {
        let goes_on = |before: &EntriesOnTrial| before.revision == revision || Some(before.revision.as_str()) == open;
        let goes_on = self.on_trial.take().filter(goes_on);
        let former = self.synced.as_ref().map(|(_, maps)| Arc::clone(maps));
        let on_trial = goes_on.or_else(|| changes.then(|| EntriesOnTrial { revision: String::new(), former }));
        self.on_trial = on_trial.map(|on_trial| EntriesOnTrial { revision: revision.to_owned(), ..on_trial });
    }

    /// Forgets all but what is to be gone back to after a trial, and the bytes that have come for a revision that waits
    /// for more.
    pub(super) fn forget(&mut self, waiting: Option<&str>) {
        self.held.forget_but(waiting);
        *self = Self { on_trial: self.on_trial.take(), held: mem::take(&mut self.held), ..Self::default() };
    }

    /// Schedules the next comparison after one that took this long.
    pub(super) fn compared(&mut self, now: Instant, took: Duration) {
        let is_any = self.counts.values().any(|counts| counts.sync);
        self.next_check = is_any.then(|| now + CHECK.max(took.saturating_mul(SHARE)));
    }

    /// Puts the next comparison off: one begins, and may fail.
    pub(super) fn put_off_check(&mut self, now: Instant) {
        self.next_check = self.next_check.map(|_| now + CHECK);
    }

    /// Returns whether a comparison is due.
    pub(super) fn is_check_due(&self, now: Instant) -> bool {
        self.next_check.is_some_and(|at| at <= now)
    }

    /// Returns the entries that follow from an object and settings, if they are remembered.
    pub(super) fn listed(&self, digest: &str, settings: &[MapSpec]) -> Option<Arc<ListedMaps>> {
        let listed = self.listed.iter().find(|listed| listed.digest == digest && listed.settings == settings)?;
        Some(Arc::clone(&listed.maps))
    }

    /// Remembers the entries of a revision.
    pub(super) fn remember(&mut self, listed: Listed) {
        self.listed.insert(0, listed);
        self.listed.truncate(2);
    }
}
