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
    /// The entries of the revision that was last compared.
    pub(super) listed: Option<Listed>,
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

    /// Forgets the bytes that are of no more use: all but the object of what is desired.
    pub(super) fn hold_only(&mut self, digest: &str) {
        self.held.retain(|held, _| held == digest);
    }
}
