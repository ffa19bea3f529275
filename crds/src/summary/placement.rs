//! `Standing`: how one BpfProgram stands on one node, told from that node's report. No IO.

use kube::ResourceExt as _;

use super::{Liveness, NodeView};
use crate::{
    BpfNodeStatus, BpfRevision, Reason,
    node::{Details, HeldProgram, State},
    revision::ProgramRef,
};

/// How a BpfProgram stands on a node, worst first: the order in which placements are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// The node is live and says that the dispatched revision is not in effect, and why.
    Failed(Reason),
    /// The node is live and has not yet said anything of the dispatched revision.
    Pending,
    /// The node is not live.
    Unknown,
    /// The node is Ready and has no agent.
    WithoutAgent,
    /// The node is live, is not selected (any more), and still holds it.
    Leaving,
    /// The node is live, and it is attached nowhere there because someone said so.
    Suspended,
    /// The dispatched revision is in effect.
    InEffect,
}

/// A BpfProgram on a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub node: &'a str,
    pub standing: Standing,
    pub entry: Option<&'a HeldProgram>,
    pub details: Option<&'a Details>,
}

impl Placed<'_> {
    /// Whether the dispatched revision selects the node.
    pub fn is_selected(&self) -> bool {
        self.standing != Standing::Leaving
    }

    /// The node's own words.
    pub fn message(&self) -> Option<&str> {
        self.details.and_then(|details| details.message.as_deref())
    }
}

/// Every node that the revision selects, and every live one that still holds the program; worst first, then by name.
pub(super) fn of<'a>(program: &ProgramRef, revision: &BpfRevision, nodes: &[NodeView<'a>]) -> Vec<Placed<'a>> {
    let name = revision.name_any();
    sorted(nodes.iter().filter_map(|node| {
        let selected = revision.spec.selects(node.labels);
        let placed = |standing, entry, details| Placed { node: node.name, standing, entry, details };
        match node.liveness {
            Liveness::Unknown => selected.then(|| placed(Standing::Unknown, None, None)),
            Liveness::WithoutAgent => selected.then(|| placed(Standing::WithoutAgent, None, None)),
            Liveness::Live => {
                let (entry, details) = find(program, node.report);
                match (selected, entry) {
                    (true, _) => Some(placed(judge(&name, entry, details), entry, details)),
                    (false, Some(_)) => Some(placed(Standing::Leaving, entry, details)),
                    (false, None) => None,
                }
            }
        }
    }))
}

/// Every live node that still holds the program, by name: what a deletion waits for.
pub(super) fn leftovers<'a>(program: &ProgramRef, nodes: &[NodeView<'a>]) -> Vec<Placed<'a>> {
    let live = nodes.iter().filter(|node| node.liveness == Liveness::Live);
    sorted(live.filter_map(|node| {
        let (entry, details) = find(program, node.report);
        entry.map(|entry| Placed { node: node.name, standing: Standing::Leaving, entry: Some(entry), details })
    }))
}

fn sorted<'a>(placed: impl Iterator<Item = Placed<'a>>) -> Vec<Placed<'a>> {
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by_key(|p| (rank(p.standing), p.node));
    placed
}

/// Failures stand together, sorted by node, whatever their reasons.
const fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Failed(_) => 0,
        Standing::Pending => 1,
        Standing::Unknown => 2,
        Standing::WithoutAgent => 3,
        Standing::Leaving => 4,
        Standing::Suspended => 5,
        Standing::InEffect => 6,
    }
}

/// The node's entry on this very object, not on an earlier one of the same name, and its details where there is room.
pub(super) fn find<'a>(
    program: &ProgramRef,
    report: Option<&'a BpfNodeStatus>,
) -> (Option<&'a HeldProgram>, Option<&'a Details>) {
    let ProgramRef { name, uid } = program;
    let Some(report) = report else { return (None, None) };
    let entry = report.programs.iter().find(|held| held.name == *name && held.uid == *uid);
    let details = entry.and_then(|_| report.details.iter().find(|details| details.name == *name));
    (entry, details)
}

fn judge(dispatched: &str, entry: Option<&HeldProgram>, details: Option<&Details>) -> Standing {
    let Some(entry) = entry else { return Standing::Pending };
    // What is said of an earlier revision says nothing of this one. Where details were cut, it is taken at its word.
    let of_an_earlier = || {
        let wanted = details.and_then(|details| details.wanted.as_deref());
        wanted.is_some_and(|wanted| wanted != dispatched)
    };
    match entry.state {
        State::Attached if entry.revision.as_deref() == Some(dispatched) => Standing::InEffect,
        State::Attached | State::Removing => Standing::Pending,
        State::Suspended | State::Failed if of_an_earlier() => Standing::Pending,
        State::Suspended => Standing::Suspended,
        State::Failed => Standing::Failed(entry.reason.unwrap_or(Reason::LoadFailed)),
    }
}
