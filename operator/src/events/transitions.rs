//! Events about a change of status. IO: none.
//!
//! They follow from the old and the new status alone, so a restarted operator publishes none twice.

use std::collections::BTreeSet;

use sockeye_crds::{
    BpfProgramStatus, Condition, ConditionType, Reason,
    condition::{self, Status},
    summary,
};

use crate::events::{ATTACH, ProgramEvent, list_nodes};

/// Returns the Events for a change from `old` to `new`. A condition's transition is one, a new message is not; but a
/// node that begins to fail is one, and so is the last node on which the BpfProgram is suspended.
pub fn transitions(old: &BpfProgramStatus, new: &BpfProgramStatus) -> Vec<ProgramEvent> {
    let pair =
        |type_| Pair { old: condition::find(&old.conditions, type_), new: condition::find(&new.conditions, type_) };
    let revision = |status: &BpfProgramStatus| status.current_revision.as_ref().map(|current| current.name.clone());
    let has_news = has_new_failing_node(old, new) || is_suspended_everywhere(new) && !is_suspended_everywhere(old);
    let events = [
        accepted(pair(ConditionType::Accepted), revision(old) != revision(new)),
        attached(pair(ConditionType::Attached), has_news).map(|event| ProgramEvent { quoted: quoted(new), ..event }),
        in_use(pair(ConditionType::Ready)),
    ];
    events.into_iter().flatten().collect()
}

/// Returns the Event for the end of a deletion: no live node runs the BpfProgram. The `absent` nodes, which are not
/// live, ran it when they last reported.
pub fn detached(absent: &[&str]) -> ProgramEvent {
    let note = match absent {
        [] => "no live node holds it any more".to_owned(),
        absent => format!(
            "no live node holds it any more; not live, and holding it by their last word: {}; there it is removed once \
             sockeye's agent is back",
            list_nodes(absent)
        ),
    };
    ProgramEvent {
        is_warning: !absent.is_empty(),
        reason: "Detached".to_owned(),
        action: "Delete",
        note,
        quoted: vec![],
    }
}

/// One condition before and after.
struct Pair<'a> {
    old: Option<&'a Condition>,
    new: Option<&'a Condition>,
}

fn accepted(Pair { old, new }: Pair<'_>, is_new_revision: bool) -> Option<ProgramEvent> {
    let new = new?;
    let is_event = match new.status {
        Status::True => is_new_revision || old.is_none_or(|old| old.status != new.status),
        // A pull that begins is none. Its end is.
        Status::False if new.reason == Reason::ImagePulling => false,
        // Every rejected edit is an Event, even if it fails as the one before.
        Status::False | Status::Unknown => {
            old.is_none_or(|old| outcome(old) != outcome(new) || old.observed_generation != new.observed_generation)
        }
    };
    is_event.then(|| event(new, "Validate", new.status != Status::True))
}

fn attached(Pair { old, new }: Pair<'_>, has_news: bool) -> Option<ProgramEvent> {
    let new = new?;
    let is_in_progress = matches!(new.reason, Reason::Progressing | Reason::NotDispatched);
    // Pods come and go, and with them the last selected one.
    let follows_pods = |condition: &Condition| matches!(condition.reason, Reason::InEffect | Reason::NoPodSelected);
    let is_transition = old.is_none_or(|old| outcome(old) != outcome(new) && !(follows_pods(old) && follows_pods(new)));
    let is_as_intended = new.status == Status::True || new.reason == Reason::Suspended;
    // A user seldom wants a BpfProgram that is Ready and runs nowhere.
    let is_warning = !is_as_intended || new.reason == Reason::NoNodeSelected;
    ((is_transition || has_news) && !is_in_progress).then(|| match new.status {
        // A node's warnings may be other ones each time.
        Status::True => {
            let note = summary::without_warnings(&new.message).to_owned();
            ProgramEvent { note, ..event(new, ATTACH, is_warning) }
        }
        Status::False | Status::Unknown => event(new, ATTACH, is_warning),
    })
}

/// Lists the nodes that Attached quotes: those that fail, or if none does, those that say why they are suspended.
fn quoted(status: &BpfProgramStatus) -> Vec<String> {
    let suspended = status.node_statuses.iter().filter(|node| node.reason == Some(Reason::Suspended));
    let suspended = suspended.map(|node| node.node_name.as_str());
    let failing: Vec<&str> = failing_nodes(status).collect();
    let all: Vec<&str> = if failing.is_empty() { suspended.collect() } else { failing };
    all.into_iter().take(summary::MAX_QUOTED).map(str::to_owned).collect()
}

