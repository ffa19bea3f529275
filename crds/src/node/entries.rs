//! `EntryCounts`: how many of the entries that a spec lists a node's maps have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The entries that a spec lists, and those that are in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryCounts {
    /// The number of entries that the spec lists.
    #[schemars(range(min = 0))]
    pub wanted: i64,
    /// The number of those that are in the kernel's map with the listed value, as last compared: after a load, after an
    /// edit, and at least every five minutes.
    #[schemars(range(min = 0))]
    pub applied: i64,
}

impl EntryCounts {
    /// Returns the sum of two counts.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { wanted: self.wanted.saturating_add(other.wanted), applied: self.applied.saturating_add(other.applied) }
    }

    /// Returns whether all entries are in place.
    pub const fn is_complete(&self) -> bool {
        self.applied >= self.wanted
    }
}
