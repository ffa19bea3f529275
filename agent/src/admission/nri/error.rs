//! `SessionError`: why a connection to the runtime ended.

use std::{io, time::Duration};

use prost::DecodeError;

use super::frame::FrameError;

/// Why a connection to the runtime ended, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the runtime closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the runtime does not speak NRI: {0}")]
    Frame(#[from] FrameError),
    #[error("the runtime does not speak NRI: {0}")]
    Decode(#[from] DecodeError),
    #[error("the runtime refuses the plugin: {0}")]
    Rejected(String),
    #[error("the runtime did not let the plugin in within {} s", .0.as_secs())]
    HandshakeTimeout(Duration),
    /// The agent ends, not the connection.
    #[error("sockeye's agent is ending")]
    AgentEnding,
}
