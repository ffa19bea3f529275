//! `NodeProgram`: the state of one BpfProgram on a node. No IO.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value, from_value};

use super::{Drift, EntryCounts, RefusedConnections};
use crate::{Reason, names, schema, size};

/// The state of one BpfProgram on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeProgram {
    /// The name of the BpfProgram, which is the text's key.
    #[serde(skip)]
    pub name: String,
    /// The UID of the BpfProgram. Empty if it can't be read: the entry is then about every BpfProgram of its name.
    pub uid: String,
    /// The revision in effect. Absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The revision that should be in effect, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// The revision that was in effect last, if none is in effect as a whole now; or, while the one in effect is on
    /// trial, the one before it. The agent goes back to it if the desired one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_good_revision: Option<String>,
    /// The state of the desired revision.
    #[serde(deserialize_with = "state")]
    pub state: State,
    /// The reason why the desired revision is not in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The explanation of the reason, for people: what is wrong, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Only an edit of the BpfProgram can help, though that does not follow from the reason: the same reason has causes
    /// that pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_edit: bool,
    /// The kernel's program IDs, ordered by the functions' names.
    #[serde(default, rename = "programIDs", skip_serializing_if = "Vec::is_empty")]
    pub program_ids: Vec<i64>,
    /// The kernel's map IDs, ordered by the maps' names.
    #[serde(default, rename = "mapIDs", skip_serializing_if = "Vec::is_empty")]
    pub map_ids: Vec<i64>,
    /// The number of links in effect.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub links: i64,
    /// The number of selected pods to which a program is attached.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    pub pods: i64,
    /// What a revision in effect does not do as one would expect, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The entries that the spec lists for all maps, and those that are in place. Absent if it lists none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<EntryCounts>,
    /// The pods whose connections it refused, by namespace and name: those that it refused last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_connections: Vec<RefusedConnections>,
    /// Recent changes to the BpfProgram's objects of which users of these should know, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
}

/// The state of a BpfProgram on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The desired revision is in effect.
    Attached,
    /// The desired revision is not in effect. The one in `revision`, if any, still is.
    #[default]
    Failed,
    /// The desired revision is loaded and, as someone asked, not attached.
    Suspended,
    /// The node should no longer hold the BpfProgram, and could not yet remove all of it.
    Removing,
}

/// Reads a state, and names the field where a newer agent reports one that this version does not know.
fn state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    let state = Value::deserialize(deserializer)?;
    from_value(state).map_err(|error| D::Error::custom(format!("state: {error}")))
}

impl NodeProgram {
    /// The maximum number of program IDs.
    pub const MAX_PROGRAM_IDS: usize = 32;
    /// The maximum number of map IDs.
    pub const MAX_MAP_IDS: usize = 128;
    /// The maximum number of bytes of a message.
    pub const MAX_MESSAGE: usize = 1024;
    /// The maximum number of warnings.
    pub const MAX_WARNINGS: usize = 4;
    /// The maximum number of bytes of a warning.
    pub const MAX_WARNING: usize = 320;
    /// The maximum number of pods whose connections were refused.
    pub const MAX_REFUSED: usize = 8;
    /// The maximum number of recent changes.
    pub const MAX_DRIFT: usize = 8;
    /// The maximum number of bytes of a UID.
    const MAX_UID: usize = 64;
    /// The maximum number of bytes of a revision's name.
    const MAX_REVISION: usize = 253;

    /// Returns the number of bytes that it takes in a BpfNode, without its name.
    pub fn bytes(&self) -> usize {
        size::json_len(&text::Text(self))
    }

    /// Reads the state of a BpfProgram. One that can't be read, as a newer agent may write it, is a failed one whose
    /// message says why. So the node still holds that BpfProgram, and its other BpfPrograms are read.
    fn read(text: &str) -> Self {
        let program = serde_json::from_str(text).map_err(|error| error.to_string());
        program.and_then(|program: Self| program.check().map(|()| program)).unwrap_or_else(|error| {
            let fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let name =
                |field: &str, max| Some(fields.get(field)?.as_str()?.to_owned()).filter(|name| name.len() <= max);
            let message =
                format!("the agent's report can't be read; if it is newer than the operator, upgrade that: {error}");
            Self {
                uid: name("uid", Self::MAX_UID).unwrap_or_default(),
                revision: name("revision", Self::MAX_REVISION),
                desired_revision: name("desiredRevision", Self::MAX_REVISION),
                known_good_revision: name("knownGoodRevision", Self::MAX_REVISION),
                state: State::Failed,
                reason: Some(Reason::Other),
                message: Some(names::line(&message, 512)),
                ..Self::default()
            }
        })
    }

