//! `Failure`: the reason why a revision is not in effect on this node, with a message and, if the verifier wrote one,
//! its log.
//!
//! `attach_failure` and `load_failure` make failures of the kernel's answers to attachments and loads.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    sync::Arc,
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
    /// The verifier's log as the kernel gave it.
    pub whole_log: Option<Arc<str>>,
    /// Whether everything is in effect except at single pods' cgroups, or except what is to be removed.
    pub partial: bool,
    /// True if only an edit of the BpfProgram can help.
    pub needs_edit: bool,
    /// Whether the object's bytes are on their way, and nothing is wrong.
    pub awaits: bool,
}

/// The remedy for missing rights.
pub(super) const NEEDED: &str = ": the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a writable bpffs";

/// The remedy where the kernel's answer is none that is known.
pub(super) const TRIES_AGAIN: &str =
    ": the agent tries again; if that does not help, look for the cause in the kernel's log of this node (dmesg)";

/// The place of the whole of a verifier's refusal.
pub(super) const LOG_PLACE: &str = "; the verifier's log is in this node's BpfNodeDetail";

/// The remedies for what the kernel lacks.
pub(super) const NO_SUCH_PROGRAM: &str =
    ": this node's kernel knows no such type of program: select other nodes (spec.nodeSelector)";
pub(super) const UNKNOWN_HELPER: &str =
    ": this node's kernel has no helper of that number; a newer one may (spec.nodeSelector)";
pub(super) const LOCKED_DOWN: &str = ": this node's kernel is locked down (lockdown=confidentiality), and no \
                                      program may read its memory: select other nodes (spec.nodeSelector)";

/// The remedy where the kernel took everything, and does not list it afterwards.
pub const UNDONE: &str = "what was attached is not in effect a moment later, and the agent tries again: look for what \
                          else detaches programs on this node (the drift in its BpfNode, `bpftool cgroup tree`)";

/// The remedy where nothing can be pinned.
const FULL: &str =
    ": bpffs is read-only or full: mount it writable (mount -o remount,rw), or remove what fills it; the agent notices";

/// The most bytes of a message.
const MAX_MESSAGE: usize = 2048;

impl Failure {
    /// A failure without a verifier log.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = line(&message.into(), MAX_MESSAGE);
        let needs_edit = reason.needs_edit();
        Self { reason, message, verifier_log: None, whole_log: None, partial: false, needs_edit, awaits: false }
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
        Self::new(Reason::LoadFailed, format!("defect in sockeye, please report it: {message}"))
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
            Some(libc::EROFS | libc::ENOSPC) => (Reason::BpffsUnusable, FULL),
            _ => (Reason::LoadFailed, TRIES_AGAIN),
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

#[cfg(test)]
mod tests {
    use std::io;

    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn an_unusable_bpffs_is_named_with_the_command_that_helps() {
        let path = || "/sys/fs/bpf".to_owned();
        let older = ObserveError::OlderLayout {
            path: "/sys/fs/bpf/sockeye".to_owned(),
            homes: vec!["tcp-events".to_owned()],
            command: "sockeye-agent remove-older-pins --bpffs=/sys/fs/bpf".to_owned(),
        };
        for (error, reason, remedy) in [
            (ObserveError::NotBpffs(path()), Reason::BpffsUnusable, "mount -t bpf bpf /sys/fs/bpf"),
            (ObserveError::ReadOnly(path()), Reason::BpffsUnusable, "mount -o remount,rw /sys/fs/bpf"),
            (older, Reason::OlderLayout, "sockeye-agent remove-older-pins --bpffs=/sys/fs/bpf"),
        ] {
            let failure = Failure::from(error);
            assert!(failure.reason == reason && failure.message.contains(remedy), "{failure}");
            provoked(failure.reason, &failure.message);
        }
    }

    #[test]
    fn an_answer_of_the_kernels_has_a_remedy() {
        for (errno, reason, remedy) in [
            (libc::EPERM, Reason::PermissionDenied, "CAP_BPF"),
            (libc::ENOSPC, Reason::BpffsUnusable, "remove what fills it"),
            (libc::EIO, Reason::LoadFailed, "dmesg"),
        ] {
            let call = "BPF_OBJ_PIN of /sys/fs/bpf/sockeye/tcp-events/maps/my_map".into();
            let failure = Failure::from(SysError { call, source: io::Error::from_raw_os_error(errno) });
            assert!(failure.reason == reason && failure.message.contains(remedy), "{failure}");
            provoked(failure.reason, &failure.message);
        }
        let defect = Failure::internal("bytes are not held");
        assert!(defect.message.contains("please report it"), "{defect}");
        provoked(defect.reason, &defect.message);
    }
}
