//! `Mistake`: a mistake in a value of the spec, with the path of its field.

use sockeye_crds::names::{clip, printable};

use crate::{
    btf::BtfError,
    values::json::{AS_TEXT, Json},
};

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

/// Returns a value that is safe to show, with a hint if no type takes it.
pub(crate) fn shown(value: &Json) -> String {
    match value {
        Json::Null => "null: leave out what has no value".to_owned(),
        Json::Bool(on) => on.to_string(),
        Json::Integer(integer) => integer.to_string(),
        Json::Real(real) if real.abs() >= 2_f64.powi(63) => format!("{real:?}{AS_TEXT}"),
        Json::Real(real) => format!("{real:?}"),
        Json::Text(text) => clip(&printable(text), 64),
        Json::List(items) => format!("a list of {}", items.len()),
        Json::Object(_) => "an object".to_owned(),
    }
}
