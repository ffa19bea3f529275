//! `Failure`: why a revision is not in effect on this node, as a reason, in words, and with the verifier's where it spoke.

use std::fmt::{self, Display};

use sockeye_crds::{Reason, names::clip};

use crate::{
    kernel::{SysError, load::LoadError},
    observe::ObserveError,
    wanted::Refusal,
};

/// Why a revision is not in effect on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word.
    pub reason: Reason,
    /// In words: what is wrong, where, and what to do.
    pub message: String,
    /// The end of the verifier's log.
    pub verifier_log: Option<String>,
}

/// Where an attachment was to be.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The function.
    pub function: &'a str,
    /// The cgroup, as a path below the root or an ID.
    pub path: &'a str,
}

/// A verifier log in a status has at most so many bytes; it keeps its end, where the refusal is.
const MAX_LOG: usize = 8000;

impl Failure {
    /// A failure without a verifier log.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: clip(&message.into(), 2048), verifier_log: None }
    }

    /// A defect of ours, said instead of a panic.
    pub fn internal(message: impl Display) -> Self {
        Self::new(Reason::LoadFailed, format!("defect in sockeye: {message}"))
    }

    /// The kernel refused to attach.
    pub fn attach(place: Place<'_>, error: SysError) -> Self {
        let Place { function, path } = place;
        let hint = match error.errno() {
            Some(libc::E2BIG) => {
                "the cgroup already has 64 programs of this attach type, the kernel's limit: remove some"
            }
            Some(libc::EPERM) => {
                "a program attached there or above without the multi flag keeps others out (bpftool cgroup tree shows it), \
                 or the agent lacks CAP_BPF or CAP_NET_ADMIN"
            }
            Some(libc::EBADF) => "the directory is no cgroup v2 one",
            Some(libc::ENOENT | libc::ENOLINK) => "the cgroup is gone",
            _ => "see the kernel's answer",
        };
        Self::new(Reason::AttachRefused, format!("program {function}, cgroup {path}: {error}: {hint}"))
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
            Some(libc::EPERM | libc::EACCES) => (
                Reason::PermissionDenied,
                ": the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a writable bpffs",
            ),
            Some(libc::EROFS | libc::ENOSPC) => (Reason::BpffsUnusable, ": bpffs is read-only or full"),
            _ => (Reason::LoadFailed, ""),
        };
        Self::new(reason, format!("{error}{hint}"))
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::NotBpffs(_) => Self::new(Reason::BpffsUnusable, error.to_string()),
            ObserveError::Sys(error) => error.into(),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let message = error.to_string();
        match error {
            LoadError::Object(_) | LoadError::Missing(_) => Self::new(Reason::InvalidObject, message),
            LoadError::NoKernelBtf(_) => Self::new(Reason::KernelUnsupported, message),
            LoadError::Map { source, .. } => {
                let hint = match source.errno() {
                    Some(libc::ENOMEM) => ": not enough memory for it (a limit on the agent's pod counts map memory)",
                    Some(libc::EINVAL) => ": the kernel does not take its type, sizes or flags",
                    Some(libc::EPERM) => ": the agent lacks CAP_BPF",
                    _ => "",
                };
                Self::new(Reason::MapRefused, format!("{message}{hint}"))
            }
            LoadError::Program { source, log, .. } if log.is_empty() => {
                let reason = match source.raw_os_error() {
                    Some(libc::EPERM) => Reason::PermissionDenied,
                    Some(libc::EINVAL) => Reason::KernelUnsupported,
                    _ => Reason::LoadFailed,
                };
                Self::new(reason, message)
            }
            LoadError::Program { log, .. } => {
                let words = last_words(&log);
                Self {
                    verifier_log: Some(tail(&log, MAX_LOG)),
                    ..Self::new(Reason::VerifierRefused, format!("{message}: the verifier says: {words}"))
                }
            }
        }
    }
}

/// The verifier's own sentence: the last line that is not its statistics.
fn last_words(log: &str) -> &str {
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("processed ") && !line.starts_with("verification time"))
        .unwrap_or("nothing")
}

/// The last `max` bytes of a log, whole lines.
fn tail(log: &str, max: usize) -> String {
    if log.len() <= max {
        return log.to_owned();
    }
    let mut from = log.len() - max;
    while !log.is_char_boundary(from) {
        from += 1;
    }
    let tail = &log[from..];
    let whole = tail.split_once('\n').map_or(tail, |(_, rest)| rest);
    format!("…\n{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0: R1=ctx() R10=fp0\n0: (b7) r0 = 5\n1: (95) exit\nAt program exit the register R0 has smin=5\n\
                       processed 2 insns (limit 1000000) max_states_per_insn 0\n";

    #[test]
    fn the_verifiers_words_are_its_last_sentence() {
        assert_eq!(last_words(LOG), "At program exit the register R0 has smin=5");
        let refused = LoadError::Program {
            name: "p".into(),
            source: std::io::Error::from_raw_os_error(libc::EINVAL),
            log: LOG.into(),
        };
        let failure = Failure::from(refused);
        assert_eq!(failure.reason, Reason::VerifierRefused);
        assert!(failure.message.contains("program p") && failure.message.contains("smin=5"), "{failure}");
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let log = "é line\n".repeat(5000);
        let tail = tail(&log, MAX_LOG);
        assert!(tail.len() <= MAX_LOG + 8 && tail.ends_with("é line\n") && tail.starts_with("…\n"));
    }
}
