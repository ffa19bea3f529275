//! Failures to load: what the kernel's errno means for a map or program, what to do about it, and the verifier's words.

use std::io;

use sockeye_crds::Reason;

use sockeye_ebpf::link::{
    Invalid,
    core::{Cause, Subject},
    verdict::{Lacking, Verdict},
};

use crate::{
    kernel::{SysError, facts, features, load::LoadError},
    node::failure::{Failure, NEEDED},
};

/// The most bytes of a verifier log in a status. A longer log keeps its end, where the refusal is.
const MAX_LOG: usize = 8000;

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let message = error.to_string();
        let (reason, hint) = match error {
            LoadError::Link(error) if error.is_of_kernel() => (Reason::KernelUnsupported, String::new()),
            LoadError::Link(_) | LoadError::Missing(_) => (Reason::InvalidObject, String::new()),
            LoadError::Map { source, .. } => map_create_failed(&source),
            LoadError::Slot { source, .. } => slot_failed(&source),
            LoadError::Program { source, log, .. } if log.is_empty() => program_refused(&source),
            LoadError::Program { log, verdict, without, .. } => {
                return verifier_rejected(&message, &log, (&verdict, &without));
            }
        };
        Self::new(reason, format!("{message}{hint}"))
    }
}

fn map_create_failed(error: &SysError) -> (Reason, String) {
    let (reason, hint) = match error.errno() {
        Some(libc::ENOMEM) => (
            Reason::MapCreateFailed,
            ": not enough memory for it (a memory limit on the agent's pod counts map memory)",
        ),
        Some(libc::EINVAL | libc::E2BIG) => {
            (Reason::MapCreateFailed, ": the kernel does not accept its type, sizes or flags")
        }
        // ENOTSUPP of the kernel has no number in C.
        Some(libc::EOPNOTSUPP | 524) => {
            (Reason::MapCreateFailed, ": the kernel has no such field (a spin lock, a timer) in maps of its type")
        }
        Some(libc::EPERM) => return permission_denied(),
        _ => (Reason::MapCreateFailed, ""),
    };
    (reason, hint.to_owned())
}

/// The kernel denied permission: before 5.11 also where the memory that its user may lock is used up.
fn permission_denied() -> (Reason, String) {
    let has_rights = facts::lacking_capabilities().is_ok_and(|lacking| lacking.is_empty());
    if !has_rights || features::charges_cgroups() != Some(false) {
        return (Reason::PermissionDenied, NEEDED.to_owned());
    }
    let (uid, limit) = facts::locked_memory();
    let limit = limit.map_or("unlimited".to_owned(), |limit| format!("{limit} bytes"));
    let hint = format!(
        ": this kernel, older than 5.11, counts the memory of maps and programs against what one user may lock \
         (RLIMIT_MEMLOCK): user {uid} may lock {limit}, for all its processes together: raise the container runtime's \
         limit, or give the agent a user of its own"
    );
    (Reason::KernelUnsupported, hint)
}

fn slot_failed(error: &SysError) -> (Reason, String) {
    let hint = match error.errno() {
        Some(libc::EINVAL) => {
            ": an inner map must have the shape that the outer map's definition says, including max_entries of arrays; \
             a program must have the type of the array's other programs"
        }
        Some(libc::E2BIG) => ": the map has fewer entries",
        _ => "",
    };
    (Reason::MapCreateFailed, hint.to_owned())
}

/// A refusal without a word of the verifier's.
fn program_refused(error: &io::Error) -> (Reason, String) {
    match error.raw_os_error() {
        Some(libc::EPERM) => permission_denied(),
        Some(libc::EINVAL) => (Reason::KernelUnsupported, String::new()),
        _ => (Reason::LoadFailed, String::new()),
    }
}

fn verifier_rejected(message: &str, log: &str, (verdict, without): (&Verdict, &[String])) -> Failure {
    let place = verdict.source.as_ref().map(|source| format!(", at {source}")).unwrap_or_default();
    let (reason, words) = match &verdict.lacking {
        Some(lacking) => (Reason::KernelUnsupported, lacking_words(lacking)),
        None => (Reason::VerifierRejected, format!("the verifier says: {}", last_words(log))),
    };
    // What needs types fails for want of them only once a program is verified.
    let needs_types = ["BTF", "func_info"].iter().any(|word| words.contains(word));
    let without: String = without.iter().filter(|_| needs_types).map(|note| format!("; {note}")).collect();
    Failure {
        verifier_log: Some(tail(log, MAX_LOG)),
        ..Failure::new(reason, format!("{message}: {words}{place}{without}"))
    }
}

/// Says what this kernel lacks.
fn lacking_words(lacking: &Lacking) -> String {
    match lacking {
        Lacking::Invalid(Invalid::Core(subject, cause)) => {
            let Subject { spec, type_name, field } = subject;
            let what = match (cause, field.as_str()) {
                (Cause::Size, _) => format!("this kernel's {field} of {type_name} has another size"),
                (Cause::Missing, "") => format!("this kernel has no {type_name}"),
                (Cause::Missing, _) => format!("this kernel's {type_name} has no {field}"),
            };
            format!("failed to resolve CO-RE relocation {spec}: {what}, and the program does not ask whether it has")
        }
        Lacking::Invalid(Invalid::Function(name)) => {
            format!("it calls the kernel function {name}, which this kernel lacks, and does not ask whether it has it")
        }
        Lacking::Function(name) => {
            format!("it calls the kernel function {name}, which this kernel does not let programs of its type call")
        }
        Lacking::Instructions => "it has instructions of version 4, which kernels have from 6.6 on: compile with \
                                  -mcpu=v3"
            .to_owned(),
        Lacking::Helper(helper) => {
            // bpf_probe_read and those that read the kernel's memory, which a lockdown forbids.
            let reads = ["#4", "#45", "#113", "#115"].iter().any(|number| helper.ends_with(number));
            let locked = match (reads, facts::lockdown(), features::reads_kernel_memory()) {
                (true, Some(mode), _) if mode == "confidentiality" => {
                    ": the kernel is locked down (/sys/kernel/security/lockdown says confidentiality), so programs may \
                     not read its memory"
                }
                (true, _, Some(false)) => {
                    ": it forbids programs to read its memory, as a kernel does that is locked down (confidentiality)"
                }
                _ => "",
            };
            format!("this kernel has no helper {helper} for programs of its type{locked}")
        }
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
    fn a_verifier_failure_ends_with_the_verifiers_last_sentence() {
        assert_eq!(last_words(LOG), "At program exit the register R0 has smin=5");
        let refused = LoadError::Program {
            name: "p".into(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            log: LOG.into(),
            verdict: Box::default(),
            without: Vec::new(),
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
