//! `StreamSpec`: what is to be read from a ring or perf buffer, in `spec.maps[].stream`. And `Format`, which says how a
//! field is shown.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The records of a ring or perf buffer, as a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.reader == 'Agent' || !(has(self.typeName) || has(self.fields))")
        .message("typeName and fields say how the agent decodes records: leave them out with reader: External")
        .field_path(".reader"),
    validation = Rule::new("!has(self.fields) || has(self.typeName)")
        .message("fields belong to a type: set typeName").field_path(".fields")
)]
pub struct StreamSpec {
    /// The one that reads the buffer. Reading consumes, and a ring has one reader.
    pub reader: StreamReader,
    /// The type of the records: the name of a struct, a union or a typedef of one, which the object's BTF has. If
    /// absent, records are shown as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub type_name: Option<String>,
    /// Fields of the records that are shown otherwise than their types say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub fields: Vec<StreamField>,
}

impl StreamSpec {
    /// Returns whether the agent reads the buffer.
    pub fn is_agents(&self) -> bool {
        self.reader == StreamReader::Agent
    }
}

/// The reader of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StreamReader {
    /// The agent, while at least one client listens. Each client gets every record.
    Agent,
    /// Another process, by the map's pin. The agent never reads.
    External,
}

/// A field of a record, and how it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamField {
    /// The field's name. One within a field is named after a dot, as `peer.address`.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"))]
    pub name: String,
    /// How the field is shown.
    pub format: Format,
}

/// The way to show a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// An integer or an enum as a number.
    Decimal,
    /// An integer in hexadecimal digits after `0x`; bytes in hexadecimal digits.
    Hex,
    /// Bytes as text up to the first NUL, whatever is in them.
    Text,
    /// Four or sixteen bytes in network order as an IP address.
    IPAddress,
    /// Two or four bytes in network order as a port. A port in the processor's order is Decimal.
    Port,
    /// The name of an enum's value.
    Enum,
    /// The ID of a cgroup, of which the pod and the container are shown too.
    Pod,
}
