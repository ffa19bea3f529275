//! [`SourceError`]: why something could not be read.

use std::{path::PathBuf, time::Duration};

use sockeye_crds::names;

/// Says what could not be read, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no kubeconfig, or it can't be used.
    #[error(
        "no cluster: {0}; name a kubeconfig by --kubeconfig, or a node without a cluster by --node-dir or --socket"
    )]
    Kubeconfig(String),
    /// The API server can't be reached.
    #[error("the API server can't be reached: {0}")]
    Unreachable(String),
    /// A right is missing.
    #[error("you may not {right}: ask for a role that allows it")]
    Forbidden {
        /// The verb and the resource.
        right: String,
    },
    /// There is no such object.
    #[error("{what} is not there")]
    NotFound {
        /// The object.
        what: String,
    },
    /// The definitions of sockeye's resources are not there.
    #[error("the API server has no {what}: is sockeye installed, in this version?")]
    NotInstalled {
        /// The resource.
        what: String,
    },
    /// The API server refused.
    #[error("{what}: the API server answers {message}")]
    Refused {
        /// The resource or object.
        what: String,
        /// Its words.
        message: String,
    },
    /// This version can't read it.
    #[error("{what} can't be read by this version: {problem}")]
    Unreadable {
        /// The object or file.
        what: String,
        /// The problem.
        problem: String,
    },
    /// The answer took too long.
    #[error("{what}: no answer within {} s", .limit.as_secs())]
    TimedOut {
        /// The resource or object.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A file can't be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// A node without a cluster was named without what is asked for.
    #[error("{what} of a node without a cluster needs {option}")]
    OptionMissing {
        /// The thing that is asked for.
        what: &'static str,
        /// The option.
        option: &'static str,
    },
}

impl SourceError {
    /// Returns whether a right is missing. Then all else goes on without it.
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }
}

/// Returns an error with what caused it, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if words.last().is_none_or(|last| !last.contains(&text)) {
            words.push(text);
        }
        source = cause.source();
    }
    names::line(&words.join(": "), 400)
}
