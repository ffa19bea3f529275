//! `Refusal`: why sockeye does not do what a spec asks for.

use crate::Reason;

/// The reason and the explanation why the operator or an agent does not do what a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason that the condition shows.
    pub reason: Reason,
    /// For people: which field is wrong, what is wrong with it, and what to do.
    pub message: String,
}
