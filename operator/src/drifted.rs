//! `Drifted`: what agents saw others do to a BpfProgram's objects, as far as it is announced. Pure. What is there when a
//! process takes its first look was announced by the one before, or is old news.

use std::collections::BTreeMap;

use sockeye_crds::{
    names::clip,
    node::{Drift, DriftKind},
    revision::ProgramRef,
    summary::NodeView,
};

use crate::step::Announcement;

/// An Event names at most so many nodes.
const MAX_NAMED: usize = 5;

/// What is announced: how often each node has said the same.
#[derive(Clone, Debug, Default)]
pub struct Drifted(Option<BTreeMap<(String, DriftKind, String), i64>>);

impl Drifted {
    /// What the nodes say now and had not said before, the same from several nodes as one.
    pub fn news(&mut self, program: &ProgramRef, nodes: &[NodeView<'_>]) -> Vec<Announcement> {
        let said: BTreeMap<_, _> = nodes.iter().flat_map(|node| of(program, node)).collect();
        let Some(before) = self.0.replace(said.clone()) else { return Vec::new() };
        let mut news: BTreeMap<(DriftKind, String), Vec<String>> = BTreeMap::new();
        for ((node, kind, message), count) in said {
            // A count that is lower is of an agent that started anew.
            if before.get(&(node.clone(), kind, message.clone())) != Some(&count) {
                news.entry((kind, message)).or_default().push(node);
            }
        }
        news.into_iter().map(|((kind, message), nodes)| announcement(kind, &message, &nodes)).collect()
    }
}

fn of(program: &ProgramRef, node: &NodeView<'_>) -> Vec<((String, DriftKind, String), i64)> {
    let Some(report) = node.report else { return Vec::new() };
    let held = report.programs.iter().any(|held| held.name == program.name && held.uid == program.uid);
    let details = report.details.iter().find(|details| held && details.name == program.name);
    let drift = details.into_iter().flat_map(|details| &details.drift);
    drift
        .map(|Drift { seen_at: _, kind, message, count }| ((node.name.to_owned(), *kind, message.clone()), *count))
        .collect()
}

fn announcement(kind: DriftKind, message: &str, nodes: &[String]) -> Announcement {
    let named = nodes.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match nodes.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let note = clip(&format!("on {named}{more}: {message}"), 1024);
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

    fn report(count: i64) -> BpfNodeStatus {
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
            seen_at: String::new(),
            kind: DriftKind::LinkDetached,
            message: "the link was detached".into(),
            count,
        };
        let drift = if count > 0 { vec![drift] } else { vec![] };
        let details = Details { name: "p".into(), drift, ..Details::default() };
        BpfNodeStatus { programs: vec![held], details: vec![details], ..BpfNodeStatus::default() }
    }

    fn notes(drifted: &mut Drifted, counts: &[i64]) -> Vec<String> {
        let program = ProgramRef { name: "p".into(), uid: "u".into() };
        let (reports, labels): (Vec<_>, _) = (counts.iter().map(|count| report(*count)).collect(), BTreeMap::new());
        let names: Vec<String> = (0..counts.len()).map(|n| format!("n{n}")).collect();
        let views: Vec<NodeView<'_>> = names
            .iter()
            .zip(&reports)
            .map(|(name, report)| NodeView { name, labels: &labels, liveness: Liveness::Live, report: Some(report) })
            .collect();
        drifted.news(&program, &views).into_iter().map(|news| news.note).collect()
    }

    #[test]
    fn what_is_new_is_announced_once_for_all_nodes_that_say_it() {
        let mut drifted = Drifted::default();
        assert!(notes(&mut drifted, &[0, 3]).is_empty(), "the first look tells old from new");
        assert!(notes(&mut drifted, &[0, 3]).is_empty());
        assert_eq!(notes(&mut drifted, &[1, 4]), ["on n0, n1: the link was detached"]);
        assert_eq!(notes(&mut drifted, &[1, 5]), ["on n1: the link was detached"]);
        assert!(notes(&mut drifted, &[0, 5]).is_empty(), "what is forgotten is no news");
        assert_eq!(notes(&mut drifted, &[1; 7]), ["on n0, n1, n2, n3, n4 and 2 more: the link was detached"]);
    }
}