/// Returns whether a node that the condition's message quotes began to fail. The message quotes only the first failing
/// nodes, which bounds the Events of a failure that spreads.
fn has_new_failing_node(old: &BpfProgramStatus, new: &BpfProgramStatus) -> bool {
    let before: BTreeSet<&str> = failing_nodes(old).collect();
    failing_nodes(new).take(summary::MAX_QUOTED).any(|node| !before.contains(node))
}

/// Lists the failing nodes among those that the status lists, where they come first.
fn failing_nodes(status: &BpfProgramStatus) -> impl Iterator<Item = &str> {
    let failed = status.nodes.as_ref().map_or(0, |nodes| usize::try_from(nodes.failed).unwrap_or_default());
    status.node_statuses.iter().take(failed).map(|node| node.node_name.as_str())
}

/// Returns whether the BpfProgram is suspended on every live node that is selected. Some nodes notice sooner than
/// others, and an Event about these alone must not be the last one.
fn is_suspended_everywhere(status: &BpfProgramStatus) -> bool {
    status.nodes.as_ref().is_some_and(|nodes| {
        nodes.suspended > 0 && nodes.suspended == nodes.desired - nodes.unknown - nodes.without_agent
    })
}

/// Returns an Event whenever the BpfPrograms that a deletion waits for change.
fn in_use(Pair { old, new }: Pair<'_>) -> Option<ProgramEvent> {
    let new = new.filter(|new| new.reason == Reason::InUse)?;
    old.is_none_or(|old| old.message != new.message).then(|| event(new, "Delete", true))
}

fn outcome(condition: &Condition) -> (Status, Reason) {
    (condition.status, condition.reason)
}

