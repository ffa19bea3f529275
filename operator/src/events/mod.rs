//! Kubernetes Events about a BpfProgram: [`transitions`], [`origin`] and [`drift`] decide on them, [`budget`] bounds
//! those that quote nodes, [`publisher`] writes them. And Events on pods: [`refused`] decides on them, and
//! [`pod_events`] writes them.

pub mod budget;
pub mod drift;
pub mod origin;
pub mod pod_events;
pub mod publisher;
pub mod refused;
pub mod transitions;

use sockeye_crds::names;

/// An Event names at most this many nodes.
const MAX_NAMED_NODES: usize = 5;

/// The action of Events that follow from what nodes report.
pub const ATTACH: &str = "Attach";

/// An Event to publish about a BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramEvent {
    /// True for a Warning, false for a Normal Event.
    pub is_warning: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// The operation, in CamelCase.
    pub action: &'static str,
    /// The message.
    pub note: String,
    /// The nodes whose words the message quotes, if the [`EventBudget`](budget::EventBudget) has not allowed it yet.
    pub quoted: Vec<String>,
}

/// Lists nodes as part of a sentence: the first few names, then the number of the others.
fn list_nodes(nodes: &[&str]) -> String {
    names::list(nodes, MAX_NAMED_NODES)
}
