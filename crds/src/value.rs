//! `Value`: what a spec gives a global variable, or the key or the value of a map's entry.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The maximum length of a value's text, in characters.
pub const MAX_TEXT: u32 = 16384;

/// A value that is encoded by a BTF type: an integer, or text. The text is a number, a name, an IP address or a string,
/// as the type takes it. For a struct, a union or an array it is JSON.
///
/// The API server can bound no untyped JSON, stores integers beyond 63 bits rounded, and drops nulls; so composite
/// values are text, which arrives as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected an integer of at most 64 bits, or text: for a struct, a union or an array, JSON text"
)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": MAX_TEXT})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_and_texts_are_values_and_nothing_else_is() {
        for value in [json!(0), json!(i64::MAX), json!(i64::MIN), json!(""), json!("{\"port\": [53]}")] {
            let read: Value = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), value);
        }
        for other in [json!(1.5), json!(u64::MAX), json!(true), json!(null), json!([1]), json!({"a": 1})] {
            let error = serde_json::from_value::<Value>(other.clone()).unwrap_err().to_string();
            assert!(error.starts_with("expected an integer of at most 64 bits, or text"), "{other}: {error}");
        }
    }
}
