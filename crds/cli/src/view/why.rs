//! [`Why`]: why a BpfProgram is not in effect, from the condition to the cause.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sockeye_crds::{
    BpfProgram, BpfProgramStatus, Condition, ConditionType, Reason, condition, condition::Status, names,
};

use super::{
    advice::advice,
    placement::{Placement, PlacementState},
};
use crate::output::{table::escaped, terminal::Colours};

/// The most nodes that one line names.
const MAX_NAMED: usize = 5;
/// The most lines of a verifier's log.
const LOG_LINES: usize = 8;

/// Why a BpfProgram is in effect, or is not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The BpfProgram.
    pub program: String,
    /// True if its latest spec is in effect wherever it should be.
    pub in_effect: bool,
    /// The answer in one line.
    pub answer: String,
    /// The links of the chain, from what is shown to what causes it.
    pub chain: Vec<Link>,
    /// The remedies, in this order.
    pub advice: Vec<String>,
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The stage: from the condition to a node.
    pub stage: String,
    /// True if all is well there.
    pub ok: bool,
    /// The reason, if it is one of the API's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The finding at that stage.
    pub text: String,
    /// More lines, for example of a log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Explains a BpfProgram's state.
pub fn explain(program: &BpfProgram, placements: &[Placement]) -> Why {
    let empty = BpfProgramStatus::default();
    let status = program.status.as_ref().unwrap_or(&empty);
    let mut chain = Chain { links: Vec::new() };
    chain.condition(status);
    chain.spec(program, status);
    chain.accepted(status);
    chain.revision(status);
    chain.nodes(status, placements);
    for (_, group) in failing(placements) {
        chain.failing(&group);
    }
    chain.warnings(placements);
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    // A manifest of a node without a cluster has no generation.
    let generation = program.metadata.generation;
    let is_current = status.observed_generation.is_none_or(|seen| generation.is_none_or(|latest| latest <= seen));
    let in_effect = is_current && ready.is_some_and(|ready| ready.status == Status::True);
    Why {
        program: program.metadata.name.clone().unwrap_or_default(),
        in_effect,
        answer: answer(in_effect, ready, status),
        advice: advices(&chain.links),
        chain: chain.links,
    }
}

fn answer(in_effect: bool, ready: Option<&Condition>, status: &BpfProgramStatus) -> String {
    let desired = status.nodes.as_ref().map_or(0, |nodes| nodes.desired);
    match (in_effect, ready) {
        (true, Some(ready)) if ready.reason != Reason::InEffect => {
            format!("nothing is wrong, and nothing is in effect: {}", ready.reason.as_str())
        }
        (true, _) => format!("it is in effect on all of {desired} nodes"),
        (false, Some(ready)) => format!("it is not in effect everywhere: {}", ready.reason.as_str()),
        (false, None) => "nobody has looked at it yet".to_owned(),
    }
}

struct Chain {
    links: Vec<Link>,
}

impl Chain {
    fn add(&mut self, stage: &str, ok: bool, reason: Option<Reason>, text: String) {
        self.links.push(Link { stage: stage.to_owned(), ok, reason, text, lines: Vec::new() });
    }

    fn condition(&mut self, status: &BpfProgramStatus) {
        match condition::find(&status.conditions, ConditionType::Ready) {
            Some(ready) => {
                let text = format!("Ready is {:?}: {}", ready.status, said(ready));
                self.add("condition", ready.status == Status::True, Some(ready.reason), text);
            }
            None => self.add("condition", false, Some(Reason::Pending), "there is no condition Ready".to_owned()),
        }
    }

