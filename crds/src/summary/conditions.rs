//! The conditions Accepted, Attached, Ready, Reconciling and Stalled, from the acceptance and the states on all nodes.
//! No IO.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;

use super::{
    input::{Acceptance, Subject},
    placement::{NodePlacement, PlacementState},
    text::{join_few, message_or_reason},
};
use crate::{
    BpfRevision, Condition, ConditionType, Reason,
    condition::{self, ConditionState, Status},
    names::clip,
    program::NodeCounts,
};

/// The maximum number of nodes that a message names.
const MAX_NAMED: usize = 5;
/// The maximum number of different node messages that a message quotes.
pub const MAX_QUOTED: usize = 3;
/// The maximum number of bytes of a quoted node message.
const MAX_QUOTE: usize = 400;

/// Precedes the warnings in the message of Attached.
const WARNINGS: &str = "; ";

/// Returns the message of an Attached that is True without the nodes' warnings, which are in their own words.
pub fn without_warnings(attached: &str) -> &str {
    attached.split_once(WARNINGS).map_or(attached, |(message, _)| message)
}

/// Returns the conditions of a BpfProgram that is not deleted, or cannot be as long as others use its maps.
pub(super) fn of(subject: &Subject<'_>, counts: &NodeCounts, placed: &[NodePlacement<'_>]) -> Vec<ConditionState> {
    let Subject { program: _, generation: _, acceptance, current, users } = *subject;
    let accepted = accepted(acceptance, current, placed);
    let attached = attached(current, counts, placed);
    let ready = if users.is_empty() { ready(&accepted, &attached) } else { in_use(users) };
    let progress = stalled(&accepted, placed, &attached).or_else(|| reconciling(&ready, placed));
    [Some(accepted), Some(attached), Some(ready), progress].into_iter().flatten().collect()
}

