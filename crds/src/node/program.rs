//! `NodeProgram`: the state of one BpfProgram on a node. No IO.

use serde::{Deserialize, Serialize};

use super::Drift;
use crate::{Reason, schema, size};

/// The state of one BpfProgram on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeProgram {
    /// The name of the BpfProgram, which is the text's key.
    #[serde(skip)]
    pub name: String,
    /// The UID of the BpfProgram.
    pub uid: String,
    /// The revision in effect. Absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The revision that should be in effect, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// The state of the desired revision.
    pub state: State,
    /// The reason why the desired revision is not in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The explanation of the reason, for people: what is wrong, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
    /// Recent changes that others made to the BpfProgram's objects, the latest last.
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

impl NodeProgram {
    /// The maximum number of program IDs.
    pub const MAX_PROGRAM_IDS: usize = 32;
    /// The maximum number of map IDs.
    pub const MAX_MAP_IDS: usize = 128;
    /// The maximum number of bytes of a message.
    pub const MAX_MESSAGE: usize = 1024;
    /// The maximum number of changes that others made.
    pub const MAX_DRIFT: usize = 8;

    /// Returns the number of bytes that it takes in a BpfNode, without its name.
    pub fn bytes(&self) -> usize {
        size::bytes(&text::Text(self))
    }

    /// Checks that nothing is longer than an agent reports it: no schema looks into a text.
    ///
    /// # Errors
    /// Names the field that is too long.
    fn check(&self) -> Result<(), String> {
        let revisions = self.revision.iter().chain(&self.desired_revision);
        let lengths = [
            ("uid", self.uid.len(), 64),
            ("revision", revisions.map(String::len).max().unwrap_or_default(), 253),
            ("message", self.message.as_ref().map_or(0, String::len), Self::MAX_MESSAGE),
            ("programIDs", self.program_ids.len(), Self::MAX_PROGRAM_IDS),
            ("mapIDs", self.map_ids.len(), Self::MAX_MAP_IDS),
            ("drift", self.drift.len(), Self::MAX_DRIFT),
            ("drift.seenTime", self.drift.iter().map(|drift| drift.seen_time.len()).max().unwrap_or_default(), 40),
            ("drift.message", self.drift.iter().map(|drift| drift.message.len()).max().unwrap_or_default(), 512),
        ];
        match lengths.into_iter().find(|(_, length, max)| length > max) {
            Some((field, length, max)) => Err(format!("{field} has {length} items or bytes; at most {max} are read")),
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
    use serde::{Deserialize as _, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

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
        let read = |(name, text): (String, String)| {
            let program = serde_json::from_str(&text).map_err(|error| error.to_string());
            match program.and_then(|program: NodeProgram| program.check().map(|()| program)) {
                Ok(program) => Ok(NodeProgram { name, ..program }),
                Err(error) => Err(D::Error::custom(format!("programs[{name}]: {error}"))),
            }
        };
        texts.into_iter().map(read).collect()
    }

    /// For `schemars(schema_with)`.
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 4096,
            "additionalProperties": {"type": "string", "maxLength": MAX_TEXT}
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::BpfNodeStatus;

    fn read(programs: &Value) -> Result<Vec<NodeProgram>, String> {
        let status = json!({"programs": programs});
        serde_json::from_value(status).map(|status: BpfNodeStatus| status.programs).map_err(|error| error.to_string())
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
        assert_eq!(read(&written["programs"]), Ok(vec![program("a"), program("a-b"), program("b")]));
    }

    #[test]
    fn a_program_that_can_not_be_read_is_named() {
        let error = |text: &Value| read(&json!({"ok": r#"{"uid": "u", "state": "Attached"}"#, "p": text})).unwrap_err();
        for text in ["", "[]", r#"{"state": "Attached"}"#, r#"{"uid": "u", "state": "AsNeverBefore"}"#] {
            let error = error(&json!(text));
            assert!(error.starts_with("programs[p]: "), "{text}: {error}");
        }
        assert!(error(&json!({"uid": "u", "state": "Attached"})).contains("expected a string"));
        let long = NodeProgram { map_ids: vec![1; 129], ..NodeProgram::default() };
        let too_long = "programs[p]: mapIDs has 129 items or bytes; at most 128 are read";
        assert_eq!(error(&json!(serde_json::to_string(&long).unwrap())), too_long);
    }
}