    /// Checks that nothing is longer than an agent reports it, and no count negative: no schema looks into a text.
    ///
    /// # Errors
    /// Names the field.
    fn check(&self) -> Result<(), String> {
        let revisions = self.revision.iter().chain(&self.desired_revision).chain(&self.known_good_revision);
        let refused = self.refused_connections.iter();
        let lengths = [
            ("uid", self.uid.len(), Self::MAX_UID),
            ("revision", revisions.map(String::len).max().unwrap_or_default(), Self::MAX_REVISION),
            ("message", self.message.as_ref().map_or(0, String::len), Self::MAX_MESSAGE),
            ("programIDs", self.program_ids.len(), Self::MAX_PROGRAM_IDS),
            ("mapIDs", self.map_ids.len(), Self::MAX_MAP_IDS),
            ("warnings", self.warnings.len(), Self::MAX_WARNINGS),
            ("warnings", self.warnings.iter().map(String::len).max().unwrap_or_default(), Self::MAX_WARNING),
            ("refusedConnections", self.refused_connections.len(), Self::MAX_REFUSED),
            ("refusedConnections", refused.map(RefusedConnections::longest).max().unwrap_or_default(), 253),
            ("drift", self.drift.len(), Self::MAX_DRIFT),
            ("drift.seenTime", self.drift.iter().map(|drift| drift.seen_time.len()).max().unwrap_or_default(), 40),
            ("drift.message", self.drift.iter().map(|drift| drift.message.len()).max().unwrap_or_default(), 512),
        ];
        if let Some((field, length, max)) = lengths.into_iter().find(|(_, length, max)| length > max) {
            return Err(format!("{field} has {length} items or bytes; at most {max} are read"));
        }
        let EntryCounts { wanted, applied } = self.entries.unwrap_or_default();
        let refused = self.refused_connections.iter().map(|pod| pod.count).min().unwrap_or_default();
        let counts = [
            ("links", self.links),
            ("pods", self.pods),
            ("entries", wanted.min(applied)),
            ("refusedConnections", refused),
        ];
        match counts.into_iter().find(|(_, count)| *count < 0) {
            Some((field, count)) => Err(format!("{field} is {count}, and no count is negative")),
            None => Ok(()),
        }
    }
}