/// Returns the conditions of a BpfProgram that is being deleted: Accepted stays as it was, the others name the nodes
/// that still hold the program.
pub(super) fn of_deletion(previous: &[Condition], placed: &[NodePlacement<'_>]) -> Vec<ConditionState> {
    let message = if placed.is_empty() {
        "no Ready node holds it any more".to_owned()
    } else {
        let nodes = join_few(placed.iter().map(|p| p.node), MAX_NAMED, ", ");
        let quotes = quotes(placed.iter().filter_map(|p| p.message().map(|m| (p.node, m.to_owned()))));
        if quotes.is_empty() {
            format!("being removed from {nodes}")
        } else {
            format!("being removed from {nodes}: {quotes}")
        }
    };
    let accepted = condition::find(previous, ConditionType::Accepted).map(|c| ConditionState {
        type_: ConditionType::Accepted,
        status: c.status,
        reason: c.reason,
        message: c.message.clone(),
    });
    let deleting = |type_, status| state(type_, status, Reason::Deleting, message.clone());
    let rest = [
        deleting(ConditionType::Attached, Status::False),
        deleting(ConditionType::Ready, Status::False),
        deleting(ConditionType::Reconciling, Status::True),
    ];
    accepted.into_iter().chain(rest).collect()
}

fn state(type_: ConditionType, status: Status, reason: Reason, message: String) -> ConditionState {
    ConditionState { type_, status, reason, message }
}

fn accepted(acceptance: &Acceptance, current: Option<&BpfRevision>, placed: &[NodePlacement<'_>]) -> ConditionState {
    let (status, reason, message) = match (acceptance, current) {
        (Acceptance::Refused { reason, message }, Some(revision)) => {
            (Status::False, *reason, format!("{message}; {}", running(revision, placed)))
        }
        (Acceptance::Refused { reason, message }, None) => (Status::False, *reason, message.clone()),
        (Acceptance::Accepted { notes }, Some(revision)) => {
            let dispatched = format!("dispatched as {}", revision.name_any());
            let message = std::iter::once(dispatched).chain(notes.iter().cloned()).collect::<Vec<_>>().join("; ");
            (Status::True, Reason::Dispatched, message)
        }
        (Acceptance::Accepted { .. }, None) => {
            (Status::False, Reason::NotDispatched, "valid, and about to be dispatched".to_owned())
        }
    };
    state(ConditionType::Accepted, status, reason, message)
}

fn attached(current: Option<&BpfRevision>, counts: &NodeCounts, placed: &[NodePlacement<'_>]) -> ConditionState {
    let attached = |status, reason, message| state(ConditionType::Attached, status, reason, message);
    let NodeCounts { desired, updated, attached: _, suspended, failed, unknown, without_agent } = counts;
    let live = desired - unknown - without_agent;
    let Some(current) = current else {
        return attached(
            Status::False,
            Reason::NotDispatched,
            "no spec has been accepted yet: Accepted says why".to_owned(),
        );
    };
    if *desired == 0 {
        let message =
            "no node matches spec.nodeSelector, and it runs nowhere until one does: label a node, or change it"
                .to_owned();
        return attached(Status::True, Reason::NoNodeSelected, message);
    }
    if live == 0 {
        let nodes = join_few(placed.iter().filter(|p| p.is_selected()).map(|p| p.node), MAX_NAMED, ", ");
        let message = format!(
            "none of {desired} selected nodes is Ready with an agent{}: look at them and their agents' pods: {nodes}",
            absent(*unknown, *without_agent)
        );
        return attached(Status::Unknown, Reason::NoReadyNodes, message);
    }
    if *failed > 0 {
        let quotes = quotes(failures(placed));
        let message = format!("failed on {failed} of {live} Ready nodes: {quotes}{}", remaining(current, placed));
        return attached(Status::False, leading_reason(placed).unwrap_or(Reason::LoadFailed), message);
    }
    let besides = absent(*unknown, *without_agent);
    if *suspended > 0 && updated + suspended == live {
        let said = placed.iter().filter(|p| p.state == PlacementState::Suspended);
        let why = quotes(said.map(|p| (p.node, message_or_reason(p, Reason::Suspended))));
        let message = format!("suspended on {suspended} of {live} Ready nodes{besides}: {why}");
        return attached(Status::False, Reason::Suspended, message);
    }
    if updated < &live {
        let waiting = placed.iter().filter(|p| p.state == PlacementState::Pending).map(|p| p.node);
        let waiting = join_few(waiting, MAX_NAMED, ", ");
        let message = format!("in effect on {updated} of {live} Ready nodes, waiting for {waiting}{besides}");
        return attached(Status::False, Reason::Progressing, message);
    }
    if selects_no_pod(current, placed) {
        let message = format!(
            "no pod or container on {live} Ready nodes matches the spec's targets{besides}: it is attached nowhere \
             until one does"
        );
        return attached(Status::True, Reason::NoPodSelected, message);
    }
    let warnings = quotes(placed.iter().flat_map(warnings));
    let warnings = if warnings.is_empty() { warnings } else { format!("{WARNINGS}{warnings}") };
    let message = format!("in effect on {updated} of {live} Ready nodes{besides}{warnings}");
    attached(Status::True, Reason::InEffect, message)
}

fn ready(accepted: &ConditionState, attached: &ConditionState) -> ConditionState {
    let ConditionState { type_: _, status, reason, message } =
        if accepted.status == Status::True { attached.clone() } else { accepted.clone() };
    state(ConditionType::Ready, status, reason, message)
}

/// Like a PersistentVolumeClaim that a pod uses, the BpfProgram is deleted once nobody uses its maps.
fn in_use(users: &[String]) -> ConditionState {
    let message = format!(
        "to be deleted once no other BpfProgram uses its maps, and in effect until then: delete {0}, or take this one \
         out of their spec.maps[].mapRef and attach[].map",
        join_few(users.iter().map(String::as_str), MAX_NAMED, ", ")
    );
    state(ConditionType::Ready, Status::False, Reason::InUse, message)
}

/// Returns Stalled if only an edit can help: the spec was refused, or some node's kernel will never accept it.
fn stalled(
    accepted: &ConditionState,
    placed: &[NodePlacement<'_>],
    attached: &ConditionState,
) -> Option<ConditionState> {
    let stalled =
        |from: &ConditionState| state(ConditionType::Stalled, Status::True, from.reason, from.message.clone());
    if accepted.status == Status::False {
        return accepted.reason.needs_edit().then(|| stalled(accepted));
    }
    let hopeless = placed.iter().find_map(|p| match p.state {
        PlacementState::Failed(reason) if reason.needs_edit() || p.entry.is_some_and(|entry| entry.needs_edit) => {
            Some(reason)
        }
        _ => None,
    })?;
    Some(ConditionState { reason: hopeless, ..stalled(attached) })
}

/// Returns Reconciling until the BpfProgram is Ready, and while nodes that are no longer selected remove it.
fn reconciling(ready: &ConditionState, placed: &[NodePlacement<'_>]) -> Option<ConditionState> {
    let under_way = |reason, message| state(ConditionType::Reconciling, Status::True, reason, message);
    // A suspended program is in the state that someone asked for.
    if ready.status != Status::True && ready.reason != Reason::Suspended {
        return Some(under_way(ready.reason, ready.message.clone()));
    }
    let leaving: Vec<&str> = placed.iter().filter(|p| p.state == PlacementState::Leaving).map(|p| p.node).collect();
    if leaving.is_empty() {
        return None;
    }
    Some(under_way(Reason::Progressing, format!("being removed from {}", join_few(leaving, MAX_NAMED, ", "))))
}

/// Returns the reason that most failing nodes report; on a tie, the first in the enum's order.
fn leading_reason(placed: &[NodePlacement<'_>]) -> Option<Reason> {
    let mut tally: BTreeMap<Reason, i64> = BTreeMap::new();
    for p in placed {
        if let PlacementState::Failed(reason) = p.state {
            *tally.entry(reason).or_default() += 1;
        }
    }
    tally.into_iter().min_by_key(|(reason, count)| (-count, *reason)).map(|(reason, _)| reason)
}

fn failures<'a>(placed: &'a [NodePlacement<'_>]) -> impl Iterator<Item = (&'a str, String)> {
    placed.iter().filter_map(|p| match p.state {
        PlacementState::Failed(reason) => Some((p.node, message_or_reason(p, reason))),
        _ => None,
    })
}

/// Returns what does not go as one would expect on a node.
fn warnings<'a>(placed: &'a NodePlacement<'_>) -> impl Iterator<Item = (&'a str, String)> {
    let warnings = placed.entry.into_iter().flat_map(|entry| &entry.warnings);
    warnings.map(|warning| (placed.node, warning.clone()))
}

/// Returns whether all targets are selective and no Ready node has a selected pod, as with a misspelt label, or before
/// the first pod.
fn selects_no_pod(current: &BpfRevision, placed: &[NodePlacement<'_>]) -> bool {
    current.spec.template.targets().all(|target| target.pods().is_some())
        && placed.iter().filter_map(|p| p.entry).all(|entry| entry.links == 0)
}

/// Returns a clause that names the revisions in effect while the latest spec is refused. The current revision may be in
/// effect nowhere: if every node failed to load it, an older one runs, or none.
fn running(current: &BpfRevision, placed: &[NodePlacement<'_>]) -> String {
    let held: BTreeSet<&str> = in_effect(placed.iter()).collect();
    match held.len() {
        0 => format!("{} stays dispatched, and no Ready node reports it in effect", current.name_any()),
        1 => format!("{} keeps running", join_few(held, MAX_QUOTED, ", ")),
        _ => format!("{} keep running", join_few(held, MAX_QUOTED, ", ")),
    }
}

/// Returns the revision in effect on each node that reports one.
pub(super) fn in_effect<'a>(placed: impl Iterator<Item = &'a NodePlacement<'a>>) -> impl Iterator<Item = &'a str> {
    placed.filter_map(|p| p.entry.and_then(|entry| entry.revision.as_deref()))
}

/// Returns a clause that names the revisions that run where the current one fails, or nothing.
fn remaining(current: &BpfRevision, placed: &[NodePlacement<'_>]) -> String {
    let held = in_effect(placed.iter().filter(|p| matches!(p.state, PlacementState::Failed(_))));
    let others: BTreeSet<&str> = held.filter(|held| current.metadata.name.as_deref() != Some(*held)).collect();
    match others.is_empty() {
        true => String::new(),
        false => format!("; {} keeps running there", join_few(others.into_iter(), MAX_QUOTED, ", ")),
    }
}

/// Quotes the messages of nodes. A message that several nodes share is quoted once.
fn quotes<'a>(said: impl Iterator<Item = (&'a str, String)>) -> String {
    let (mut quoted, mut more): (Vec<(String, Vec<&str>)>, usize) = (Vec::new(), 0);
    for (node, words) in said {
        match quoted.iter().position(|(others, _)| *others == words) {
            Some(i) => quoted[i].1.push(node),
            None if quoted.len() < MAX_QUOTED => quoted.push((words, vec![node])),
            None => more += 1,
        }
    }
    let quote = |(words, nodes): (String, Vec<&str>)| {
        format!("{}: {}", join_few(nodes.into_iter(), MAX_QUOTED, ", "), clip(&words, MAX_QUOTE))
    };
    let quoted = quoted.into_iter().map(quote).chain((more > 0).then(|| format!("+{more}")));
    quoted.collect::<Vec<_>>().join("; ")
}

/// Returns " (1 not Ready, 2 without an agent)", or nothing.
fn absent(unknown: i64, without_agent: i64) -> String {
    let parts: Vec<String> = [(unknown, "not Ready"), (without_agent, "without an agent")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