fn event(condition: &Condition, action: &'static str, is_warning: bool) -> ProgramEvent {
    ProgramEvent {
        is_warning,
        reason: condition.reason.as_str().to_owned(),
        action,
        note: condition.message.clone(),
        quoted: vec![],
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use sockeye_crds::program::{CurrentRevision, NodeCounts, NodeStatus};

    use super::*;

    fn condition(type_: ConditionType, status: Status, reason: Reason, generation: i64) -> Condition {
        let last_transition_time = Time(Timestamp::UNIX_EPOCH);
        Condition {
            type_,
            status,
            observed_generation: Some(generation),
            last_transition_time,
            reason,
            message: "words".into(),
        }
    }

    fn status(accepted: (Status, Reason, i64), attached: (Status, Reason), revision: Option<&str>) -> BpfProgramStatus {
        BpfProgramStatus {
            current_revision: revision.map(|name| CurrentRevision { name: name.into(), ..CurrentRevision::default() }),
            conditions: vec![
                condition(ConditionType::Accepted, accepted.0, accepted.1, accepted.2),
                condition(ConditionType::Attached, attached.0, attached.1, accepted.2),
            ],
            ..BpfProgramStatus::default()
        }
    }

    fn reasons(old: &BpfProgramStatus, new: &BpfProgramStatus) -> Vec<(String, bool)> {
        transitions(old, new).into_iter().map(|event| (event.reason, event.is_warning)).collect()
    }

    const ACCEPTED: (Status, Reason, i64) = (Status::True, Reason::Dispatched, 1);
    const PROGRESSING: (Status, Reason) = (Status::False, Reason::Progressing);
    const IN_EFFECT: (Status, Reason) = (Status::True, Reason::InEffect);

    #[test]
    fn a_rollout_is_two_events() {
        let dispatched = status(ACCEPTED, PROGRESSING, Some("r1"));
        let complete = status(ACCEPTED, IN_EFFECT, Some("r1"));
        assert_eq!(reasons(&BpfProgramStatus::default(), &dispatched), [("Dispatched".to_owned(), false)]);
        assert_eq!(reasons(&dispatched, &complete), [("InEffect".to_owned(), false)]);
        assert_eq!(reasons(&complete, &complete), []);
    }

    #[test]
    fn every_rejected_edit_is_one_event() {
        let good = status(ACCEPTED, IN_EFFECT, Some("r1"));
        let rejected = |generation| status((Status::False, Reason::MapNotFound, generation), IN_EFFECT, Some("r1"));
        assert_eq!(reasons(&good, &rejected(2)), [("MapNotFound".to_owned(), true)]);
        assert_eq!(reasons(&rejected(2), &rejected(2)), []);
        assert_eq!(reasons(&rejected(2), &rejected(3)), [("MapNotFound".to_owned(), true)]);
    }

    #[test]
    fn the_last_event_of_a_deletion_names_the_nodes_that_still_run_the_program() {
        let everywhere = detached(&[]);
        assert_eq!((everywhere.is_warning, &*everywhere.note), (false, "no live node holds it any more"));
        let elsewhere = detached(&["n0", "n1", "n2", "n3", "n4", "n5"]);
        assert!(elsewhere.is_warning && elsewhere.note.contains(": n0, n1, n2, n3, n4 and 1 more;"), "{elsewhere:?}");
    }

    #[test]
    fn a_quoted_node_that_begins_to_fail_is_an_event() {
        let failing_on = |nodes: &[&str]| {
            let listed = |node: &&str| NodeStatus { node_name: (*node).to_owned(), ..NodeStatus::default() };
            let mut status = status(ACCEPTED, (Status::False, Reason::LoadFailed), Some("r1"));
            status.nodes = Some(NodeCounts { failed: nodes.len() as i64, ..NodeCounts::default() });
            status.node_statuses = nodes.iter().chain(&["good"]).map(listed).collect();
            status
        };
        let is_event = |old: &[&str], new: &[&str]| !reasons(&failing_on(old), &failing_on(new)).is_empty();
        assert!(is_event(&["n1"], &["n1", "n2"]) && is_event(&["n1"], &["n2"]));
        assert!(!is_event(&["n1", "n2"], &["n2"]) && !is_event(&["n1"], &["n1"]));
        assert!(!is_event(&["n1", "n2", "n3"], &["n1", "n2", "n3", "n4"]), "n4 is not quoted");
        assert!(is_event(&["n2", "n3", "n4"], &["n1", "n2", "n3", "n4"]));
        let events = transitions(&failing_on(&["n1"]), &failing_on(&["n1", "n2", "n3", "n4"]));
        assert_eq!(events[0].quoted, ["n1", "n2", "n3"], "a token of theirs is taken");
    }

    #[test]
    fn an_event_about_what_is_in_effect_has_no_words_of_nodes() {
        let mut warned = status(ACCEPTED, IN_EFFECT, Some("r1"));
        let message = "in effect on 2 of 2 Ready nodes (1 not Ready)";
        warned.conditions[1].message = format!("{message}; n1: any words; n2: others");
        let events = transitions(&status(ACCEPTED, PROGRESSING, Some("r1")), &warned);
        assert_eq!((events.len(), &*events[0].note), (1, message));
    }

    #[test]
    fn running_nowhere_is_a_warning() {
        let nowhere = status(ACCEPTED, (Status::True, Reason::NoNodeSelected), Some("r1"));
        assert_eq!(reasons(&status(ACCEPTED, IN_EFFECT, Some("r1")), &nowhere), [("NoNodeSelected".to_owned(), true)]);
    }

    #[test]
    fn selecting_no_pod_is_one_event_and_pods_that_come_and_go_are_none() {
        let without_pods = status(ACCEPTED, (Status::True, Reason::NoPodSelected), Some("r1"));
        let in_effect = status(ACCEPTED, IN_EFFECT, Some("r1"));
        let dispatched = status(ACCEPTED, PROGRESSING, Some("r1"));
        assert_eq!(reasons(&dispatched, &without_pods), [("NoPodSelected".to_owned(), false)]);
        assert_eq!(reasons(&without_pods, &in_effect), []);
        assert_eq!(reasons(&in_effect, &without_pods), []);
    }

    #[test]
    fn a_suspension_on_some_nodes_is_not_the_last_event() {
        let suspended_on = |suspended: i64| {
            let mut status = status(ACCEPTED, (Status::False, Reason::Suspended), Some("r1"));
            status.node_statuses = (0..suspended)
                .map(|n| NodeStatus {
                    node_name: format!("n{n}"),
                    reason: Some(Reason::Suspended),
                    ..NodeStatus::default()
                })
                .collect();
            status.nodes = Some(NodeCounts { desired: 3, unknown: 1, suspended, ..NodeCounts::default() });
            status
        };
        let suspended = [("Suspended".to_owned(), false)];
        assert_eq!(reasons(&status(ACCEPTED, IN_EFFECT, Some("r1")), &suspended_on(1)), suspended);
        assert_eq!(reasons(&suspended_on(1), &suspended_on(2)), suspended, "on all that are live");
        assert_eq!(transitions(&suspended_on(1), &suspended_on(2))[0].quoted, ["n0", "n1"]);
        assert_eq!(reasons(&suspended_on(2), &suspended_on(2)), []);
        assert_eq!(reasons(&suspended_on(2), &suspended_on(1)), []);
    }
}