    fn spec(&mut self, program: &BpfProgram, status: &BpfProgramStatus) {
        let generation = program.metadata.generation.or(status.observed_generation).unwrap_or_default();
        match status.observed_generation {
            Some(seen) if seen >= generation => {
                self.add("spec", true, None, format!("generation {generation}, which has been looked at"));
            }
            seen => {
                let seen = seen.map_or("none".to_owned(), |seen| seen.to_string());
                let text = format!("generation {generation}; the last one that was looked at: {seen}");
                self.add("spec", false, Some(Reason::Pending), text);
            }
        }
        if program.spec.suspend {
            self.add("spec", false, Some(Reason::Suspended), "spec.suspend is true".to_owned());
        }
        if program.metadata.deletion_timestamp.is_some() {
            self.add("spec", false, Some(Reason::Deleting), "it is being deleted".to_owned());
        }
    }

    fn accepted(&mut self, status: &BpfProgramStatus) {
        if let Some(accepted) = condition::find(&status.conditions, ConditionType::Accepted) {
            let ok = accepted.status == Status::True;
            self.add("admission", ok, Some(accepted.reason), said(accepted));
        }
    }

    fn revision(&mut self, status: &BpfProgramStatus) {
        match &status.current_revision {
            Some(current) => {
                let text = format!("{}, of generation {}", current.name, current.program_generation);
                let observed = status.observed_generation.unwrap_or(current.program_generation);
                let accepted = condition::find(&status.conditions, ConditionType::Accepted);
                let refused = accepted.is_some_and(|accepted| accepted.status == Status::False);
                let text = match refused && current.program_generation < observed {
                    true => format!("{text}; it stays while the newer spec is refused"),
                    false => text,
                };
                self.add("revision", true, None, text);
            }
            None => self.add("revision", false, Some(Reason::NotDispatched), "no spec was accepted yet".to_owned()),
        }
    }

    fn nodes(&mut self, status: &BpfProgramStatus, placements: &[Placement]) {
        let Some(nodes) = &status.nodes else { return };
        if status.current_revision.is_none() {
            return;
        }
        let mut parts = vec![format!("{} of {} have it in effect", nodes.updated, nodes.desired)];
        let counted = [
            (nodes.failed, "fail"),
            (nodes.suspended, "are suspended"),
            (nodes.unknown, "are not Ready"),
            (nodes.without_agent, "have no agent"),
        ];
        parts.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
        let settled = nodes.updated + counted.iter().map(|(count, _)| count).sum::<i64>();
        if settled < nodes.desired {
            parts.push(format!("{} have not reported yet", nodes.desired - settled));
        }
        let reason = (nodes.desired == 0).then_some(Reason::NoNodeSelected);
        let is_well = nodes.updated == nodes.desired && placements.iter().all(|p| p.state != PlacementState::Failed);
        self.add("nodes", is_well, reason, parts.join("; "));
    }

    /// Adds the nodes that fail for one reason and with one message.
    fn failing(&mut self, group: &[&Placement]) {
        let Some(first) = group.first() else { return };
        let nodes: Vec<&str> = group.iter().map(|placement| placement.node.as_str()).collect();
        let message = first.message.as_deref().unwrap_or("it says nothing more");
        let reason = first.reason.map_or(first.state.as_str(), Reason::as_str);
        let mut lines = Vec::new();
        let runs: BTreeSet<&str> = group.iter().filter_map(|placement| placement.revision.as_deref()).collect();
        if first.state != PlacementState::InEffect && !runs.is_empty() {
            let runs: Vec<&str> = runs.into_iter().collect();
            lines.push(format!("meanwhile it runs {}", names::list(&runs, MAX_NAMED)));
        }
        if let Some(log) = group.iter().find_map(|placement| placement.verifier_log.as_deref()) {
            lines.push("the verifier says at the end:".to_owned());
            let all: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = all.len().saturating_sub(LOG_LINES);
            lines.extend(all.into_iter().skip(last).map(|line| format!("  {line}")));
        }
        let stage = format!("node {}", names::list(&nodes, MAX_NAMED));
        let reason_word = first.reason;
        self.links.push(Link { stage, ok: false, reason: reason_word, text: format!("{reason}: {message}"), lines });
    }

