//! Events about drift: what agents saw others do to a BpfProgram's kernel objects. IO: none.
//!
//! - A node's first report since the operator started is an Event only if the drift is recent: the operator may have
//!   been away when it happened. Such an Event may be published twice, which harms less than not at all.
//! - Older drift is no Event, and neither is drift that the node reported before.
//! - A node whose report is missing for a while, or whose drift did not fit into its report, does not start over.
//! - The [`EventBudget`] bounds the Events of each node. Drift that it suppresses counts as reported.

use std::{collections::BTreeMap, mem};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sockeye_crds::{
    names,
    node::{Drift, DriftKind},
    revision::ProgramRef,
    summary::NodeView,
};

use crate::events::{
    ProgramEvent,
    budget::{EventBudget, suppressed_before},
    list_nodes,
};

/// An operator that is rescheduled, upgraded, or without an API server is usually back sooner.
const RECENT: SignedDuration = SignedDuration::from_mins(5);

/// The drift of one BpfProgram that was reported before.
#[derive(Clone, Debug, Default)]
pub struct DriftTracker {
    /// The BpfProgram's UID: another BpfProgram of the same name starts over.
    uid: String,
    /// Each node's count of each drift.
    counts: BTreeMap<String, BTreeMap<(DriftKind, String), i64>>,
}

