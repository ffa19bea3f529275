//! Events about drift: what agents saw others do to a BpfProgram's kernel objects. IO: none.
//!
//! - A node's first report since the operator started is an Event only if the drift is recent: the operator may have
//!   been away when it happened. Such an Event may be published twice, which harms less than not at all.
//! - Older drift is no Event, and neither is drift that the node reported before.
//! - A node whose report is missing for a while, or whose details were cut, does not start over.

use std::{collections::BTreeMap, mem};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sockeye_crds::{
    node::{Details, Drift, DriftKind},
    revision::ProgramRef,
    summary::NodeView,
};

use crate::events::{ProgramEvent, list_nodes};

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
    pub fn observe(&mut self, program: &ProgramRef, nodes: &[NodeView<'_>], now: Timestamp) -> Vec<ProgramEvent> {
        let Self { uid, counts } = mem::take(self);
        let mut before = if uid == program.uid { counts } else { BTreeMap::new() };
        self.uid = program.uid.clone();
        let mut nodes_by_drift: BTreeMap<(DriftKind, &str), Vec<&str>> = BTreeMap::new();
        for node in nodes {
            let known = before.remove(node.name);
            let Some(details) = details(program, node) else {
                self.counts.extend(known.map(|known| (node.name.to_owned(), known)));
                continue;
            };
            let is_new = |drift: &&Drift| match &known {
                // A restarted agent counts from the beginning, so a lower count is new too.
                Some(known) => known.get(&(drift.kind, drift.message.clone())) != Some(&drift.count),
                None => is_recent(drift, now),
            };
            for drift in details.drift.iter().filter(is_new) {
                nodes_by_drift.entry((drift.kind, &drift.message)).or_default().push(node.name);
            }
            let counts = details.drift.iter().map(|drift| ((drift.kind, drift.message.clone()), drift.count));
            self.counts.insert(node.name.to_owned(), counts.collect());
        }
        nodes_by_drift.into_iter().map(|((kind, message), nodes)| event(kind, message, &nodes)).collect()
    }
}

/// Reports whether drift is recent. It is if the node's clock is ahead.
fn is_recent(drift: &Drift, now: Timestamp) -> bool {
    drift.seen_at.parse::<Timestamp>().is_ok_and(|seen_at| now.duration_since(seen_at) <= RECENT)
}

fn details<'a>(program: &ProgramRef, node: &NodeView<'a>) -> Option<&'a Details> {
    let report = node.report?;
    let is_held = report.programs.iter().any(|held| held.name == program.name && held.uid == program.uid);
    report.details.iter().find(|details| is_held && details.name == program.name)
}

fn event(kind: DriftKind, message: &str, nodes: &[&str]) -> ProgramEvent {
    let note = format!("on {}: {message}", list_nodes(nodes));
    ProgramEvent { is_warning: true, reason: kind.as_str(), action: "Observe", note }
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{
        BpfNodeStatus,
        node::{Details, HeldProgram, State},
        summary::Liveness,
    };

    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";
    const OLD: &str = "2026-01-01T11:54:59Z";
    const RECENT: &str = "2026-01-01T11:55:00Z";

    /// Builds the report of a node that counted the drift `count` times, or that does not report the BpfProgram.
    fn report(count: Option<i64>, seen_at: &str) -> BpfNodeStatus {
        let Some(count) = count else { return BpfNodeStatus::default() };
        let held = HeldProgram {
            name: "p".into(),
            uid: "u".into(),
            revision: None,
            state: State::Attached,
            reason: None,
            program_ids: vec![],
            map_ids: vec![],
        };
        let drift = Drift {
            seen_at: seen_at.into(),
            kind: DriftKind::LinkDetached,
            message: "the link was detached".into(),
            count,
        };
        let drift = if count > 0 { vec![drift] } else { vec![] };
        let details = Details { name: "p".into(), drift, ..Details::default() };
        BpfNodeStatus { programs: vec![held], details: vec![details], ..BpfNodeStatus::default() }
    }

    fn notes(tracker: &mut DriftTracker, counts: &[Option<i64>], seen_at: &str) -> Vec<String> {
        let program = ProgramRef { name: "p".into(), uid: "u".into() };
        let reports: Vec<_> = counts.iter().map(|count| report(*count, seen_at)).collect();
        let labels = BTreeMap::new();
        let names: Vec<String> = (0..counts.len()).map(|n| format!("n{n}")).collect();
        let views: Vec<NodeView<'_>> = names
            .iter()
            .zip(&reports)
            .map(|(name, report)| NodeView { name, labels: &labels, liveness: Liveness::Live, report: Some(report) })
            .collect();
        tracker.observe(&program, &views, NOW.parse().unwrap()).into_iter().map(|event| event.note).collect()
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
}
