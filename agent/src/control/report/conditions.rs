//! The conditions of a BpfNode, without the times of their transitions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    BpfNodeStatus, ConditionType, Reason,
    condition::{ConditionState, Status},
    names::{self, clip},
    node::{NodeProgram, State},
};

/// The maximum number of BpfPrograms that a message names.
const MAX_NAMED: usize = 5;
/// The maximum number of bytes that a message quotes of a BpfProgram's.
const MAX_QUOTE: usize = 400;
/// The maximum number of bytes of a message.
pub(super) const MAX_MESSAGE: usize = 1024;

/// Returns the conditions that a status, be it without messages, stands for.
///
/// `awaiting` are the BpfPrograms whose only failure is that their object is being fetched. `older_layout` says which
/// pins have another layout, and what to do about them.
pub fn conditions(
    status: &BpfNodeStatus,
    awaiting: &BTreeSet<String>,
    older_layout: Option<&str>,
) -> Vec<ConditionState> {
    let older_layout =
        older_layout.map(|message| state(ConditionType::PinsCurrent, Status::False, Reason::OlderLayout, message));
    [ready(status, awaiting)].into_iter().chain(older_layout).collect()
}

fn ready(BpfNodeStatus { programs, suspended, .. }: &BpfNodeStatus, awaiting: &BTreeSet<String>) -> ConditionState {
    let not_ready = |reason, message: &str| state(ConditionType::Ready, Status::False, reason, message);
    if let Some(why) = suspended {
        return not_ready(Reason::Suspended, why);
    }
    let is_pending = |program: &&NodeProgram| program.reason.is_none() || awaiting.contains(&program.name);
    let out_of_effect = programs.iter().filter(|program| program.state == State::Failed);
    let (pending, failing): (Vec<&NodeProgram>, Vec<&NodeProgram>) = out_of_effect.partition(is_pending);
    if let Some(reason) = leading_reason(&failing) {
        let (leading, others): (Vec<&NodeProgram>, Vec<&NodeProgram>) =
            failing.into_iter().partition(|program| program.reason == Some(reason));
        let quote = leading.iter().find_map(|program| Some(format!("{}: {}", program.name, program.message.as_ref()?)));
        let quote = quote.map(|quote| format!("; {}", clip(&quote, MAX_QUOTE))).unwrap_or_default();
        let names = list(leading.into_iter().chain(others));
        return not_ready(reason, &format!("not in effect: {names}{quote}"));
    }
    if !pending.is_empty() {
        return not_ready(Reason::Progressing, &format!("being brought into effect: {}", list(pending.into_iter())));
    }
    let message = "every BpfProgram that this node should run is in effect";
    state(ConditionType::Ready, Status::True, Reason::InEffect, message)
}

/// Returns the reason for which most BpfPrograms fail; of several, that of the first one.
fn leading_reason(failing: &[&NodeProgram]) -> Option<Reason> {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    failing.iter().filter_map(|program| program.reason).for_each(|reason| *counts.entry(reason).or_default() += 1);
    let most = counts.values().max()?;
    failing.iter().filter_map(|program| program.reason).find(|reason| counts.get(reason) == Some(most))
}

fn list<'a>(programs: impl Iterator<Item = &'a NodeProgram>) -> String {
    names::list(&programs.map(|program| program.name.as_str()).collect::<Vec<_>>(), MAX_NAMED)
}

fn state(type_: ConditionType, status: Status, reason: Reason, message: &str) -> ConditionState {
    ConditionState { type_, status, reason, message: clip(message, MAX_MESSAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, state: State, reason: Option<Reason>) -> NodeProgram {
        let message = reason.map(|reason| format!("{reason:?} it is"));
        NodeProgram { name: name.to_owned(), state, reason, message, ..NodeProgram::default() }
    }

    /// The reason and the message of Ready.
    fn ready(programs: Vec<NodeProgram>, awaiting: &[&str]) -> (Status, Reason, String) {
        let status = BpfNodeStatus { programs, ..BpfNodeStatus::default() };
        let awaiting = awaiting.iter().map(|name| (*name).to_owned()).collect();
        let [ConditionState { type_: ConditionType::Ready, status, reason, message }] =
            &conditions(&status, &awaiting, None)[..]
        else {
            panic!("one condition")
        };
        (*status, *reason, message.clone())
    }

    #[test]
    fn a_node_is_ready_once_all_that_it_should_run_is_in_effect() {
        let (status, reason, _) = ready(
            vec![
                program("a", State::Attached, None),
                program("asked-for", State::Suspended, Some(Reason::Suspended)),
                program("goes", State::Removing, Some(Reason::AttachFailed)),
            ],
            &[],
        );
        assert_eq!((status, reason), (Status::True, Reason::InEffect));
        assert_eq!(ready(Vec::new(), &[]).1, Reason::InEffect);
    }

    #[test]
    fn what_is_on_its_way_is_progress_and_no_failure() {
        let fetched = program("fetched", State::Failed, Some(Reason::BytecodeUnavailable));
        let pending = program("pending", State::Failed, None);
        let (status, reason, message) = ready(vec![fetched.clone(), pending.clone()], &["fetched"]);
        assert_eq!((status, reason), (Status::False, Reason::Progressing));
        assert!(message.ends_with("fetched, pending"), "{message}");
        let (_, reason, message) = ready(vec![fetched, pending], &[]);
        assert_eq!(reason, Reason::BytecodeUnavailable);
        assert_eq!(message, "not in effect: fetched; fetched: BytecodeUnavailable it is");
    }

    #[test]
    fn the_reason_is_that_of_most_failures_and_the_message_names_five() {
        let failed = |n: usize, reason| program(&format!("p-{n}"), State::Failed, Some(reason));
        let mut programs: Vec<_> = (2..8).map(|n| failed(n, Reason::VerifierRejected)).collect();
        programs.insert(0, failed(1, Reason::AttachFailed));
        let (_, reason, message) = ready(programs.clone(), &[]);
        assert_eq!(reason, Reason::VerifierRejected);
        assert_eq!(message, "not in effect: p-2, p-3, p-4, p-5, p-6 and 2 more; p-2: VerifierRejected it is");
        assert_eq!(ready(programs[..2].to_vec(), &[]).1, Reason::AttachFailed, "of several the first");
    }

    #[test]
    fn a_suspended_node_and_pins_of_another_layout_are_said() {
        let status = BpfNodeStatus {
            suspended: Some("drill".to_owned()),
            programs: vec![program("a", State::Failed, Some(Reason::OlderLayout))],
            ..BpfNodeStatus::default()
        };
        let [ready, pins] = &conditions(&status, &BTreeSet::new(), Some("remove them"))[..] else { panic!("two") };
        assert_eq!((ready.reason, ready.message.as_str()), (Reason::Suspended, "drill"));
        assert_eq!((pins.type_, pins.status), (ConditionType::PinsCurrent, Status::False));
        assert_eq!((pins.reason, pins.message.as_str()), (Reason::OlderLayout, "remove them"));
    }
}