/// The BpfPrograms of a node as a map from names to JSON text.
///
/// Agents write this again and again. A write costs the API server processor time with each value of an object, which
/// it decodes, validates, compares and encodes several times over: as objects twenty BpfPrograms cost it twice as much
/// as they do as text (docs/design.md has the figures).
pub(super) mod text {
    use std::collections::BTreeMap;

    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize as _, Deserializer, Serialize, Serializer, ser::Error as _};

    use super::NodeProgram;

    /// The maximum number of characters of a text. The lists and messages that an agent reports are shorter.
    const MAX_TEXT: usize = 64 << 10;

    /// The text of one BpfProgram.
    pub struct Text<'a>(pub &'a NodeProgram);

    impl Serialize for Text<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&serde_json::to_string(self.0).map_err(S::Error::custom)?)
        }
    }

    /// For `serde(with)`.
    pub fn serialize<S: Serializer>(programs: &[NodeProgram], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(programs.iter().map(|program| (&program.name, Text(program))))
    }

    /// For `serde(with)`. The result is sorted by name.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeProgram>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(texts.into_iter().map(|(name, text)| NodeProgram { name, ..NodeProgram::read(&text) }).collect())
    }

    /// For `schemars(schema_with)`.
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 4096,
            "additionalProperties": {"type": "string", "maxLength": MAX_TEXT},
            "x-kubernetes-validations": [{
                "rule": "self.all(name, name.size() <= 63)",
                "message": "the keys are names of BpfPrograms, of at most 63 characters"
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{BpfNodeStatus, node::DriftKind, revision::ProgramRef};

    fn read(programs: &Value) -> BpfNodeStatus {
        from_value(json!({"programs": programs})).unwrap()
    }

    #[test]
    fn programs_are_read_as_they_are_written_sorted_by_name() {
        let program = |name: &str| NodeProgram {
            name: name.to_owned(),
            uid: "u".to_owned(),
            message: Some("\"quoted\" \\ é".to_owned()),
            program_ids: vec![i64::MAX],
            ..NodeProgram::default()
        };
        let status = BpfNodeStatus { programs: vec![program("b"), program("a-b"), program("a")], ..Default::default() };
        let written = serde_json::to_value(&status).unwrap();
        let text = written["programs"]["a"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap()["state"], "Failed");
        assert_eq!(read(&written["programs"]).programs, [program("a"), program("a-b"), program("b")]);
    }

    #[test]
    fn a_program_that_can_not_be_read_is_a_failed_one_and_hides_no_other() {
        let read = |text: &str| read(&json!({"ok": r#"{"uid": "u", "state": "Attached"}"#, "p": text}));
        let long = NodeProgram { uid: "u".into(), map_ids: vec![1; 129], ..NodeProgram::default() };
        for (text, uid, why) in [
            ("", "", "EOF"),
            ("[]", "", "invalid"),
            (r#"{"state": "Attached"}"#, "", "missing field `uid`"),
            (r#"{"uid": 7, "state": "Attached"}"#, "", "invalid type: integer `7`, expected a string"),
            (r#"{"uid": "u"}"#, "u", "missing field `state`"),
            (r#"{"uid": "u", "state": "AsNeverBefore"}"#, "u", "state: unknown variant `AsNeverBefore`"),
            (r#"{"uid": "u", "state": "Attached", "links": -1}"#, "u", "links is -1, and no count is negative"),
            (&serde_json::to_string(&long).unwrap(), "u", "mapIDs has 129 items or bytes; at most 128 are read"),
        ] {
            let status = read(text);
            let [ok, program] = &*status.programs else { panic!("{status:?}") };
            assert_eq!((ok.state, &*program.uid, program.state), (State::Attached, uid, State::Failed), "{text}");
            assert_eq!(program.reason, Some(Reason::Other), "{text}");
            let message = program.message.as_deref().unwrap_or_default();
            assert!(message.starts_with("the agent's report can't be read") && message.contains(why), "{message}");
            sockeye_crds_testing::provoked(Reason::Other, message);
        }
        let running = read(r#"{"uid": "u", "revision": "p-1", "desiredRevision": "p-2", "state": "AsNeverBefore"}"#);
        let NodeProgram { revision, desired_revision, .. } = &running.programs[1];
        assert_eq!((revision.as_deref(), desired_revision.as_deref()), (Some("p-1"), Some("p-2")));
    }

    #[test]
    fn refused_connections_are_bounded_and_not_negative() {
        let refused = |count: i64, name: &str| {
            let times = ("a", "b");
            json!({"namespace": "shop", "name": name, "uid": "p", "count": count, "sinceTime": times.0,
                "lastTime": times.1})
        };
        let state = |refused: Value| {
            let text = json!({"uid": "u", "state": "Attached", "refusedConnections": refused});
            read(&json!({"p": text.to_string()})).programs[0].state
        };
        assert_eq!(state(json!([refused(3, "web")])), State::Attached);
        assert_eq!(state(json!([refused(-1, "web")])), State::Failed);
        assert_eq!(state(json!([refused(1, &"w".repeat(254))])), State::Failed);
        assert_eq!(state(json!(vec![refused(1, "web"); 9])), State::Failed);
    }

    #[test]
    fn an_entry_without_a_uid_that_can_be_read_is_about_every_program_of_its_name() {
        let about = |text: &str, uid: &str| {
            let program = ProgramRef { name: "p".into(), uid: uid.into() };
            read(&json!({"p": text})).program(&program).is_some()
        };
        assert!(about(r#"{"uid": "u", "state": "AsNeverBefore"}"#, "u"));
        assert!(!about(r#"{"uid": "u", "state": "AsNeverBefore"}"#, "another"));
        assert!(about("{", "u"));
    }

    #[test]
    fn drift_of_an_unknown_kind_hides_nothing() {
        let drift = |kind: &str| json!({"seenTime": "now", "kind": kind, "message": kind, "count": 1});
        let text = json!({"uid": "u", "state": "Attached", "drift": [drift("Moved"), drift("PinRemoved")]});
        let status = read(&json!({"p": text.to_string()}));
        let NodeProgram { state, drift, .. } = &status.programs[0];
        let drift: Vec<_> = drift.iter().map(|drift| (drift.kind, drift.message.as_str())).collect();
        assert_eq!(*state, State::Attached);
        assert_eq!(drift, [(DriftKind::Other, "Moved"), (DriftKind::PinRemoved, "PinRemoved")]);
    }
}
