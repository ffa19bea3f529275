//! Failures to load: what the kernel's errno means for a map or program, what to do about it, and the verifier's words.

use std::io;

use sockeye_crds::Reason;

use crate::{
    kernel::{SysError, load::LoadError},
    node::failure::{Failure, NEEDED},
};

/// The most bytes of a verifier log in a status. A longer log keeps its end, where the refusal is.
const MAX_LOG: usize = 8000;

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let message = error.to_string();
        let (reason, hint) = match error {
            LoadError::Object(_) | LoadError::Missing(_) => (Reason::InvalidObject, ""),
            LoadError::NoKernelBtf(_) => (Reason::KernelUnsupported, ""),
            LoadError::Map { source, .. } => map_create_failed(&source),
            LoadError::Slot { source, .. } => slot_failed(&source),
            LoadError::Program { source, log, .. } if log.is_empty() => program_refused(&source),
            LoadError::Program { log, .. } => return verifier_rejected(&message, &log),
        };
        Self::new(reason, format!("{message}{hint}"))
    }
}

fn map_create_failed(error: &SysError) -> (Reason, &'static str) {
    match error.errno() {
        Some(libc::ENOMEM) => (
            Reason::MapCreateFailed,
            ": not enough memory for it (a memory limit on the agent's pod counts map memory)",
        ),
        Some(libc::EINVAL | libc::E2BIG) => {
            (Reason::MapCreateFailed, ": the kernel does not accept its type, sizes or flags")
        }
        Some(libc::EPERM) => (Reason::PermissionDenied, NEEDED),
        _ => (Reason::MapCreateFailed, ""),
    }
}

fn slot_failed(error: &SysError) -> (Reason, &'static str) {
    let hint = match error.errno() {
        Some(libc::EINVAL) => {
            ": an inner map must have the shape that the outer map's definition says, including max_entries of arrays; \
             a program must have the type of the array's other programs"
        }
        Some(libc::E2BIG) => ": the map has fewer entries",
        _ => "",
    };
    (Reason::MapCreateFailed, hint)
}

/// A refusal without a word of the verifier's.
fn program_refused(error: &io::Error) -> (Reason, &'static str) {
    match error.raw_os_error() {
        Some(libc::EPERM) => (Reason::PermissionDenied, NEEDED),
        Some(libc::EINVAL) => (Reason::KernelUnsupported, ""),
        _ => (Reason::LoadFailed, ""),
    }
}

fn verifier_rejected(message: &str, log: &str) -> Failure {
    let words = last_words(log);
    Failure {
        verifier_log: Some(tail(log, MAX_LOG)),
        ..Failure::new(Reason::VerifierRejected, format!("{message}: the verifier says: {words}"))
    }
}

/// The verifier's verdict: the last line of its log that is not statistics.
fn last_words(log: &str) -> &str {
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("processed ") && !line.starts_with("verification time"))
        .unwrap_or("nothing")
}

/// The last `max` bytes of a log, in whole lines.
fn tail(log: &str, max: usize) -> String {
    if log.len() <= max {
        return log.to_owned();
    }
    let tail = &log[log.ceil_char_boundary(log.len() - max)..];
    let whole = tail.split_once('\n').map_or(tail, |(_, rest)| rest);
    format!("…\n{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0: R1=ctx() R10=fp0\n0: (b7) r0 = 5\n1: (95) exit\nAt program exit the register R0 has smin=5\n\
                       processed 2 insns (limit 1000000) max_states_per_insn 0\n";

    #[test]
    fn a_verifier_failure_ends_with_the_verifiers_last_sentence() {
        assert_eq!(last_words(LOG), "At program exit the register R0 has smin=5");
        let refused = LoadError::Program {
            name: "p".into(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            log: LOG.into(),
        };
        let failure = Failure::from(refused);
        assert_eq!(failure.reason, Reason::VerifierRejected);
        assert!(failure.message.contains("program p") && failure.message.contains("smin=5"), "{failure}");
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let log = "é line\n".repeat(5000);
        let tail = tail(&log, MAX_LOG);
        assert!(tail.len() <= MAX_LOG + 8 && tail.ends_with("é line\n") && tail.starts_with("…\n"));
    }
}
