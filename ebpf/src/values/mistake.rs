//! `Mistake`: a mistake in a value of the spec, with the path of its field.

use serde_json::Value;
use sockeye_crds::names::{clip, printable};

use crate::object::btf::BtfError;

/// A mistake in a value of the spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Mistake {
    /// The path of the field.
    pub at: String,
    /// The expected type and the given value.
    pub what: String,
}

impl Mistake {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { at: String::new(), what: what.into() }
    }

    /// Prefixes the path of the field.
    pub(crate) fn within(self, outer: &str) -> Self {
        Self { at: format!("{outer}{}", self.at), ..self }
    }
}

impl From<BtfError> for Mistake {
    fn from(error: BtfError) -> Self {
        Self::new(error.to_string())
    }
}

/// Returns the mistake that an object's types contradict each other.
pub(crate) fn contradiction() -> Mistake {
    Mistake::new("the object's types contradict each other")
}

/// Returns a name that is safe to show.
pub(crate) fn field(name: &str) -> String {
    printable(name).trim_matches('"').to_owned()
}

/// Returns a value that is safe to show.
pub(crate) fn shown(value: &Value) -> String {
    let words = match value {
        Value::Array(items) => return format!("a list of {}", items.len()),
        Value::Object(_) => return "an object".to_owned(),
        other => other.to_string(),
    };
    clip(&words, 64)
}
