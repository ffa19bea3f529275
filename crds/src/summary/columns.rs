//! The counts, the columns of `kubectl get` and the listed nodes, from the states on all nodes. No IO.

use std::collections::BTreeSet;

use super::{
    conditions::in_effect,
    placement::{NodePlacement, PlacementState},
    text::{join_few, message_or_reason},
};
use crate::{
    BpfRevision, Reason,
    names::clip,
    node::{EntryCounts, NodeProgram},
    program::{EntriesSummary, NodeCounts, NodeStatus, Summary},
    size,
};

/// The maximum number of nodes that a status lists.
pub const MAX_NODES: usize = 64;
/// The maximum size of the listed nodes, in bytes of JSON.
pub const MAX_NODES_BYTES: usize = 56 << 10;
/// The maximum number of nodes whose IDs a narrow column has.
const MAX_NARROW: usize = 2;
/// The maximum number of nodes whose IDs a wide column has.
const MAX_WIDE: usize = 16;
/// The maximum number of revisions in a column.
const MAX_REVISIONS: usize = 3;
/// The maximum number of bytes of the IDs in a narrow column and in a wide one. The schema has room for ",+N" besides.
const MAX_NARROW_BYTES: usize = Summary::MAX_NARROW_TEXT - 24;
const MAX_WIDE_BYTES: usize = Summary::MAX_WIDE_TEXT - 24;

