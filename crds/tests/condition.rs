//! `merge`: conditions over time, and the spelling of reasons.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{Timestamp, ToSpan as _},
};
use sockeye_crds::{
    Condition, ConditionType, Reason,
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
    let second = merge(&first, vec![state(Ready, Status::False, Reason::VerifierRefused)], 2, minute(2));
    assert_eq!(transition(&second, Ready), Some(Time(minute(1))));
    assert_eq!(second[0].reason, Reason::VerifierRefused);
    assert_eq!(second[0].observed_generation, 2);

    let third = merge(&second, vec![state(Ready, Status::True, Reason::InEffect)], 3, minute(3));
    assert_eq!(transition(&third, Ready), Some(Time(minute(3))));
}

#[test]
fn merging_the_same_states_changes_nothing() {
    let states = || {
        vec![
            state(ConditionType::Accepted, Status::True, Reason::Dispatched),
            state(ConditionType::Attached, Status::Unknown, Reason::NoLiveNode),
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

/// Conditions and Events show the same spelling.
#[test]
fn reasons_are_spelt_as_their_variants() {
    for reason in [Reason::Dispatched, Reason::NoNodeSelected, Reason::VerifierRefused] {
        assert_eq!(reason.as_str(), format!("{reason:?}"));
    }
}

#[test]
fn every_reason_is_listed_and_spelt_as_in_the_schema() {
    let schema = serde_json::to_value(schemars::schema_for!(Reason)).unwrap_or_default();
    let in_schema = |reason: &Reason| schema.to_string().contains(&format!("\"const\":\"{}\"", reason.as_str()));
    assert!(Reason::ALL.iter().all(in_schema), "{schema}");
    assert_eq!(schema.to_string().matches("\"const\"").count(), Reason::ALL.len(), "Reason::ALL lacks one");
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        assert_eq!(serde_json::from_value::<Reason>(reason.as_str().into()).ok(), Some(reason));
    }
    assert_eq!(serde_json::from_value::<Reason>("OfTomorrow".into()).ok(), Some(Reason::Other));
}
