//! `merge`: conditions over time, and the spelling of reasons.
#![allow(clippy::unwrap_used, missing_docs)]

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{Timestamp, ToSpan as _},
};
use serde_json::json;
use sockeye_crds::{
    BpfProgramStatus, Condition, ConditionType, Reason,
    condition::{ConditionState, Status, find, merge},
};

fn minute(n: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + n.minutes()
}

fn state(type_: ConditionType, status: Status, reason: Reason) -> ConditionState {
    ConditionState { type_, status, reason, message: format!("{reason:?}") }
}

fn transition(conditions: &[Condition], type_: ConditionType) -> Option<Time> {
    find(conditions, type_).map(|c| c.last_transition_time.clone())
}

#[test]
fn the_transition_time_stays_while_the_status_stays() {
    use ConditionType::Ready;
    let first = merge(&[], vec![state(Ready, Status::False, Reason::Progressing)], 1, minute(1));
    assert_eq!(transition(&first, Ready), Some(Time(minute(1))));

    // Another reason, another generation, the same status.
    let second = merge(&first, vec![state(Ready, Status::False, Reason::VerifierRejected)], 2, minute(2));
    assert_eq!(transition(&second, Ready), Some(Time(minute(1))));
    assert_eq!(second[0].reason, Reason::VerifierRejected);
    assert_eq!(second[0].observed_generation, Some(2));

    let third = merge(&second, vec![state(Ready, Status::True, Reason::InEffect)], 3, minute(3));
    assert_eq!(transition(&third, Ready), Some(Time(minute(3))));
}

#[test]
fn merging_the_same_states_changes_nothing() {
    let states = || {
        vec![
            state(ConditionType::Accepted, Status::True, Reason::Dispatched),
            state(ConditionType::Attached, Status::Unknown, Reason::NoReadyNodes),
        ]
    };
    let first = merge(&[], states(), 1, minute(1));
    assert_eq!(merge(&first, states(), 1, minute(9)), first);
}

#[test]
fn a_condition_without_a_state_is_dropped_and_the_order_is_fixed() {
    use ConditionType::{Accepted, Ready, Stalled};
    let previous = merge(
        &[],
        vec![
            state(Stalled, Status::True, Reason::InvalidObject),
            state(Ready, Status::False, Reason::InvalidObject),
            state(Accepted, Status::False, Reason::InvalidObject),
        ],
        1,
        minute(1),
    );
    assert_eq!(previous.iter().map(|c| c.type_).collect::<Vec<_>>(), [Accepted, Ready, Stalled]);

    let healed = merge(&previous, vec![state(Ready, Status::True, Reason::InEffect)], 2, minute(2));
    assert_eq!(healed.iter().map(|c| c.type_).collect::<Vec<_>>(), [Ready]);
}

#[test]
fn a_long_message_is_cut_to_the_schemas_limit() {
    let long =
        ConditionState { message: "é".repeat(4096), ..state(ConditionType::Ready, Status::False, Reason::LoadFailed) };
    let merged = merge(&[], vec![long], 1, minute(1));
    assert!(merged[0].message.len() <= 4096);
    assert!(merged[0].message.ends_with('…'));
}

/// `metav1.Condition`'s pattern also admits letters with digits and `_`; ours are words in upper camel case.
#[test]
fn reasons_are_read_as_they_are_written_and_unknown_ones_as_other() {
    for reason in Reason::ALL {
        assert!(reason.as_str().starts_with(char::is_uppercase) && reason.as_str().chars().all(char::is_alphabetic));
        assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        assert_eq!(serde_json::from_value::<Reason>(reason.as_str().into()).ok(), Some(*reason));
    }
    assert_eq!(serde_json::from_value::<Reason>("OfTomorrow".into()).ok(), Some(Reason::Other));
}

/// Another controller's condition has a type and a reason of its own. The operator neither reads nor writes it.
#[test]
fn a_condition_of_another_controller_is_skipped() {
    let condition = |type_: &str, reason: &str| {
        json!({"type": type_, "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = [condition("example.com/Audited", "ByHand"), condition("Ready", "InEffect")];
    let status: BpfProgramStatus = serde_json::from_value(json!({"conditions": conditions})).unwrap();
    assert_eq!(status.conditions.iter().map(|one| one.type_).collect::<Vec<_>>(), [ConditionType::Ready]);
}
