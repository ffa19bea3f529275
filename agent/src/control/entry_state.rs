//! `ProgramEntries`: what the agent remembers of the entries of one BpfProgram's maps. Values.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::program::MapSpec;

use crate::model::entries::{EntryCounts, ListedMaps};

/// What the agent remembers of the entries of one BpfProgram's maps.
#[derive(Clone, Debug, Default)]
pub struct ProgramEntries {
    /// The counts of the last comparison, by the maps' names in the ELF.
    pub counts: BTreeMap<String, EntryCounts>,
    /// The revision whose entries were all in step when they were last compared.
    pub(super) in_step: Option<String>,
    /// The entries of the revisions that were last compared: of the desired one, and of a known good one while the
    /// desired one fails.
    listed: Vec<Listed>,
    /// The object and the lists that are at hand, by digest: an edit of entries does not fetch the object again.
    pub(super) held: BTreeMap<String, Arc<[u8]>>,
}

/// The entries of a revision, and what they follow from.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) digest: String,
    pub(super) settings: Vec<MapSpec>,
    pub(super) maps: Arc<ListedMaps>,
}

impl ProgramEntries {
    /// Returns whether the entries of a revision were all in step when they were last compared.
    pub(super) fn is_in_step(&self, revision: &str) -> bool {
        self.in_step.as_deref() == Some(revision)
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

    /// Forgets the bytes that are of no more use: all but these.
    pub(super) fn hold_only(&mut self, digests: &[&str]) {
        self.held.retain(|held, _| digests.contains(&held.as_str()));
    }
}