/// Counts the nodes in each state.
pub(super) fn counts(placed: &[NodePlacement<'_>]) -> NodeCounts {
    let count = |counts: &dyn Fn(&NodePlacement<'_>) -> bool| placed.iter().filter(|p| counts(p)).count() as i64;
    NodeCounts {
        desired: count(&|p| p.is_selected()),
        updated: count(&|p| p.state == PlacementState::InEffect),
        attached: count(&|p| match p.state {
            PlacementState::InEffect => true,
            PlacementState::Pending => holds_a_revision(p),
            PlacementState::Failed(_)
            | PlacementState::Unknown
            | PlacementState::WithoutAgent
            | PlacementState::Leaving
            | PlacementState::Suspended => false,
        }),
        suspended: count(&|p| p.state == PlacementState::Suspended),
        failed: count(&|p| matches!(p.state, PlacementState::Failed(_))),
        unknown: count(&|p| p.state == PlacementState::Unknown),
        without_agent: count(&|p| p.state == PlacementState::WithoutAgent),
    }
}

/// Counts the nodes on which a revision is in effect.
pub(super) fn attached(placed: &[NodePlacement<'_>]) -> i64 {
    placed.iter().filter(|p| holds_a_revision(p)).count() as i64
}

fn holds_a_revision(placed: &NodePlacement<'_>) -> bool {
    placed.entry.is_some_and(|entry| entry.revision.is_some())
}

/// Returns the columns of `kubectl get`. `current` is absent while the BpfProgram is being deleted.
pub(super) fn summary(program_type: String, current: Option<&BpfRevision>, placed: &[NodePlacement<'_>]) -> Summary {
    let sum = |of: fn(&NodeProgram) -> i64| placed.iter().filter_map(|p| p.entry).map(of).fold(0, i64::saturating_add);
    let selects_pods = current.is_none_or(|current| current.spec.template.pods_targets().next().is_some());
    let pods = sum(|entry| entry.pods);
    Summary {
        program_type,
        pods: selects_pods.then_some(pods),
        links: sum(|entry| entry.links),
        running_revisions: running_revisions(placed),
        program_ids: narrow_ids(placed, |entry| &entry.program_ids),
        map_ids: narrow_ids(placed, |entry| &entry.map_ids),
        all_program_ids: wide_ids(placed, |entry| &entry.program_ids),
        all_map_ids: wide_ids(placed, |entry| &entry.map_ids),
    }
}

/// Joins the revisions in effect on Ready nodes, each once, the first few by name.
fn running_revisions(placed: &[NodePlacement<'_>]) -> String {
    let names: BTreeSet<&str> = in_effect(placed.iter()).collect();
    join_few(names, MAX_REVISIONS, ",")
}

/// Sums up the entries of maps over all nodes that report them.
pub(super) fn entries(placed: &[NodePlacement<'_>]) -> Option<EntriesSummary> {
    let reported = placed.iter().filter(|p| p.is_selected()).filter_map(|p| Some((p.node, p.entry?.entries?)));
    let mut differing: Vec<&str> =
        reported.clone().filter(|(_, counts)| !counts.is_complete()).map(|(node, _)| node).collect();
    differing.sort_unstable();
    let EntryCounts { wanted, applied } = reported.map(|(_, counts)| counts).reduce(EntryCounts::plus)?;
    Some(EntriesSummary {
        wanted,
        applied,
        differing: differing.len() as i64,
        differing_nodes: differing.into_iter().take(MAX_WIDE).map(str::to_owned).collect(),
    })
}

/// Returns the types of a revision's programs, each once.
pub(super) fn program_type(revision: &BpfRevision) -> String {
    let mut types: Vec<&str> = Vec::new();
    for name in revision.spec.template.programs.iter().filter_map(|p| p.program_type).map(|t| t.as_str()) {
        if !types.contains(&name) {
            types.push(name);
        }
    }
    clip(&types.join(","), 256)
}

/// Returns each node's IDs, ordered by node, without the nodes that have none.
fn ids_by_node<'a>(placed: &[NodePlacement<'a>], of: impl Fn(&'a NodeProgram) -> &'a Vec<i64>) -> Vec<&'a Vec<i64>> {
    let mut by_node: Vec<_> = placed.iter().filter_map(|p| Some((p.node, of(p.entry?)))).collect();
    by_node.retain(|(_, ids)| !ids.is_empty());
    by_node.sort_by_key(|(node, _)| *node);
    by_node.into_iter().map(|(_, ids)| ids).collect()
}

fn narrow_ids<'a>(placed: &[NodePlacement<'a>], of: impl Fn(&'a NodeProgram) -> &'a Vec<i64>) -> String {
    let by_node = ids_by_node(placed, of);
    if by_node.len() > MAX_NARROW { String::new() } else { first_ids(&by_node, MAX_NARROW, MAX_NARROW_BYTES) }
}

fn wide_ids<'a>(placed: &[NodePlacement<'a>], of: impl Fn(&'a NodeProgram) -> &'a Vec<i64>) -> String {
    first_ids(&ids_by_node(placed, of), MAX_WIDE, MAX_WIDE_BYTES)
}

/// Joins the IDs of the first nodes that have room, then the number of further IDs: "12,15,+394". All IDs of a node are
/// shown, or none; but of one that fills the column by itself, the first ones.
fn first_ids(by_node: &[&Vec<i64>], nodes: usize, room: usize) -> String {
    let (mut shown, mut bytes): (Vec<String>, usize) = (Vec::new(), 0);
    for ids in by_node.iter().take(nodes) {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        let ends = ids.iter().scan(bytes, |end, id| {
            *end += id.len() + 1;
            Some(*end)
        });
        let fitting: Vec<usize> = ends.take_while(|end| *end <= room).collect();
        let is_whole = fitting.len() == ids.len();
        if is_whole || shown.is_empty() {
            bytes = fitting.last().copied().unwrap_or(bytes);
            shown.extend(ids.into_iter().take(fitting.len()));
        }
        if !is_whole {
            break;
        }
    }
    let all: usize = by_node.iter().map(|ids| ids.len()).sum();
    let more = all - shown.len();
    shown.extend((more > 0).then(|| format!("+{more}")));
    shown.join(",")
}

/// Returns the first nodes in the given order, as many as fit, and the number of those left out.
pub(super) fn node_statuses(placed: &[NodePlacement<'_>], current: Option<&str>) -> (Vec<NodeStatus>, i64) {
    let mut room = MAX_NODES_BYTES;
    let fits = |status: &NodeStatus| {
        let bytes = size::json_len(status) + 1;
        room = room.saturating_sub(bytes);
        room > 0
    };
    let shown = placed.iter().take(MAX_NODES).map(|p| node_status(p, current)).take_while(fits);
    let shown: Vec<NodeStatus> = shown.collect();
    let omitted = placed.len().saturating_sub(shown.len());
    (shown, omitted as i64)
}

fn node_status(placed: &NodePlacement<'_>, current: Option<&str>) -> NodeStatus {
    let NodePlacement { node, state, entry } = *placed;
    let (reason, message) = match state {
        PlacementState::InEffect => (None, None),
        PlacementState::Failed(reason) => (Some(reason), Some(message_or_reason(placed, reason))),
        PlacementState::Pending => (Some(Reason::Progressing), None),
        PlacementState::Unknown => (
            Some(Reason::NodeNotReady),
            Some(
                "what runs there is not known, because the node or its agent's pod is not Ready: look at both"
                    .to_owned(),
            ),
        ),
        PlacementState::WithoutAgent => (
            Some(Reason::AgentMissing),
            Some("the node has no agent: see the DaemonSet's node selector and tolerations".to_owned()),
        ),
        PlacementState::Suspended => (Some(Reason::Suspended), Some(message_or_reason(placed, Reason::Suspended))),
        PlacementState::Leaving => {
            let reason = if current.is_some() { Reason::Progressing } else { Reason::Deleting };
            let message = placed.message().unwrap_or("no longer wanted here; being removed");
            (Some(reason), Some(message.to_owned()))
        }
    };
    let of_entry = |of: fn(&NodeProgram) -> &Vec<i64>| entry.map(of).cloned().unwrap_or_default();
    NodeStatus {
        node_name: node.to_owned(),
        revision: entry.and_then(|e| e.revision.clone()).filter(|revision| Some(revision.as_str()) != current),
        reason,
        message: message.map(|message| clip(&message, 512)),
        pods: entry.map_or(0, |entry| entry.pods),
        links: entry.map_or(0, |entry| entry.links),
        program_ids: of_entry(|entry| &entry.program_ids),
        map_ids: of_entry(|entry| &entry.map_ids),
    }
}
