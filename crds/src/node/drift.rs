//! `Drift`: a change to a BpfProgram's objects on a node of which users of these should know: most are others'.

use serde::{Deserialize, Serialize};

/// A change to a BpfProgram's objects of which users of these should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The time at which the agent last detected the change (RFC 3339, seconds).
    pub seen_time: String,
    /// The kind of the change.
    pub kind: DriftKind,
    /// The change and how the agent dealt with it, for people.
    pub message: String,
    /// The number of times that the same change was detected.
    #[serde(default)]
    pub count: i64,
}

/// The kinds of changes to a BpfProgram's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DriftKind {
    /// A pin or a note of sockeye was removed or replaced.
    PinRemoved,
    /// A link of sockeye was detached.
    LinkDetached,
    /// A program that is not sockeye's was attached to the same cgroup and attach type.
    AttachedBeside,
    /// A map was made anew, as `onIncompatible: Recreate` asks for: its pin holds another map, without the content.
    MapRecreated,
    /// An entry that the spec keeps in step was changed or removed.
    EntryChanged,
    /// The kind comes from a newer agent, and this version does not know it.
    #[serde(other)]
    Other,
}

impl DriftKind {
    /// Returns the name that an Event shows: the variant's own.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}
