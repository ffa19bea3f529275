//! The BpfProgram and the nodes that a status is computed from.

use std::collections::BTreeMap;

use crate::{BpfNodeStatus, BpfRevision, Reason, node::NodeProgram, revision::ProgramRef};

/// A node with its latest report.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The node's name.
    pub name: &'a str,
    /// The labels of the Node.
    pub labels: &'a BTreeMap<String, String>,
    /// The reliability of the report.
    pub liveness: Liveness,
    /// The status that the agent wrote last.
    pub report: Option<&'a BpfNodeStatus>,
}

impl<'a> NodeView<'a> {
    /// Returns what the report says of a BpfProgram.
    pub fn program(&self, program: &ProgramRef) -> Option<&'a NodeProgram> {
        self.report?.program(program)
    }
}

/// The reliability of a node's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The Node and its agent's pod are Ready.
    Live,
    /// The Node or its agent's pod is not Ready, so that the state on the node is unknown.
    Unknown,
    /// The Node is Ready and has no agent's pod.
    WithoutAgent,
}

/// The result of validating the latest spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The spec was accepted, and the current revision is made from it.
    Accepted {
        /// Notes for the user, for example that a pinning in the ELF object is ignored.
        notes: Vec<String>,
    },
    /// The spec was refused, and the revision that was dispatched before stays.
    Refused {
        /// The reason for the refusal.
        reason: Reason,
        /// The explanation for people.
        message: String,
    },
}

/// The BpfProgram that a status describes.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The name and UID of the BpfProgram.
    pub program: &'a ProgramRef,
    /// The latest generation.
    pub generation: i64,
    /// The result of validating that generation.
    pub acceptance: &'a Acceptance,
    /// The revision that agents are to run, made from the last accepted spec, if any.
    pub current: Option<&'a BpfRevision>,
    /// The names of the other BpfPrograms that use its maps, if the BpfProgram is to be deleted. The deletion waits for
    /// them.
    pub users: &'a [String],
}
