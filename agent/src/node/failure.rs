//! `Failure`: the reason why a revision is not in effect on this node, with a message and, if the verifier wrote one,
//! its log.
//!
//! `attach_failure` and `load_failure` make failures of the kernel's answers to attachments and loads.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use sockeye_crds::{Reason, names::line};

use crate::{kernel::SysError, model::refusal::Refusal, node::observe::ObserveError};

/// The reason why a revision is not in effect on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason in one word.
    pub reason: Reason,
    /// The reason in words: what is wrong, where, and what to do.
    pub message: String,
    /// The end of the verifier's log.
    pub verifier_log: Option<String>,
    /// Whether everything is in effect except at single pods' cgroups, or except what is to be removed.
    pub partial: bool,
    /// Whether the object's bytes are on their way, and nothing is wrong.
    pub awaits: bool,
}

/// The remedy for missing rights.
pub(super) const NEEDED: &str = ": the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a writable bpffs";

/// The most bytes of a message.
const MAX_MESSAGE: usize = 2048;

impl Failure {
    /// A failure without a verifier log.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = line(&message.into(), MAX_MESSAGE);
        Self { reason, message, verifier_log: None, partial: false, awaits: false }
    }

    /// The failures at single pods' cgroups as one: the first, and how many more there are.
    pub fn at_pods(refused: BTreeMap<String, Self>) -> Self {
        let more = refused.len().saturating_sub(1);
        let first = refused.into_values().next().unwrap_or_else(|| Self::internal("nothing was refused"));
        let message = if more > 0 { format!("{}; and {more} more cgroups", first.message) } else { first.message };
        Self { message: line(&message, MAX_MESSAGE), partial: true, ..first }
    }

    /// A defect of sockeye's, reported instead of a panic.
    pub fn internal(message: impl Display) -> Self {
        Self::new(Reason::LoadFailed, format!("defect in sockeye: {message}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { reason, message }: Refusal) -> Self {
        Self::new(reason, message)
    }
}

impl From<SysError> for Failure {
    fn from(error: SysError) -> Self {
        let (reason, hint) = match error.errno() {
            Some(libc::EPERM | libc::EACCES) => (Reason::PermissionDenied, NEEDED),
            Some(libc::EROFS | libc::ENOSPC) => (Reason::BpffsUnusable, ": bpffs is read-only or full"),
            _ => (Reason::LoadFailed, ""),
        };
        Self::new(reason, format!("{error}{hint}"))
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::NotBpffs(_) | ObserveError::ReadOnly(_) | ObserveError::Untrusted { .. } => {
                Self::new(Reason::BpffsUnusable, error.to_string())
            }
            ObserveError::OlderLayout { .. } => Self::new(Reason::OlderLayout, error.to_string()),
            ObserveError::Sys(error) => error.into(),
        }
    }
}
