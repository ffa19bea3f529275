//! The architecture of this node, and a revision as it is there. Pure.

use sockeye_crds::BpfRevision;

/// The architecture that this agent is built for, in Go's words, as image indexes and Nodes have it.
pub const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

/// Returns a revision as this node runs it: with the object for its architecture. One that has none for it keeps all of
/// them, and can't be resolved here.
pub fn on_this_architecture(mut revision: BpfRevision) -> BpfRevision {
    if let Some(template) = revision.spec.template.on_architecture(ARCHITECTURE) {
        revision.spec.template = template;
    }
    revision
}
