//! `Columns`: what the standings of all nodes make of the counts, of what `kubectl get` prints, and of the placements.
//! No IO.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{
    MAX_PLACEMENTS,
    standing::{Placed, Standing},
    words,
};
use crate::{
    BpfRevision, Reason,
    names::clip,
    node::Details,
    program::{NodeCounts, PlacedMap, PlacedProgram, Placement, Summary},
};

/// A column names at most so many IDs.
const MAX_IDS: usize = 5;
/// A placement names at most so many pods.
const MAX_PODS: usize = 5;

/// Nodes by what they say.
pub(super) fn counts(placed: &[Placed<'_>]) -> NodeCounts {
    let count = |wanted: &dyn Fn(&Placed<'_>) -> bool| placed.iter().filter(|p| wanted(p)).count() as i64;
    NodeCounts {
        selected: count(&|p| p.is_selected()),
        updated: count(&|p| p.standing == Standing::InEffect),
        attached: count(&|p| match p.standing {
            Standing::InEffect => true,
            Standing::Pending => holds_a_revision(p),
            Standing::Failed(_)
            | Standing::Unknown
            | Standing::WithoutAgent
            | Standing::Leaving
            | Standing::Suspended => false,
        }),
        suspended: count(&|p| p.standing == Standing::Suspended),
        failed: count(&|p| matches!(p.standing, Standing::Failed(_))),
        unknown: count(&|p| p.standing == Standing::Unknown),
        without_agent: count(&|p| p.standing == Standing::WithoutAgent),
    }
}

/// Of nodes that are to let go of the program, those on which a revision is still in effect.
pub(super) fn attached(placed: &[Placed<'_>]) -> i64 {
    placed.iter().filter(|p| holds_a_revision(p)).count() as i64
}

fn holds_a_revision(placed: &Placed<'_>) -> bool {
    placed.entry.is_some_and(|entry| entry.revision.is_some())
}

/// What `kubectl get` prints.
pub(super) fn summary(revision: &BpfRevision, counts: &NodeCounts, placed: &[Placed<'_>]) -> Summary {
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

/// Program IDs, node by node in the order of the nodes' names.
pub(super) fn program_ids(placed: &[Placed<'_>]) -> String {
    ids(placed, |entry| &entry.program_ids)
}

/// Map IDs, node by node in the order of the nodes' names.
pub(super) fn map_ids(placed: &[Placed<'_>]) -> String {
    ids(placed, |entry| &entry.map_ids)
}

fn ids(placed: &[Placed<'_>], of: impl Fn(&crate::node::HeldProgram) -> &Vec<i64>) -> String {
    let mut by_node: Vec<_> = placed.iter().filter_map(|p| p.entry.map(|entry| (p.node, entry))).collect();
    by_node.sort_by_key(|(node, _)| *node);
    let all: Vec<String> = by_node.iter().flat_map(|(_, entry)| of(entry)).map(i64::to_string).collect();
    super::few(all.iter().map(String::as_str), MAX_IDS, ",")
}

/// Single nodes in the order given, and how many did not fit.
pub(super) fn placements(placed: &[Placed<'_>], dispatched: Option<&BpfRevision>) -> (Vec<Placement>, i64) {
    let name = dispatched.map(ResourceExt::name_any);
    let shown = placed.iter().take(MAX_PLACEMENTS).map(|p| placement(p, name.as_deref())).collect();
    (shown, placed.len().saturating_sub(MAX_PLACEMENTS) as i64)
}

fn placement(placed: &Placed<'_>, dispatched: Option<&str>) -> Placement {
    let Placed { node, standing, entry, details } = *placed;
    let (reason, message) = match standing {
        Standing::InEffect => (None, None),
        Standing::Failed(reason) => (Some(reason), Some(words(placed, reason))),
        Standing::Pending => (Some(Reason::Progressing), None),
        Standing::Unknown => (
            Some(Reason::NodeNotLive),
            Some("the node is not Ready, or its agent's pod is not: what runs there is not known".to_owned()),
        ),
        Standing::WithoutAgent => (
            Some(Reason::NoAgent),
            Some("the node has no agent: see the DaemonSet's node selector and tolerations".to_owned()),
        ),
        Standing::Suspended => (Some(Reason::Suspended), Some(words(placed, Reason::Suspended))),
        Standing::Leaving => {
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

/// The first few pods.
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
