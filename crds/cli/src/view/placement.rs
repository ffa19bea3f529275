//! [`Placement`]: one BpfProgram on one node, from what its agent and the operator report.

use std::collections::BTreeMap;

use serde::Serialize;
use sockeye_crds::{
    BpfNode, BpfNodeDetail, BpfProgram, Reason,
    node::{Drift, EntryCounts, NodeProgram, ProgramDetail, State},
    program::NodeStatus,
};

/// One BpfProgram on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node.
    pub node: String,
    /// The state.
    pub state: PlacementState,
    /// The revision in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The revision that should be in effect, if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// The reason why it is not in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// True if only an edit can help.
    pub needs_edit: bool,
    /// The number of links in effect.
    pub links: i64,
    /// The number of pods.
    pub pods: i64,
    /// The kernel's IDs of programs.
    #[serde(rename = "programIDs", skip_serializing_if = "Vec::is_empty")]
    pub program_ids: Vec<i64>,
    /// The kernel's IDs of maps.
    #[serde(rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    pub map_ids: Vec<i64>,
    /// Effects that one would not expect of a revision in effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The entries that the spec lists, and those in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<EntryCounts>,
    /// Recent changes by others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// The memory of its programs and maps that the kernel charges, in bytes, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The end of the verifier's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier_log: Option<String>,
}

/// The state of a BpfProgram on a node, worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PlacementState {
    /// The desired revision is not in effect.
    Failed,
    /// The node should no longer hold it, and does.
    Removing,
    /// The node or its agent is not Ready.
    #[default]
    Unknown,
    /// It has not reported on the current revision yet.
    Pending,
    /// Somebody suspended it.
    Suspended,
    /// The desired revision is in effect.
    InEffect,
}

impl PlacementState {
    /// Returns the word that is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Removing => "Removing",
            Self::Unknown => "Unknown",
            Self::Pending => "Pending",
            Self::Suspended => "Suspended",
            Self::InEffect => "InEffect",
        }
    }
}

/// Returns the placements of a BpfProgram, worst first and then by node.
///
/// An agent's report says more than the operator's summary. But of a node that is not live only the operator knows that
/// its report is old.
pub fn placements(program: &BpfProgram, nodes: &[BpfNode], details: &[BpfNodeDetail]) -> Vec<Placement> {
    let name = program.metadata.name.as_deref().unwrap_or_default();
    let status = program.status.as_ref();
    let current = status.and_then(|status| status.current_revision.as_ref()).map(|current| current.name.as_str());
    let mut placed: BTreeMap<String, Placement> = BTreeMap::new();
    for node in nodes {
        let node_name = node.metadata.name.clone().unwrap_or_default();
        let entries = node.status.iter().flat_map(|status| &status.programs);
        let mine = |entry: &&NodeProgram| entry.name == name && is_same(program.metadata.uid.as_deref(), &entry.uid);
        if let Some(entry) = entries.into_iter().find(mine) {
            placed.insert(node_name.clone(), of_report(node_name, entry, current));
        }
    }
    for reported in status.iter().flat_map(|status| &status.node_statuses) {
        let slot = placed.entry(reported.node_name.clone()).or_insert_with(|| of_summary(reported, current));
        if matches!(reported.reason, Some(Reason::NodeNotReady | Reason::AgentMissing)) {
            slot.state = PlacementState::Unknown;
            (slot.reason, slot.message) = (reported.reason, reported.message.clone());
        }
    }
    for detail in details {
        let Some(placement) = detail.metadata.name.as_ref().and_then(|node| placed.get_mut(node)) else { continue };
        let programs = detail.status.iter().flat_map(|status| &status.programs);
        if let Some(detail) = programs.into_iter().find(|detail| detail.name == name) {
            placement.memory_bytes = Some(memory(detail));
            placement.verifier_log = detail.verifier_log.clone();
        }
    }
    let mut placed: Vec<Placement> = placed.into_values().collect();
    placed.sort_by(|a, b| (a.state, &a.node).cmp(&(b.state, &b.node)));
    placed
}

/// Returns whether a report is about this BpfProgram, and not an earlier one of its name. What has no UID is about all
/// of them.
fn is_same(uid: Option<&str>, reported: &str) -> bool {
    uid.is_none_or(|uid| uid == reported) || reported.is_empty() || reported == "standalone"
}

