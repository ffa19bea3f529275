//! `Failure`: the answer to what can't be answered.

use serde::{Deserialize, Serialize};

/// Says why a request can't be answered. It comes with the reason's HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The reason, for programs.
    pub reason: FailureReason,
    /// The explanation, for people: what is wrong, where, and what to do.
    pub message: String,
}

/// The reason of a [`Failure`]. One that a newer agent has is [`FailureReason::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// There is no such path, or a query that is none.
    BadRequest,
    /// The node holds no such BpfProgram.
    ProgramNotFound,
    /// The BpfProgram has no such map, or the map is gone.
    MapNotFound,
    /// The map has no such key.
    EntryNotFound,
    /// A key is not one of the map's.
    KeyInvalid,
    /// Maps of this type have no entries that can be read.
    NotReadable,
    /// The spec does not declare the buffer as the agent's to read (`maps[].stream`).
    NotStreamed,
    /// There is no verifier's log: the kernel rejected nothing.
    LogNotFound,
    /// As many readers as the agent serves are there already.
    TooManyReaders,
    /// The agent does not know it yet: it has not observed the node since it was started.
    Unavailable,
    /// It took too long.
    TimedOut,
    /// The kernel refuses it, or this agent may not do it.
    Refused,
    /// Another one.
    #[serde(other)]
    Other,
}

impl FailureReason {
    /// Returns whether the same question may be answered a little later.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::TooManyReaders | Self::Unavailable | Self::TimedOut)
    }

    /// Returns the HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::KeyInvalid => 400,
            Self::ProgramNotFound | Self::MapNotFound | Self::EntryNotFound | Self::LogNotFound => 404,
            Self::NotReadable | Self::NotStreamed => 409,
            Self::TooManyReaders => 429,
            Self::Unavailable => 503,
            Self::TimedOut => 504,
            Self::Refused | Self::Other => 500,
        }
    }
}
