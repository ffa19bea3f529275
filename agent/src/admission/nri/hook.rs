//! `Starting` and `RuntimeHook`: the runtime's questions, and whether the runtime asks any. Values and channels.

use tokio::sync::oneshot;

use crate::model::start::{Decision, Start};

/// A start that the runtime holds back until the agent has answered. A start without an answer in time is refused.
#[derive(Debug)]
pub struct Starting {
    /// The pod or container. Of both only the cgroup exists: no program runs in it.
    pub start: Start,
    /// Takes the answer. A refusal fails the start; the kubelet shows it and tries again. Dropping the sender refuses
    /// too.
    pub answer: oneshot::Sender<Decision>,
}

/// Whether the runtime asks the agent before it starts containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeHook {
    /// The runtime does not ask: containers start at once.
    Disconnected {
        /// The reason, as far as the agent knows it.
        why: String,
    },
    /// The runtime asks from now on.
    Connected {
        /// The runtime's name.
        runtime: String,
        /// The runtime's version.
        version: String,
        /// The containers that the runtime had when it began to ask. It asked nobody about them, or another agent.
        running: Vec<Start>,
    },
}
