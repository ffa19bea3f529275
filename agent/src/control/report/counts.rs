//! The counts of a status. Pure.

use sockeye_crds::node::{self, NodeProgram, NodeProgramCounts, State};

use crate::model::entries::EntryCounts;

/// Returns the counts of a status.
pub fn counts(programs: &[NodeProgram], links: i64) -> NodeProgramCounts {
    let failed = programs.iter().filter(|p| !matches!(p.state, State::Attached | State::Suspended)).count();
    NodeProgramCounts { programs: count(programs.len()), failed: count(failed), links }
}

/// Returns the counts of a map's entries.
pub(super) fn entry_counts(counts: &EntryCounts) -> node::EntryCounts {
    node::EntryCounts { wanted: count(counts.listed), applied: count(counts.in_place) }
}

/// Returns a number as the API's integers are.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Returns how many items of so many a list of at most `max` leaves out.
pub(super) fn excess(items: usize, max: usize) -> i64 {
    count(items.saturating_sub(max))
}
