//! The counts, the columns of `kubectl get` and the listed placements, from the states on all nodes. No IO.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{
    placement::{NodePlacement, PlacementState},
    text::{join_few, message_or_reason},
};
use crate::{
    BpfRevision, Reason,
    names::clip,
    node::Details,
    program::{NodeCounts, PlacedMap, PlacedProgram, Placement, Summary},
};

/// The maximum number of placements that a status lists.
pub const MAX_PLACEMENTS: usize = 64;
/// The maximum number of IDs in a column.
const MAX_IDS: usize = 5;
/// The maximum number of pods in a placement.
const MAX_PODS: usize = 5;

/// Counts the nodes in each state.
pub(super) fn counts(placed: &[NodePlacement<'_>]) -> NodeCounts {
    let count = |counts: &dyn Fn(&NodePlacement<'_>) -> bool| placed.iter().filter(|p| counts(p)).count() as i64;
    NodeCounts {
        selected: count(&|p| p.is_selected()),
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

/// Returns the columns of `kubectl get`.
pub(super) fn summary(revision: &BpfRevision, counts: &NodeCounts, placed: &[NodePlacement<'_>]) -> Summary {
    let mut types: Vec<&str> = Vec::new();
    for name in revision.spec.programs.iter().filter_map(|p| p.program_type).map(|t| t.as_str()) {
        if !types.contains(&name) {
            types.push(name);
        }
    }
    Summary {
        program_type: clip(&types.join(","), 256),
        nodes: format!("{}/{}", counts.updated, counts.selected),
        program_ids: program_ids(placed),
        map_ids: map_ids(placed),
    }
}

/// Returns the program IDs, ordered by node.
pub(super) fn program_ids(placed: &[NodePlacement<'_>]) -> String {
    ids(placed, |entry| &entry.program_ids)
}

/// Returns the map IDs, ordered by node.
pub(super) fn map_ids(placed: &[NodePlacement<'_>]) -> String {
    ids(placed, |entry| &entry.map_ids)
}

fn ids(placed: &[NodePlacement<'_>], of: impl Fn(&crate::node::HeldProgram) -> &Vec<i64>) -> String {
    let mut by_node: Vec<_> = placed.iter().filter_map(|p| p.entry.map(|entry| (p.node, entry))).collect();
    by_node.sort_by_key(|(node, _)| *node);
    let all: Vec<String> = by_node.iter().flat_map(|(_, entry)| of(entry)).map(i64::to_string).collect();
    join_few(all.iter().map(String::as_str), MAX_IDS, ",")
}

/// Returns the first placements in the given order, and the number of those left out.
pub(super) fn placements(placed: &[NodePlacement<'_>], dispatched: Option<&BpfRevision>) -> (Vec<Placement>, i64) {
    let name = dispatched.map(ResourceExt::name_any);
    let shown = placed.iter().take(MAX_PLACEMENTS).map(|p| placement(p, name.as_deref())).collect();
    (shown, placed.len().saturating_sub(MAX_PLACEMENTS) as i64)
}

fn placement(placed: &NodePlacement<'_>, dispatched: Option<&str>) -> Placement {
    let NodePlacement { node, state, entry, details } = *placed;
    let (reason, message) = match state {
        PlacementState::InEffect => (None, None),
        PlacementState::Failed(reason) => (Some(reason), Some(message_or_reason(placed, reason))),
        PlacementState::Pending => (Some(Reason::Progressing), None),
        PlacementState::Unknown => (
            Some(Reason::NodeNotLive),
            Some("the node is not Ready, or its agent's pod is not: what runs there is not known".to_owned()),
        ),
        PlacementState::WithoutAgent => (
            Some(Reason::NoAgent),
            Some("the node has no agent: see the DaemonSet's node selector and tolerations".to_owned()),
        ),
        PlacementState::Suspended => (Some(Reason::Suspended), Some(message_or_reason(placed, Reason::Suspended))),
        PlacementState::Leaving => {
            let reason = if dispatched.is_some() { Reason::Progressing } else { Reason::Deleting };
            let message = placed.message().unwrap_or("no longer wanted here; being removed");
            (Some(reason), Some(message.to_owned()))
        }
    };
    Placement {
        node: node.to_owned(),
        revision: entry.and_then(|e| e.revision.clone()).filter(|revision| Some(revision.as_str()) != dispatched),
        reason,
        message: message.map(|message| clip(&message, 512)),
        cgroups: details.map(|details| details.cgroups).unwrap_or_default(),
        pods: details.map(pods).unwrap_or_default(),
        programs: details.map(programs).unwrap_or_default(),
        maps: details.map(maps).unwrap_or_default(),
    }
}

/// Returns the first pods with a link in effect.
fn pods(details: &Details) -> Vec<String> {
    let in_effect = details.links.iter().filter(|link| link.in_effect).filter_map(|link| link.pod.as_ref());
    let pods: BTreeSet<&String> = in_effect.collect();
    pods.into_iter().take(MAX_PODS).cloned().collect()
}

fn programs(details: &Details) -> Vec<PlacedProgram> {
    let shown = |id: i64| details.links.iter().filter(|l| l.program_id == id && l.in_effect).count() as i64;
    let mut programs: Vec<_> = details
        .programs
        .iter()
        .map(|p| PlacedProgram {
            name: p.name.clone(),
            id: p.id,
            tag: p.tag.clone(),
            links: p.links.unwrap_or_else(|| shown(p.id)),
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

fn maps(details: &Details) -> Vec<PlacedMap> {
    let mut maps: Vec<_> = details.maps.iter().map(|m| PlacedMap { name: m.name.clone(), id: m.id }).collect();
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    maps
}