impl DriftTracker {
    /// Returns Events for the drift that is new in the nodes' reports. The same drift on several nodes is one Event.
    pub fn observe(
        &mut self,
        program: &ProgramRef,
        nodes: &[NodeView<'_>],
        budget: &mut EventBudget,
        now: Timestamp,
    ) -> Vec<ProgramEvent> {
        let Self { uid, counts } = mem::take(self);
        let mut before = if uid == program.uid { counts } else { BTreeMap::new() };
        self.uid = program.uid.clone();
        let mut nodes_by_drift: BTreeMap<(DriftKind, &str), Vec<&str>> = BTreeMap::new();
        for node in nodes {
            let known = before.remove(node.name);
            let Some(held) = node.program(program) else {
                self.counts.extend(known.map(|known| (node.name.to_owned(), known)));
                continue;
            };
            let is_new = |drift: &&Drift| match &known {
                // A restarted agent counts from the beginning, so a lower count is new too.
                Some(known) => known.get(&(drift.kind, drift.message.clone())) != Some(&drift.count),
                None => is_recent(drift, now),
            };
            for drift in held.drift.iter().filter(is_new) {
                nodes_by_drift.entry((drift.kind, &drift.message)).or_default().push(node.name);
            }
            let listed = held.drift.iter().map(|drift| ((drift.kind, drift.message.clone()), drift.count));
            // Drift that was left out for want of room may be listed again.
            let omits_drift = node.report.and_then(|report| report.omitted.as_ref()).is_some_and(|left| left.drift > 0);
            let kept = known.filter(|_| omits_drift).unwrap_or_default();
            self.counts.insert(node.name.to_owned(), kept.into_iter().chain(listed).collect());
        }
        let within_budget = |((kind, message), nodes): ((DriftKind, &str), Vec<&str>)| {
            let (allowed, suppressed) = budget.take_of_each(nodes, now);
            (!allowed.is_empty()).then(|| event(kind, message, &allowed, suppressed))
        };
        nodes_by_drift.into_iter().filter_map(within_budget).collect()
    }
}

/// Returns whether drift is recent. It is if the node's clock is ahead.
fn is_recent(drift: &Drift, now: Timestamp) -> bool {
    drift.seen_time.parse::<Timestamp>().is_ok_and(|seen| now.duration_since(seen) <= RECENT)
}

fn event(kind: DriftKind, message: &str, nodes: &[&str], suppressed: u64) -> ProgramEvent {
    let suppressed = suppressed_before(suppressed);
    let note = format!("on {}: {}{suppressed}", list_nodes(nodes), names::line(message, 512));
    // The spec asked for it.
    let is_warning = kind != DriftKind::MapRecreated;
    ProgramEvent { is_warning, reason: kind.as_str(), action: "Observe", note, quoted: vec![] }
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{
        BpfNodeStatus,
        node::{NodeProgram, Omitted, State},
        summary::Liveness,
    };

    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";
    const OLD: &str = "2026-01-01T11:54:59Z";
    const RECENT: &str = "2026-01-01T11:55:00Z";

    fn drift(message: &str, count: i64, seen_time: &str) -> Drift {
        Drift { seen_time: seen_time.into(), kind: DriftKind::LinkDetached, message: message.into(), count }
    }

    fn report(drift: Vec<Drift>) -> BpfNodeStatus {
        let held =
            NodeProgram { name: "p".into(), uid: "u".into(), state: State::Attached, drift, ..NodeProgram::default() };
        BpfNodeStatus { programs: vec![held], ..BpfNodeStatus::default() }
    }

    /// Observes the reports of nodes n0, n1 and so on. Returns the Events' notes.
    fn observe(tracker: &mut DriftTracker, budget: &mut EventBudget, reports: &[BpfNodeStatus]) -> Vec<String> {
        let program = ProgramRef { name: "p".into(), uid: "u".into() };
        let labels = BTreeMap::new();
        let names: Vec<String> = (0..reports.len()).map(|n| format!("n{n}")).collect();
        let views: Vec<NodeView<'_>> = names
            .iter()
            .zip(reports)
            .map(|(name, report)| NodeView { name, labels: &labels, liveness: Liveness::Live, report: Some(report) })
            .collect();
        tracker.observe(&program, &views, budget, NOW.parse().unwrap()).into_iter().map(|event| event.note).collect()
    }

    /// Observes nodes that counted one drift so often each, or do not report the BpfProgram.
    fn notes(tracker: &mut DriftTracker, counts: &[Option<i64>], seen_time: &str) -> Vec<String> {
        let listed = |count| if count > 0 { vec![drift("the link was detached", count, seen_time)] } else { vec![] };
        let of_count = |count: &Option<i64>| count.map(|count| report(listed(count))).unwrap_or_default();
        let reports: Vec<_> = counts.iter().map(of_count).collect();
        observe(tracker, &mut EventBudget::default(), &reports)
    }

    #[test]
    fn new_drift_is_one_event_for_all_nodes() {
        let mut tracker = DriftTracker::default();
        let mut notes = |counts: &[i64]| {
            let counts: Vec<_> = counts.iter().copied().map(Some).collect();
            notes(&mut tracker, &counts, OLD)
        };
        assert!(notes(&[0, 3]).is_empty(), "the first report is old");
        assert!(notes(&[0, 3]).is_empty());
        assert_eq!(notes(&[1, 4]), ["on n0, n1: the link was detached"]);
        assert_eq!(notes(&[1, 5]), ["on n1: the link was detached"]);
        assert!(notes(&[0, 5]).is_empty(), "drift that a node forgot is not new");
        assert_eq!(notes(&[1, 5]), ["on n0: the link was detached"]);
    }

    #[test]
    fn recent_drift_in_a_first_report_is_an_event() {
        let mut tracker = DriftTracker::default();
        assert_eq!(notes(&mut tracker, &[Some(1), Some(0)], RECENT), ["on n0: the link was detached"]);
        assert!(notes(&mut tracker, &[Some(1), Some(0)], RECENT).is_empty());
        assert_eq!(
            notes(&mut DriftTracker::default(), &[Some(2); 7], RECENT),
            ["on n0, n1, n2, n3, n4 and 2 more: the link was detached"]
        );
        assert!(notes(&mut DriftTracker::default(), &[Some(2); 7], OLD).is_empty());
        assert!(notes(&mut DriftTracker::default(), &[Some(2)], "no time").is_empty());
    }

    #[test]
    fn a_node_that_stops_reporting_for_a_while_does_not_start_over() {
        let mut tracker = DriftTracker::default();
        assert_eq!(notes(&mut tracker, &[Some(1)], RECENT).len(), 1);
        assert!(notes(&mut tracker, &[None], RECENT).is_empty());
        assert!(notes(&mut tracker, &[Some(1)], RECENT).is_empty());
        assert!(notes(&mut tracker, &[None], RECENT).is_empty());
        assert_eq!(notes(&mut tracker, &[Some(2)], OLD).len(), 1, "drift meanwhile is an Event");
    }

    #[test]
    fn drift_that_did_not_fit_for_a_while_does_not_start_over() {
        let (mut tracker, mut budget) = (DriftTracker::default(), EventBudget::default());
        let full = report(vec![drift("a", 1, RECENT), drift("b", 1, RECENT)]);
        let mut short = report(vec![drift("a", 1, RECENT)]);
        short.omitted = Some(Omitted { drift: 1, ..Omitted::default() });
        assert_eq!(observe(&mut tracker, &mut budget, std::slice::from_ref(&full)).len(), 2);
        assert!(observe(&mut tracker, &mut budget, &[short]).is_empty());
        assert!(observe(&mut tracker, &mut budget, &[full]).is_empty());
    }

    #[test]
    fn a_node_that_floods_drift_is_cut_off_and_others_are_not() {
        let (mut tracker, mut budget) = (DriftTracker::default(), EventBudget::default());
        let flood = |n: i64| report(vec![drift(&format!("flood {n}"), 1, RECENT)]);
        let events: usize =
            (0..100).map(|n| observe(&mut tracker, &mut budget, &[flood(n), report(vec![])]).len()).sum();
        assert_eq!(events, 10);
        let both = [report(vec![drift("x", 1, RECENT)]), report(vec![drift("x", 1, RECENT)])];
        assert_eq!(observe(&mut tracker, &mut budget, &both), ["on n1: x"]);
        let later: Timestamp = "2026-01-01T12:01:00Z".parse().unwrap();
        let program = ProgramRef { name: "p".into(), uid: "u".into() };
        let (labels, report) = (BTreeMap::new(), report(vec![drift("y\u{1b}", 1, RECENT)]));
        let view = NodeView { name: "n0", labels: &labels, liveness: Liveness::Live, report: Some(&report) };
        let events = tracker.observe(&program, &[view], &mut budget, later);
        assert_eq!(events[0].note, "on n0: y? (91 more such Events were suppressed before)");
    }
}