    fn warnings(&mut self, placements: &[Placement]) {
        let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for placement in placements {
            for warning in &placement.warnings {
                by_text.entry(warning).or_default().push(&placement.node);
            }
        }
        for (warning, nodes) in by_text {
            self.add(&format!("warning, {}", names::list(&nodes, MAX_NAMED)), true, None, warning.to_owned());
        }
    }
}

fn said(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" => condition.reason.as_str().to_owned(),
        message => format!("{}: {message}", condition.reason.as_str()),
    }
}

/// Returns the placements that are not well, those of one reason and message together.
fn failing(placements: &[Placement]) -> BTreeMap<(PlacementState, &'static str, &str), Vec<&Placement>> {
    let mut groups: BTreeMap<_, Vec<&Placement>> = BTreeMap::new();
    for placement in placements.iter().filter(|placement| placement.state != PlacementState::InEffect) {
        let reason = placement.reason.map_or("", Reason::as_str);
        let key = (placement.state, reason, placement.message.as_deref().unwrap_or_default());
        groups.entry(key).or_default().push(placement);
    }
    groups
}

/// Returns what to do: about the last links first, since they cause those before.
fn advices(links: &[Link]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let causes = links.iter().rev().filter(|link| !link.ok).filter_map(|link| link.reason);
    let well = links.iter().filter(|link| link.ok).filter_map(|link| link.reason);
    for text in causes.chain(well.filter(|reason| matches!(reason, Reason::NoPodSelected | Reason::NoNodeSelected))) {
        let text = advice(text).map(str::to_owned);
        all.extend(text.filter(|text| !all.contains(text)));
    }
    all
}

