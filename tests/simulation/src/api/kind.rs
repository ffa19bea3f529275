//! [`Kind`]: the kinds of objects that the model of the API server has.

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Program,
    Revision,
    Report,
    Node,
    Pod,
    ConfigMap,
    Lease,
    Event,
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Program, Self::Revision, Self::Report, Self::Node, Self::Pod, Self::ConfigMap, Self::Lease, Self::Event];

    /// The kinds that both the operator and the agents watch, or one of them.
    pub const WATCHED: [Self; 6] =
        [Self::Program, Self::Revision, Self::Report, Self::Node, Self::Pod, Self::ConfigMap];

    /// Returns the kind of this plural name.
    pub fn of(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Program => "bpfprograms",
            Self::Revision => "bpfrevisions",
            Self::Report => "bpfnodes",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::ConfigMap => "configmaps",
            Self::Lease => "leases",
            Self::Event => "events",
        }
    }

    /// Returns whether a status is written by a subresource alone.
    pub const fn has_status(self) -> bool {
        matches!(self, Self::Program | Self::Report)
    }
}
