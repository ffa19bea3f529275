//! `Condition`: a statement about a BpfProgram that is true, false or unknown, with its reason and the time of the last
//! change.

use std::borrow::Cow;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, from_value};

use crate::Reason;

/// A condition as Kubernetes' API conventions define it (`metav1.Condition`), with bounded strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The type. The operator's are Accepted, Attached and Ready; and Reconciling and Stalled, which are present only
    /// while True.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// The status: True, False or Unknown.
    pub status: Status,
    /// The `metadata.generation` that the condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The time at which `status` last changed.
    pub last_transition_time: Time,
    /// The reason for the status, as one word that programs can compare.
    pub reason: Reason,
    /// The explanation for people: what is wrong, where, and what to do.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// The maximum number of bytes of a condition's message.
pub const MAX_MESSAGE: usize = 4096;

/// The type of a condition that sockeye writes: the operator all but PinsCurrent, an agent Ready and PinsCurrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// The latest spec is valid, and agents were given a revision of it.
    Accepted,
    /// The dispatched revision is in effect on every live selected node.
    Attached,
    /// Accepted and Attached are both True; of a node, every BpfProgram that it should run is in effect.
    Ready,
    /// Work towards the latest spec is in progress (kstatus).
    Reconciling,
    /// Only an edit of the BpfProgram can help (kstatus).
    Stalled,
    /// The pins on the node have the layout that its agent uses. Present only while False.
    PinsCurrent,
}

impl ConditionType {
    /// Returns the name that conditions show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Attached => "Attached",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::PinsCurrent => "PinsCurrent",
        }
    }
}

impl JsonSchema for ConditionType {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ConditionType".into()
    }

    /// A pattern instead of an enumeration, so that another controller may add a condition.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 316,
            "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$"
        })
    }
}

/// Reads the operator's own conditions, and skips those that others added.
pub(crate) fn own<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    let all = Vec::<Value>::deserialize(deserializer)?;
    Ok(all.into_iter().filter_map(|condition| from_value(condition).ok()).collect())
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It is unknown whether the condition holds.
    Unknown,
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition without its transition time, which [`merge`] adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionState {
    /// The type.
    pub type_: ConditionType,
    /// The status.
    pub status: Status,
    /// The reason for the status.
    pub reason: Reason,
    /// The explanation for people.
    pub message: String,
}

/// Returns the conditions that follow the `previous` ones. A condition keeps its transition time while its status stays
/// the same, one that `states` lacks is dropped, and the order is that of [`ConditionType`]. A node's conditions are of
/// no generation.
pub fn merge(
    previous: &[Condition],
    states: Vec<ConditionState>,
    observed_generation: impl Into<Option<i64>>,
    now: Timestamp,
) -> Vec<Condition> {
    let observed_generation = observed_generation.into();
    let mut conditions: Vec<Condition> = states
        .into_iter()
        .map(|ConditionState { type_, status, reason, message }| {
            let unchanged = previous.iter().find(|c| c.type_ == type_ && c.status == status);
            Condition {
                type_,
                status,
                observed_generation,
                last_transition_time: unchanged.map_or(Time(now), |c| c.last_transition_time.clone()),
                reason,
                message: crate::names::clip(&message, MAX_MESSAGE),
            }
        })
        .collect();
    conditions.sort_by_key(|c| c.type_);
    conditions
}

/// Returns the condition of a type, if present.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}
