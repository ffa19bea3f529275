//! `PinNames`: the notes of one BpfProgram and the names of its pins. Values.

use std::collections::BTreeSet;

use super::{
    kept_pod::KeptPod,
    observed::{LinkKey, Observed},
    trial::Trial,
};

/// The notes of one BpfProgram and the names of its pins: enough to read the rest without listing directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinNames {
    /// The BpfProgram's UID.
    pub uid: Option<String>,
    /// The revision in effect.
    pub revision: Option<String>,
    /// The connectivity trial.
    pub trial: Option<Trial>,
    /// Pinned programs, by function.
    pub functions: BTreeSet<String>,
    /// Pinned maps.
    pub maps: BTreeSet<String>,
    /// Pinned links.
    pub links: BTreeSet<LinkKey>,
    /// Noted pods that keepers go on selecting.
    pub kept_pods: BTreeSet<KeptPod>,
    /// Maps to retain after the BpfProgram is deleted.
    pub retained: BTreeSet<String>,
    /// Maps that are shared from other BpfPrograms.
    pub shared: BTreeSet<String>,
    /// Maps whose entries were kept in sync.
    pub recorded: BTreeSet<String>,
    /// True if sockets are to be taken out of maps at once.
    pub force_detach: bool,
    /// True if a killed agent left half-made pins or an empty home.
    pub stray: bool,
}

impl PinNames {
    /// Returns the notes and names of an observed state.
    pub fn of(observed: &Observed) -> Self {
        let Observed {
            uid,
            claimed: _,
            revision,
            trial,
            previous: _,
            functions,
            maps,
            links,
            kept_pods,
            retained,
            recorded,
            switch: _,
            force_detach,
            stray,
        } = observed;
        Self {
            uid: uid.clone(),
            revision: revision.clone(),
            trial: trial.clone(),
            functions: functions.keys().cloned().collect(),
            maps: maps.keys().cloned().collect(),
            links: links.keys().cloned().collect(),
            kept_pods: kept_pods.keys().cloned().collect(),
            retained: retained.clone(),
            shared: maps.iter().filter(|(_, map)| map.from.is_some()).map(|(pin, _)| pin.clone()).collect(),
            recorded: recorded.clone(),
            force_detach: *force_detach,
            stray: *stray,
        }
    }
}