fn of_report(node: String, entry: &NodeProgram, current: Option<&str>) -> Placement {
    let runs = entry.revision.as_deref();
    let state = match entry.state {
        State::Attached if current.is_none_or(|current| runs == Some(current)) => PlacementState::InEffect,
        State::Attached => PlacementState::Pending,
        State::Failed => PlacementState::Failed,
        State::Suspended => PlacementState::Suspended,
        State::Removing => PlacementState::Removing,
    };
    Placement {
        node,
        state,
        revision: entry.revision.clone(),
        desired_revision: entry.desired_revision.clone(),
        reason: entry.reason,
        message: entry.message.clone(),
        needs_edit: entry.needs_edit || entry.reason.is_some_and(Reason::needs_edit),
        links: entry.links,
        pods: entry.pods,
        program_ids: entry.program_ids.clone(),
        map_ids: entry.map_ids.clone(),
        warnings: entry.warnings.clone(),
        entries: entry.entries,
        drift: entry.drift.clone(),
        ..Placement::default()
    }
}

/// Returns what the operator says of a node whose own report is not at hand.
fn of_summary(reported: &NodeStatus, current: Option<&str>) -> Placement {
    let state = match reported.reason {
        None => PlacementState::InEffect,
        Some(Reason::Progressing | Reason::Pending) => PlacementState::Pending,
        Some(Reason::Suspended) => PlacementState::Suspended,
        Some(Reason::NodeNotReady | Reason::AgentMissing) => PlacementState::Unknown,
        Some(Reason::Deleting) => PlacementState::Removing,
        Some(_) => PlacementState::Failed,
    };
    // The operator names the revision in effect only if it is not the current one.
    let in_effect = (state == PlacementState::InEffect).then_some(current).flatten();
    Placement {
        node: reported.node_name.clone(),
        state,
        revision: reported.revision.clone().or_else(|| in_effect.map(str::to_owned)),
        reason: reported.reason,
        message: reported.message.clone(),
        needs_edit: reported.reason.is_some_and(Reason::needs_edit),
        links: reported.links,
        pods: reported.pods,
        program_ids: reported.program_ids.clone(),
        map_ids: reported.map_ids.clone(),
        ..Placement::default()
    }
}

/// Returns the memory of programs and maps that the kernel charges. A map of another BpfProgram is that one's.
pub fn memory(detail: &ProgramDetail) -> u64 {
    let programs = detail.programs.iter().map(|program| program.memlock_bytes);
    let maps = detail.maps.iter().filter(|map| map.map_ref.is_none()).map(|map| map.memlock_bytes);
    programs.chain(maps).map(|bytes| u64::try_from(bytes).unwrap_or_default()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::fixtures::{node, program};

    #[test]
    fn a_node_that_is_not_live_has_an_old_report() {
        let entry = json!({"uid": "u", "revision": "p-1", "state": "Attached", "links": 2}).to_string();
        let nodes = [node("a", json!({"programs": {"p": entry}})), node("b", json!({"programs": {"p": entry}}))];
        let statuses = json!([
            {"nodeName": "a", "pods": 0, "links": 2},
            {"nodeName": "b", "reason": "NodeNotReady", "pods": 0, "links": 0},
            {"nodeName": "c", "reason": "AgentMissing", "pods": 0, "links": 0},
        ]);
        let program = program(
            "p",
            Value::Null,
            json!({
                "currentRevision": {"name": "p-1", "programGeneration": 1, "digest": "sha256:0"},
                "nodeStatuses": statuses,
            }),
        );
        let placed = placements(&program, &nodes, &[]);
        let placed: Vec<_> = placed.iter().map(|placed| (&*placed.node, placed.state, placed.reason)).collect();
        assert_eq!(
            placed,
            [
                ("b", PlacementState::Unknown, Some(Reason::NodeNotReady)),
                ("c", PlacementState::Unknown, Some(Reason::AgentMissing)),
                ("a", PlacementState::InEffect, None),
            ]
        );
    }

    #[test]
    fn a_report_about_another_revision_or_program_is_none_of_this_one() {
        let entry = |uid: &str, revision: &str| {
            let entry = json!({"uid": uid, "revision": revision, "state": "Attached"});
            json!({"programs": {"p": entry.to_string()}})
        };
        let nodes = [node("a", entry("u", "p-1")), node("b", entry("earlier", "p-2"))];
        let current = json!({"currentRevision": {"name": "p-2", "programGeneration": 1, "digest": "sha256:0"}});
        let placed = placements(&program("p", Value::Null, current), &nodes, &[]);
        let placed: Vec<_> = placed.iter().map(|placed| (&*placed.node, placed.state)).collect();
        assert_eq!(placed, [("a", PlacementState::Pending)]);
    }
}
