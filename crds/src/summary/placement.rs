//! `NodePlacement`: the state of one BpfProgram on one node, derived from that node's report. No IO.

use kube::ResourceExt as _;

use super::input::{Liveness, NodeView};
use crate::{
    BpfRevision, Reason,
    node::{NodeProgram, State},
    revision::ProgramRef,
};

/// The state of a BpfProgram on a node, worst first. Placements are listed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PlacementState {
    /// The node is Ready with its agent and reports that the current revision is not in effect, with the reason.
    Failed(Reason),
    /// The node is Ready with its agent and has not yet reported on the current revision.
    Pending,
    /// The node is not live.
    Unknown,
    /// The node is Ready and has no agent's pod.
    WithoutAgent,
    /// The node is Ready with its agent, not selected (any more), and still holds the program.
    Leaving,
    /// The node is Ready with its agent, and the program is detached there because someone asked for it.
    Suspended,
    /// The dispatched revision is in effect.
    InEffect,
}

/// A BpfProgram on a node, with the node's report on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodePlacement<'a> {
    pub node: &'a str,
    pub state: PlacementState,
    pub entry: Option<&'a NodeProgram>,
}

impl NodePlacement<'_> {
    /// Returns whether the current revision selects the node.
    pub fn is_selected(&self) -> bool {
        self.state != PlacementState::Leaving
    }

    /// Returns the message that the node reported.
    pub fn message(&self) -> Option<&str> {
        self.entry.and_then(|entry| entry.message.as_deref())
    }
}

/// Returns every node that the revision selects and every live node that still holds the program, worst first, then by
/// name.
pub(super) fn of<'a>(program: &ProgramRef, revision: &BpfRevision, nodes: &[NodeView<'a>]) -> Vec<NodePlacement<'a>> {
    let name = revision.name_any();
    sorted(nodes.iter().filter_map(|node| {
        let selected = revision.spec.template.selects(node.labels);
        let placed = |state, entry| NodePlacement { node: node.name, state, entry };
        match node.liveness {
            Liveness::Unknown => selected.then(|| placed(PlacementState::Unknown, None)),
            Liveness::WithoutAgent => selected.then(|| placed(PlacementState::WithoutAgent, None)),
            Liveness::Live => {
                let entry = node.program(program);
                match (selected, entry) {
                    (true, _) => Some(placed(state_of(&name, entry), entry)),
                    (false, Some(entry)) if is_only_unread(entry) => None,
                    (false, Some(_)) => Some(placed(PlacementState::Leaving, entry)),
                    (false, None) => None,
                }
            }
        }
    }))
}

/// Returns every live node that still holds the program, or that has not reported yet and so may hold it, by name. A
/// deletion waits for these.
pub(super) fn holders<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<NodePlacement<'a>> {
    let live = nodes.iter().filter(|node| node.liveness == Liveness::Live);
    sorted(live.filter_map(|node| {
        let entry = node.program(program);
        let may_hold = entry.is_some() || node.report.is_none();
        may_hold.then_some(NodePlacement { node: node.name, state: PlacementState::Leaving, entry })
    }))
}

/// Returns whether a node has nothing of the program, and reports it only because its agent is too old to read which
/// nodes the revision selects.
fn is_only_unread(entry: &NodeProgram) -> bool {
    let NodeProgram { revision, program_ids, map_ids, .. } = entry;
    entry.reason == Some(Reason::AgentTooOld) && revision.is_none() && program_ids.is_empty() && map_ids.is_empty()
}

fn sorted<'a>(placed: impl Iterator<Item = NodePlacement<'a>>) -> Vec<NodePlacement<'a>> {
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by_key(|p| (rank(p.state), p.node));
    placed
}

/// Ranks states for sorting. Failures rank equally whatever their reasons, so that they are sorted by node.
const fn rank(state: PlacementState) -> u8 {
    match state {
        PlacementState::Failed(_) => 0,
        PlacementState::Pending => 1,
        PlacementState::Unknown => 2,
        PlacementState::WithoutAgent => 3,
        PlacementState::Leaving => 4,
        PlacementState::Suspended => 5,
        PlacementState::InEffect => 6,
    }
}

fn state_of(current: &str, entry: Option<&NodeProgram>) -> PlacementState {
    let Some(entry) = entry else { return PlacementState::Pending };
    // A failure of an earlier revision says nothing about this one.
    let is_about_another_revision = || {
        let desired = entry.desired_revision.as_deref().or(entry.revision.as_deref());
        desired.is_some_and(|desired| desired != current)
    };
    match entry.state {
        State::Attached if entry.revision.as_deref() == Some(current) => PlacementState::InEffect,
        State::Attached | State::Removing => PlacementState::Pending,
        State::Suspended | State::Failed if is_about_another_revision() => PlacementState::Pending,
        State::Suspended => PlacementState::Suspended,
        State::Failed => PlacementState::Failed(entry.reason.unwrap_or(Reason::LoadFailed)),
    }
}
