//! [`Fault`]: deliberate mistakes, each of which some world must find. A check that finds none of them checks nothing.

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operator's patches and deletions name neither a UID nor a version.
    WritesNameNoVersion,
    /// The operator writes whether or not it leads.
    WritesWithoutLeading,
    /// Reports of nodes trigger no reconciliation.
    ReportsTriggerNothing,
    /// The operator takes no node for live.
    NodesSeemDead,
    /// The API server answers lists of revisions with those of a while ago.
    ListsAreOld,
    /// Agents take their stores for complete before these were listed.
    AssignsBeforeListing,
    /// A deletion of a revision does not reach the agents' stores.
    DeletionsAreMissed,
    /// Agents report once.
    ReportsOnce,
    /// Agents detach before they attach.
    DetachesFirst,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::WritesNameNoVersion,
        Self::WritesWithoutLeading,
        Self::ReportsTriggerNothing,
        Self::NodesSeemDead,
        Self::ListsAreOld,
        Self::AssignsBeforeListing,
        Self::DeletionsAreMissed,
        Self::ReportsOnce,
        Self::DetachesFirst,
    ];
}