/// Returns the page.
pub fn render(why: &Why, colours: Colours) -> String {
    let mut text = format!("{}: {}\n\n", colours.strong(&escaped(&why.program)), escaped(&why.answer));
    let width = why.chain.iter().map(|link| link.stage.chars().count()).max().unwrap_or_default();
    for Link { stage, ok, text: said, lines, .. } in &why.chain {
        let mark = if *ok { colours.good("ok  ") } else { colours.bad("FAIL") };
        text += &format!("{mark}  {:width$}  {}\n", escaped(stage), escaped(&said.replace('\n', " ")));
        for line in lines {
            text += &format!("{:indent$}{}\n", "", escaped(line), indent = width + 8);
        }
    }
    if !why.advice.is_empty() {
        text += "\nWhat to do\n";
        for advice in &why.advice {
            text += &format!("  - {advice}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::{
        fixtures::{condition, detail, node, program},
        placement::placements,
    };

    fn counts(desired: i64, updated: i64, failed: i64, unknown: i64) -> Value {
        json!({
            "desired": desired, "updated": updated, "attached": updated, "suspended": 0, "failed": failed,
            "unknown": unknown, "withoutAgent": 0,
        })
    }

    #[test]
    fn a_program_that_the_verifier_rejects_is_explained_to_the_log() {
        let status = json!({
            "observedGeneration": 2,
            "currentRevision": {"name": "guard-2", "programGeneration": 2, "digest": "sha256:0"},
            "nodes": counts(3, 1, 1, 1),
            "nodeStatuses": [{"nodeName": "c", "reason": "NodeNotReady", "pods": 0, "links": 0}],
            "conditions": [
                condition("Accepted", "True", "Dispatched", ""),
                condition("Ready", "False", "VerifierRejected", "1 of 3 nodes failed"),
            ],
        });
        let failed = json!({
            "uid": "u", "revision": "guard-1", "desiredRevision": "guard-2", "state": "Failed",
            "reason": "VerifierRejected", "message": "function my_prog: R1 invalid mem access",
        });
        let well = json!({"uid": "u", "revision": "guard-2", "state": "Attached", "warnings": ["no order here"]});
        let nodes = [
            node("a", json!({"programs": {"guard": failed.to_string()}})),
            node("b", json!({"programs": {"guard": well.to_string()}})),
        ];
        let log = "0: (79) r1 = *(u64 *)(r1 +0)\n\nR1 invalid mem access\nprocessed 1 insns";
        let details = [detail("a", json!([{"name": "guard", "verifierLog": log}]))];
        let program = program("guard", Value::Null, status);
        let why = explain(&program, &placements(&program, &nodes, &details));
        assert!(!why.in_effect);
        let expected = "\
guard: it is not in effect everywhere: VerifierRejected

FAIL  condition   Ready is False: VerifierRejected: 1 of 3 nodes failed
ok    spec        generation 2, which has been looked at
ok    admission   Dispatched
ok    revision    guard-2, of generation 2
FAIL  nodes       1 of 3 have it in effect; 1 fail; 1 are not Ready
FAIL  node a      VerifierRejected: function my_prog: R1 invalid mem access
                  meanwhile it runs guard-1
                  the verifier says at the end:
                    0: (79) r1 = *(u64 *)(r1 +0)
                    R1 invalid mem access
                    processed 1 insns
FAIL  node c      NodeNotReady: it says nothing more
ok    warning, b  no order here

What to do
  - look at the node and at its agent's pod
  - correct the program by the verifier's log, which is above
";
        assert_eq!(render(&why, Colours::default()), expected);
    }

    #[test]
    fn a_refused_edit_is_explained_by_admission_and_leaves_what_runs() {
        let status = json!({
            "observedGeneration": 2,
            "currentRevision": {"name": "guard-1", "programGeneration": 1, "digest": "sha256:0"},
            "nodes": counts(1, 1, 0, 0),
            "conditions": [
                condition("Accepted", "False", "MapNotFound", "spec.maps[0].name: no map denied"),
                condition("Ready", "False", "MapNotFound", "spec.maps[0].name: no map denied"),
            ],
        });
        let why = explain(&program("guard", Value::Null, status), &[]);
        let text = render(&why, Colours::default());
        assert!(text.contains("FAIL  admission  MapNotFound: spec.maps[0].name: no map denied"), "{text}");
        assert!(
            text.contains("ok    revision   guard-1, of generation 1; it stays while the newer spec is refused"),
            "{text}"
        );
        assert_eq!(why.advice.len(), 1);
    }

    #[test]
    fn a_program_that_nobody_has_looked_at_waits_for_the_operator() {
        let why = explain(&program("new", Value::Null, Value::Null), &[]);
        assert_eq!((why.in_effect, &*why.answer), (false, "nobody has looked at it yet"));
        assert!(why.advice.iter().any(|advice| advice.contains("whether the operator runs")), "{:?}", why.advice);
    }

    #[test]
    fn what_is_well_needs_nothing_but_selectors_that_pick_nothing_are_named() {
        let ready = |reason: &str| {
            let status = json!({
                "observedGeneration": 2,
                "currentRevision": {"name": "p-1", "programGeneration": 2, "digest": "sha256:0"},
                "nodes": counts(2, 2, 0, 0),
                "conditions": [condition("Accepted", "True", "Dispatched", ""), condition("Ready", "True", reason, "")],
            });
            explain(&program("p", Value::Null, status), &[])
        };
        let well = ready("InEffect");
        assert_eq!((well.in_effect, &*well.answer, well.advice.len()), (true, "it is in effect on all of 2 nodes", 0));
        let none = ready("NoPodSelected");
        assert_eq!((none.in_effect, none.advice.len()), (true, 1));
        assert!(none.answer.contains("NoPodSelected"));
    }

    #[test]
    fn a_manifest_without_a_generation_is_in_effect_if_its_status_says_so() {
        let status = json!({"observedGeneration": 1, "conditions": [condition("Ready", "True", "InEffect", "")]});
        let mut program = program("p", Value::Null, status);
        program.metadata.generation = None;
        assert!(explain(&program, &[]).in_effect);
    }

    #[test]
    fn no_message_moves_the_cursor() {
        let status = json!({"conditions": [condition("Ready", "False", "Other", "\u{1b}[2Jgone")]});
        let text = render(&explain(&program("p", Value::Null, status), &[]), Colours::default());
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
