//! The agent's read API: its paths, and what it answers. The agent serves it, the command line reads it. No IO.
//!
//! HTTP/2 without TLS: in a cluster on the loopback of the agent's pod, where only the API server's port-forward gets;
//! on a node without a cluster on a Unix socket that only root may open. Nothing in it changes the node, but one thing:
//! [`Route::Records`] consumes the records of a buffer that the spec declares for the agent.
//!
//! | module | noun |
//! |---|---|
//! | [`route`] | what can be asked for: a path and its query |
//! | [`node`] | the node, and its BpfPrograms |
//! | [`map`] | entries of a map, and what keeps a map |
//! | [`record`] | records of a ring or perf buffer, as a stream |
//! | [`failure`] | the answer to what can't be answered |

pub mod failure;
pub mod map;
pub mod node;
pub mod record;
pub mod route;

pub use failure::{Failure, FailureReason};
pub use route::{Route, segment};

/// The port on the loopback of the agent's pod.
pub const PORT: u16 = 8082;

/// The media type of an answer.
pub const JSON: &str = "application/json";

/// The media type of a stream: one JSON value a line.
pub const JSON_LINES: &str = "application/x-ndjson";

/// The media type of a verifier's log.
pub const TEXT: &str = "text/plain; charset=utf-8";
