//! `Inputs`: what a revision is resolved with. Values.

use sockeye_crds::BpfRevisionSpec;

use crate::model::{node_context::NodeContext, observed::Observed};

/// The inputs of a resolution.
pub(super) struct Inputs<'a> {
    /// The revision.
    pub spec: &'a BpfRevisionSpec,
    /// The node.
    pub node_context: &'a NodeContext,
    /// The state of the BpfProgram, which says what its targets have selected before.
    pub observed: &'a Observed,
}
