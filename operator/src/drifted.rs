//! `Drifted`: what agents saw others do to a BpfProgram's objects, as far as it is announced. Pure: time comes in as an
//! argument.
//!
//! - What a node says for the first time since this process began is announced if it was seen lately: by then another process
//!   may have been going, and no Event told of it. It may be told twice; a second Event harms less than none.
//! - What was seen longer ago is old news, and so is what a node has said before.
//! - A node that for a while says nothing of the BpfProgram, since its report is away or its details were cut, has
//!   forgotten nothing.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sockeye_crds::{
    names::clip,
    node::{Details, Drift, DriftKind},
    revision::ProgramRef,
    summary::NodeView,
};

use crate::{announce::named, step::Announcement};

/// An operator is away for less, as a rule: rescheduled, upgraded, or without the API server.
const LATELY: SignedDuration = SignedDuration::from_mins(5);

/// What is announced.
#[derive(Clone, Debug, Default)]
pub struct Drifted {
    /// The UID of the BpfProgram: what is said of one says nothing of the next of its name.
    uid: String,
    /// By node, how often it has said the same.
    said: BTreeMap<String, BTreeMap<(DriftKind, String), i64>>,
}

impl Drifted {
    /// What the nodes say now and had not said before, the same from several nodes as one.
    pub fn news(&mut self, program: &ProgramRef, nodes: &[NodeView<'_>], now: Timestamp) -> Vec<Announcement> {
        let Self { uid, said } = std::mem::take(self);
        let mut before = if uid == program.uid { said } else { BTreeMap::new() };
        self.uid = program.uid.clone();
        let mut news: BTreeMap<(DriftKind, &str), Vec<&str>> = BTreeMap::new();
        for node in nodes {
            let known = before.remove(node.name);
            let Some(details) = details(program, node) else {
                self.said.extend(known.map(|known| (node.name.to_owned(), known)));
                continue;
            };
            let is_news = |drift: &&Drift| match &known {
                // A count that is lower is of an agent that started anew.
                Some(known) => known.get(&(drift.kind, drift.message.clone())) != Some(&drift.count),
                None => seen_lately(drift, now),
            };
            for drift in details.drift.iter().filter(is_news) {
                news.entry((drift.kind, &drift.message)).or_default().push(node.name);
            }
            let said = details.drift.iter().map(|drift| ((drift.kind, drift.message.clone()), drift.count));
            self.said.insert(node.name.to_owned(), said.collect());
        }
        news.into_iter().map(|((kind, message), nodes)| announcement(kind, message, &nodes)).collect()
    }
}

/// A node whose clock is ahead has seen it lately, too.
fn seen_lately(drift: &Drift, now: Timestamp) -> bool {
    drift.seen_at.parse::<Timestamp>().is_ok_and(|seen_at| now.duration_since(seen_at) <= LATELY)
}

fn details<'a>(program: &ProgramRef, node: &NodeView<'a>) -> Option<&'a Details> {
    let report = node.report?;
    let held = report.programs.iter().any(|held| held.name == program.name && held.uid == program.uid);
    report.details.iter().find(|details| held && details.name == program.name)
}

fn announcement(kind: DriftKind, message: &str, nodes: &[&str]) -> Announcement {
    let note = clip(&format!("on {}: {message}", named(nodes)), 1024);
    Announcement { warning: true, reason: kind.as_str(), action: "Observe", note }
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
    const LONG_AGO: &str = "2026-01-01T11:54:59Z";
    const LATELY: &str = "2026-01-01T11:55:00Z";

    /// What a node says that has seen it so often, or that is silent.
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

    fn notes(drifted: &mut Drifted, counts: &[Option<i64>], seen_at: &str) -> Vec<String> {
        let program = ProgramRef { name: "p".into(), uid: "u".into() };
        let reports: Vec<_> = counts.iter().map(|count| report(*count, seen_at)).collect();
        let labels = BTreeMap::new();
        let names: Vec<String> = (0..counts.len()).map(|n| format!("n{n}")).collect();
        let views: Vec<NodeView<'_>> = names
            .iter()
            .zip(&reports)
            .map(|(name, report)| NodeView { name, labels: &labels, liveness: Liveness::Live, report: Some(report) })
            .collect();
        drifted.news(&program, &views, NOW.parse().unwrap()).into_iter().map(|news| news.note).collect()
    }

    #[test]
    fn what_is_new_is_announced_once_for_all_nodes_that_say_it() {
        let mut drifted = Drifted::default();
        let mut notes = |counts: &[i64]| {
            let counts: Vec<_> = counts.iter().copied().map(Some).collect();
            notes(&mut drifted, &counts, LONG_AGO)
        };
        assert!(notes(&[0, 3]).is_empty(), "the first look tells old from new");
        assert!(notes(&[0, 3]).is_empty());
        assert_eq!(notes(&[1, 4]), ["on n0, n1: the link was detached"]);
        assert_eq!(notes(&[1, 5]), ["on n1: the link was detached"]);
        assert!(notes(&[0, 5]).is_empty(), "what is forgotten is no news");
        assert_eq!(notes(&[1, 5]), ["on n0: the link was detached"]);
    }

    #[test]
    fn what_was_seen_lately_is_announced_by_the_first_look() {
        let mut drifted = Drifted::default();
        assert_eq!(notes(&mut drifted, &[Some(1), Some(0)], LATELY), ["on n0: the link was detached"]);
        assert!(notes(&mut drifted, &[Some(1), Some(0)], LATELY).is_empty());
        assert_eq!(
            notes(&mut Drifted::default(), &[Some(2); 7], LATELY),
            ["on n0, n1, n2, n3, n4 and 2 more: the link was detached"]
        );
        assert!(notes(&mut Drifted::default(), &[Some(2); 7], LONG_AGO).is_empty(), "old news");
        assert!(notes(&mut Drifted::default(), &[Some(2)], "no time").is_empty());
    }

    #[test]
    fn a_node_that_is_silent_for_a_while_has_forgotten_nothing() {
        let mut drifted = Drifted::default();
        assert_eq!(notes(&mut drifted, &[Some(1)], LATELY).len(), 1);
        assert!(notes(&mut drifted, &[None], LATELY).is_empty());
        assert!(notes(&mut drifted, &[Some(1)], LATELY).is_empty());
        assert!(notes(&mut drifted, &[None], LATELY).is_empty());
        assert_eq!(notes(&mut drifted, &[Some(2)], LONG_AGO).len(), 1, "and what came meanwhile is told");
    }
}
