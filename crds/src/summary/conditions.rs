//! `Verdict`s: what the acceptance and the standings of all nodes make of Accepted, Attached, Ready, Reconciling and
//! Stalled. No IO.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;

use super::{
    Acceptance, few,
    standing::{Placed, Standing},
    words,
};
use crate::{
    BpfRevision, Condition, ConditionType, Reason,
    condition::{self, Status, Verdict},
    names::clip,
    program::NodeCounts,
    target::CgroupTarget,
};

/// A message names at most so many nodes.
const MAX_NAMED: usize = 5;
/// A message carries the words of at most so many nodes, and of each at most so many bytes.
pub const MAX_QUOTED: usize = 3;
const MAX_QUOTE: usize = 400;

/// The conditions of a BpfProgram that is to stay, or has to for the sake of others.
pub(super) fn verdicts(
    acceptance: &Acceptance,
    dispatched: Option<&BpfRevision>,
    users: &[String],
    counts: &NodeCounts,
    placed: &[Placed<'_>],
) -> Vec<Verdict> {
    let accepted = accepted(acceptance, dispatched);
    let attached = attached(dispatched, counts, placed);
    let ready = if users.is_empty() { ready(&accepted, &attached) } else { in_use(users) };
    let progress = stalled(&accepted, placed, &attached).or_else(|| reconciling(&ready, placed));
    [Some(accepted), Some(attached), Some(ready), progress].into_iter().flatten().collect()
}

/// The conditions of one that is: Accepted stays as it was, the rest says who still holds it.
pub(super) fn deletion(previous: &[Condition], placed: &[Placed<'_>]) -> Vec<Verdict> {
    let message = if placed.is_empty() {
        "no live node holds it any more".to_owned()
    } else {
        let nodes = few(placed.iter().map(|p| p.node), MAX_NAMED, ", ");
        let quotes = quotes(placed.iter().filter_map(|p| p.message().map(|m| (p.node, m.to_owned()))));
        if quotes.is_empty() {
            format!("being removed from {nodes}")
        } else {
            format!("being removed from {nodes}: {quotes}")
        }
    };
    let accepted = condition::find(previous, ConditionType::Accepted).map(|c| Verdict {
        type_: ConditionType::Accepted,
        status: c.status,
        reason: c.reason,
        message: c.message.clone(),
    });
    let deleting = |type_, status| verdict(type_, status, Reason::Deleting, message.clone());
    let rest = [
        deleting(ConditionType::Attached, Status::False),
        deleting(ConditionType::Ready, Status::False),
        deleting(ConditionType::Reconciling, Status::True),
    ];
    accepted.into_iter().chain(rest).collect()
}

fn verdict(type_: ConditionType, status: Status, reason: Reason, message: String) -> Verdict {
    Verdict { type_, status, reason, message }
}

fn accepted(acceptance: &Acceptance, dispatched: Option<&BpfRevision>) -> Verdict {
    let (status, reason, message) = match (acceptance, dispatched) {
        (Acceptance::Refused { reason, message }, Some(revision)) => {
            (Status::False, *reason, format!("{message}; {} keeps running", revision.name_any()))
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
    verdict(ConditionType::Accepted, status, reason, message)
}

fn attached(dispatched: Option<&BpfRevision>, counts: &NodeCounts, placed: &[Placed<'_>]) -> Verdict {
    let say = |status, reason, message| verdict(ConditionType::Attached, status, reason, message);
    let NodeCounts { selected, updated, attached: _, suspended, failed, unknown, without_agent } = counts;
    let live = selected - unknown - without_agent;
    let Some(dispatched) = dispatched else {
        return say(Status::False, Reason::NotDispatched, "no spec has been accepted yet".to_owned());
    };
    if *selected == 0 {
        let message = "no node matches spec.nodeSelector: it runs nowhere until one does".to_owned();
        return say(Status::True, Reason::NoNodeSelected, message);
    }
    if live == 0 {
        let nodes = few(placed.iter().filter(|p| p.is_selected()).map(|p| p.node), MAX_NAMED, ", ");
        let message = format!("none of {selected} selected nodes is live{}: {nodes}", absent(*unknown, *without_agent));
        return say(Status::Unknown, Reason::NoLiveNode, message);
    }
    if *failed > 0 {
        let quotes = quotes(failures(placed));
        let message = format!("failed on {failed} of {live} live nodes: {quotes}{}", remaining(dispatched, placed));
        return say(Status::False, leading_reason(placed).unwrap_or(Reason::LoadFailed), message);
    }
    let besides = absent(*unknown, *without_agent);
    if *suspended > 0 && updated + suspended == live {
        let said = placed.iter().filter(|p| p.standing == Standing::Suspended);
        let why = quotes(said.map(|p| (p.node, words(p, Reason::Suspended))));
        let message = format!("suspended on {suspended} of {live} live nodes{besides}: {why}");
        return say(Status::False, Reason::Suspended, message);
    }
    if updated < &live {
        let waiting = placed.iter().filter(|p| p.standing == Standing::Pending).map(|p| p.node);
        let waiting = few(waiting, MAX_NAMED, ", ");
        let message = format!("in effect on {updated} of {live} live nodes, waiting for {waiting}{besides}");
        return say(Status::False, Reason::Progressing, message);
    }
    let nowhere = if picks_none(dispatched, placed) { ", where no pod is selected" } else { "" };
    say(Status::True, Reason::InEffect, format!("in effect on {updated} of {live} live nodes{nowhere}{besides}"))
}

fn ready(accepted: &Verdict, attached: &Verdict) -> Verdict {
    let Verdict { type_: _, status, reason, message } =
        if accepted.status == Status::True { attached.clone() } else { accepted.clone() };
    verdict(ConditionType::Ready, status, reason, message)
}

/// As with a PersistentVolumeClaim that a pod uses: it goes once nobody needs it.
fn in_use(users: &[String]) -> Verdict {
    let message = format!(
        "to be deleted once no other BpfProgram uses its maps, and in effect until then: delete {0}, or take this one out of \
         the spec.maps[].from of {0}",
        few(users.iter().map(String::as_str), MAX_NAMED, ", ")
    );
    verdict(ConditionType::Ready, Status::False, Reason::InUse, message)
}

/// Only an edit can help: of the spec that was refused, or of the one that some node's kernel will never take.
fn stalled(accepted: &Verdict, placed: &[Placed<'_>], attached: &Verdict) -> Option<Verdict> {
    let stalled = |from: &Verdict| verdict(ConditionType::Stalled, Status::True, from.reason, from.message.clone());
    if accepted.status == Status::False {
        return accepted.reason.needs_edit().then(|| stalled(accepted));
    }
    let hopeless = placed.iter().find_map(|p| match p.standing {
        Standing::Failed(reason) if reason.needs_edit() => Some(reason),
        _ => None,
    })?;
    Some(Verdict { reason: hopeless, ..stalled(attached) })
}

/// Work is under way until it is Ready, and while nodes that are no longer selected let go of it.
fn reconciling(ready: &Verdict, placed: &[Placed<'_>]) -> Option<Verdict> {
    let under_way = |reason, message| verdict(ConditionType::Reconciling, Status::True, reason, message);
    // Someone wants it as it is.
    if ready.status != Status::True && ready.reason != Reason::Suspended {
        return Some(under_way(ready.reason, ready.message.clone()));
    }
    let leaving: Vec<&str> = placed.iter().filter(|p| p.standing == Standing::Leaving).map(|p| p.node).collect();
    if leaving.is_empty() {
        return None;
    }
    Some(under_way(Reason::Progressing, format!("being removed from {}", few(leaving, MAX_NAMED, ", "))))
}

/// The reason that most failing nodes give; of equals the first in the enum's order.
fn leading_reason(placed: &[Placed<'_>]) -> Option<Reason> {
    let mut tally: BTreeMap<Reason, i64> = BTreeMap::new();
    for p in placed {
        if let Standing::Failed(reason) = p.standing {
            *tally.entry(reason).or_default() += 1;
        }
    }
    tally.into_iter().min_by_key(|(reason, count)| (-count, *reason)).map(|(reason, _)| reason)
}

fn failures<'a>(placed: &'a [Placed<'_>]) -> impl Iterator<Item = (&'a str, String)> {
    placed.iter().filter_map(|p| match p.standing {
        Standing::Failed(reason) => Some((p.node, words(p, reason))),
        _ => None,
    })
}

/// Whether it is for pods that are picked alone, and none is anywhere: as where a label is misspelt.
fn picks_none(dispatched: &BpfRevision, placed: &[Placed<'_>]) -> bool {
    let mut attach = dispatched.spec.programs.iter().flat_map(|program| &program.attach);
    attach.all(|attach| attach.cgroup.as_ref().is_some_and(CgroupTarget::picks))
        && placed.iter().all(|p| p.details.is_some_and(|details| details.cgroups == 0))
}

/// What runs on instead where the dispatched revision fails, after a semicolon; or nothing.
fn remaining(dispatched: &BpfRevision, placed: &[Placed<'_>]) -> String {
    let failed = placed.iter().filter(|p| matches!(p.standing, Standing::Failed(_)));
    let held = failed.filter_map(|p| p.entry.and_then(|entry| entry.revision.as_deref()));
    let others: BTreeSet<&str> = held.filter(|held| dispatched.metadata.name.as_deref() != Some(*held)).collect();
    match others.is_empty() {
        true => String::new(),
        false => format!("; {} keeps running there", few(others.into_iter(), MAX_QUOTED, ", ")),
    }
}

/// What nodes say; what several say, once.
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
        format!("{}: {}", few(nodes.into_iter(), MAX_QUOTED, ", "), clip(&words, MAX_QUOTE))
    };
    let quoted = quoted.into_iter().map(quote).chain((more > 0).then(|| format!("+{more}")));
    quoted.collect::<Vec<_>>().join("; ")
}

/// " (1 not live, 2 without an agent)", or nothing.
fn absent(unknown: i64, without_agent: i64) -> String {
    let parts: Vec<String> = [(unknown, "not live"), (without_agent, "without an agent")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
