//! Failures to load: what the kernel's errno means for a map or program, what to do about it, and the verifier's words.

use std::io;

use sockeye_crds::Reason;
use sockeye_ebpf::link::{
    Invalid,
    core::{Cause, Subject},
    rejection::{Lacking, Rejection},
};

use super::{
    failure::{Failure, LOCKED_DOWN, LOG_PLACE, NEEDED, NO_SUCH_PROGRAM, TRIES_AGAIN, UNKNOWN_HELPER},
    helpers,
    instructions::{self, UnknownInstructions},
};
use crate::{
    kernel::{
        ENOTSUPP, SysError, facts,
        load::LoadError,
        memlock::Memlock,
        verifier::{self, FeatureSupport},
    },
    model::kernel::ProgramKind,
};

/// The most bytes of a verifier log in a status. A longer log keeps its end, where the refusal is.
const MAX_LOG: usize = 8000;
/// The most bytes of a verifier log in the read API.
const MAX_WHOLE_LOG: usize = 1 << 20;

/// What may be the cause of a refusal, on this node and for this agent.
#[derive(Clone, Debug, Default)]
struct Circumstances {
    /// The capabilities that the agent lacks.
    lacking: Vec<&'static str>,
    /// The limit that the kernel compares the agent's maps and programs with.
    memlock: Option<Memlock>,
    /// Whether the kernel lets no program read its memory.
    is_locked_down: bool,
    /// The instructions that its verifier does not know.
    unknown: UnknownInstructions,
}

impl Circumstances {
    fn of_this_node() -> Self {
        Self {
            lacking: facts::lacking_capabilities().unwrap_or_default(),
            memlock: Memlock::in_force(),
            is_locked_down: verifier::is_locked_down(),
            unknown: UnknownInstructions {
                atomic_fetch: verifier::atomic_fetch() == FeatureSupport::Lacks,
                v4: verifier::instructions_v4() == FeatureSupport::Lacks,
            },
        }
    }

    /// What an EPERM means, which a kernel that charges users says beyond their limit.
    fn eperm(&self) -> String {
        match &self.memlock {
            _ if !self.lacking.is_empty() => {
                format!(": the agent lacks {}: install the chart unchanged", self.lacking.join(", "))
            }
            Some(memlock) => format!(
                ": {memlock}: raise the limit of the container runtime's service (LimitMEMLOCK), or give the agent a \
                 user of its own (docs/operations.md)"
            ),
            None => NEEDED.to_owned(),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::load(&error, &Circumstances::of_this_node())
    }
}

impl Failure {
    fn load(error: &LoadError, circumstances: &Circumstances) -> Self {
        let message = error.to_string();
        let (reason, hint) = match error {
            LoadError::Link(error) if error.is_of_kernel() => (Reason::KernelUnsupported, String::new()),
            LoadError::Link(_) | LoadError::Missing(_) => (Reason::InvalidObject, String::new()),
            LoadError::Map { source, .. } => map_create_failed(source, circumstances),
            LoadError::Slot { source, .. } => (Reason::MapCreateFailed, slot_failed(source).to_owned()),
            LoadError::Program { source, log, .. } if log.is_empty() => program_refused(source, circumstances),
            LoadError::Program { kind, log, rejection, without, .. } => {
                let (reason, words) = refusal(*kind, log, rejection, circumstances);
                let place = rejection.source.as_ref().map(|source| format!(", at {source}")).unwrap_or_default();
                let without = needed_types(&words, without);
                let failure = Self::new(reason, format!("{message}: {words}{place}{without}{LOG_PLACE}"));
                let whole_log = Some(tail(log, MAX_WHOLE_LOG).into());
                return Self { verifier_log: Some(tail(log, MAX_LOG)), whole_log, ..failure };
            }
        };
        let failure = Self::new(reason, format!("{message}{hint}"));
        Self { needs_edit: failure.needs_edit || never_takes(error), ..failure }
    }
}

/// Returns whether the kernel refuses a map, or what is put into it, for what the object or the spec say of it. Memory,
/// and rights, may come.
fn never_takes(error: &LoadError) -> bool {
    let (LoadError::Map { source, .. } | LoadError::Slot { source, .. }) = error else { return false };
    source.is_unsupported() || matches!(source.errno(), Some(libc::EINVAL | libc::E2BIG))
}

fn map_create_failed(error: &SysError, circumstances: &Circumstances) -> (Reason, String) {
    let hint = match error.errno() {
        Some(libc::ENOMEM) => {
            ": not enough memory for it: lower its maxEntries, or raise the limit of the agent's pod, which counts maps"
        }
        Some(libc::EINVAL | libc::E2BIG) => ": the kernel does not accept its type, sizes or flags: correct these",
        Some(libc::EOPNOTSUPP | ENOTSUPP) => {
            ": the kernel has no such field (a spin lock, a timer) in maps of its type: leave it out"
        }
        Some(libc::EPERM) => return not_permitted(Reason::MapCreateFailed, circumstances),
        _ => TRIES_AGAIN,
    };
    (Reason::MapCreateFailed, hint.to_owned())
}

fn slot_failed(error: &SysError) -> &'static str {
    match error.errno() {
        Some(libc::EINVAL) => {
            ": an inner map must have the shape that the outer map's definition says, including max_entries of arrays; \
             a program must have the type of the array's other programs"
        }
        Some(libc::E2BIG) => ": the map has fewer entries: raise its max_entries",
        _ => TRIES_AGAIN,
    }
}

/// A refusal without a word of the verifier's.
fn program_refused(error: &io::Error, circumstances: &Circumstances) -> (Reason, String) {
    match error.raw_os_error() {
        Some(libc::EPERM) => not_permitted(Reason::LoadFailed, circumstances),
        Some(libc::EINVAL) => (Reason::KernelUnsupported, NO_SUCH_PROGRAM.to_owned()),
        _ => (Reason::LoadFailed, TRIES_AGAIN.to_owned()),
    }
}

/// An EPERM; `beyond` is the reason if the limit of locked memory is its cause.
fn not_permitted(beyond: Reason, circumstances: &Circumstances) -> (Reason, String) {
    let is_beyond = circumstances.lacking.is_empty() && circumstances.memlock.is_some();
    (if is_beyond { beyond } else { Reason::PermissionDenied }, circumstances.eperm())
}

/// Returns what the program went without, if that is why the verifier refuses it: what needs types fails for want of
/// them only once a program is verified.
fn needed_types(words: &str, without: &[String]) -> String {
    let needs_types = ["BTF", "func_info"].iter().any(|word| words.contains(word));
    without.iter().filter(|_| needs_types).map(|note| format!("; {note}")).collect()
}

/// What the verifier's log means: the reason, and words for it.
fn refusal(kind: ProgramKind, log: &str, rejection: &Rejection, circumstances: &Circumstances) -> (Reason, String) {
    let words = last_words(log);
    let (reason, hint) = match (&rejection.lacking, helpers::refused_call(words)) {
        (Some(Lacking::Invalid(invalid)), _) => return (Reason::KernelUnsupported, invalid_words(invalid)),
        (Some(Lacking::Function(name)), _) => {
            let words = format!(
                "it calls the kernel function {name}, which this kernel does not let programs of its type call"
            );
            return (Reason::KernelUnsupported, words);
        }
        (_, Some(helper)) => refused_helper(kind, helper, words, circumstances),
        (lacking, None) => {
            let is_v4 = matches!(lacking, Some(Lacking::Instructions));
            instructions::refused(words, is_v4, circumstances.unknown)
        }
    };
    (reason, format!("the verifier says: {words}{hint}"))
}

/// Says what of its types or functions the kernel lacks.
fn invalid_words(invalid: &Invalid) -> String {
    match invalid {
        Invalid::Core(Subject { spec, type_name, field }, cause) => {
            let what = match (cause, field.as_str()) {
                (Cause::Size, _) => format!("this kernel's {field} of {type_name} has another size"),
                (Cause::Type, _) | (Cause::Missing, "") => format!("this kernel has no {type_name}"),
                (Cause::Missing, _) => {
                    format!("this kernel's {type_name} has no {field}, or one of another kind")
                }
            };
            format!("failed to resolve CO-RE relocation {spec}: {what}, and the program does not ask whether it has")
        }
        Invalid::Function(name) => {
            format!("it calls the kernel function {name}, which this kernel lacks, and does not ask whether it has it")
        }
    }
}

/// The call of a helper that the kernel does not let the program call: its own kernel's fault, or the program's.
fn refused_helper(kind: ProgramKind, helper: u32, words: &str, circumstances: &Circumstances) -> (Reason, String) {
    if circumstances.is_locked_down && helpers::READ_KERNEL.contains(&helper) {
        return (Reason::KernelUnsupported, LOCKED_DOWN.to_owned());
    }
    match helpers::first_seen(kind, helper) {
        Some((name, (major, minor))) => {
            let hint = format!(
                ": this node's kernel does not let programs of this type call bpf_{name}, as Linux {major}.{minor} \
                 does: set spec.nodeSelector to select nodes that have it"
            );
            (Reason::KernelUnsupported, hint)
        }
        None if helpers::is_unknown(words) => (Reason::KernelUnsupported, UNKNOWN_HELPER.to_owned()),
        None => (Reason::VerifierRejected, String::new()),
    }
}

/// The verifier's verdict: the last line of its log that is not statistics.
fn last_words(log: &str) -> &str {
    const STATISTICS: [&str; 4] = ["processed ", "verification time", "stack depth ", "insns processed "];
    let is_word = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|begin| line.starts_with(begin));
    log.lines().rev().map(str::trim).find(is_word).unwrap_or("nothing")
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
    use sockeye_crds_testing::provoked;
    use sockeye_ebpf::link::rejection::SourceLine;

    use super::*;

    const LOG: &str = "0: R1=ctx() R10=fp0\n0: (b7) r0 = 5\n1: (95) exit\nAt program exit the register R0 has smin=5\n\
                       processed 2 insns (limit 1000000) max_states_per_insn 0\n";

    /// A refused sockops program.
    fn program(errno: i32, log: &str) -> LoadError {
        LoadError::Program {
            name: "p".into(),
            kind: ProgramKind { prog_type: 13, attach_type: 3 },
            source: io::Error::from_raw_os_error(errno),
            log: log.into(),
            rejection: Box::default(),
            without: Vec::new(),
        }
    }

    fn map(errno: i32) -> LoadError {
        let source = SysError { call: "BPF_MAP_CREATE".into(), source: io::Error::from_raw_os_error(errno) };
        LoadError::Map { name: "m".into(), source, log: String::new() }
    }

    fn failure(error: LoadError, circumstances: Circumstances) -> Failure {
        let failure = Failure::load(&error, &circumstances);
        provoked(failure.reason, &failure.message);
        failure
    }

    #[test]
    fn a_map_that_the_kernel_never_takes_needs_an_edit_and_one_for_which_it_has_no_memory_does_not() {
        for (errno, needs_edit) in
            [(libc::EINVAL, true), (libc::E2BIG, true), (524, true), (libc::ENOMEM, false), (libc::EPERM, false)]
        {
            let failure = failure(map(errno), Circumstances::default());
            assert_eq!(failure.needs_edit, needs_edit, "{failure}");
        }
        let source =
            SysError { call: "BPF_MAP_UPDATE_ELEM".into(), source: io::Error::from_raw_os_error(libc::EINVAL) };
        let slot = LoadError::Slot { map: "outer".into(), slot: 0, entry: "inner".into(), source };
        assert!(failure(slot, Circumstances::default()).needs_edit);
        assert!(failure(program(libc::EINVAL, ""), Circumstances::default()).needs_edit, "KernelUnsupported");
    }

    #[test]
    fn an_eperm_of_an_old_kernel_names_the_limit_and_the_user_and_no_capability() {
        let beyond = |limit| Circumstances { memlock: Some(Memlock { limit, uid: 61000 }), ..Circumstances::default() };
        for (error, reason) in
            [(program(libc::EPERM, ""), Reason::LoadFailed), (map(libc::EPERM), Reason::MapCreateFailed)]
        {
            let failure = failure(error, beyond(Some(64 << 10)));
            assert_eq!(failure.reason, reason, "{failure}");
            for words in ["RLIMIT_MEMLOCK is 64 KiB", "user 61000", "LimitMEMLOCK"] {
                assert!(failure.message.contains(words), "{failure}");
            }
            assert!(!failure.message.contains("CAP_"), "{failure}");
        }
        let lacking = Circumstances { lacking: vec!["CAP_BPF"], ..beyond(None) };
        for circumstances in [lacking, Circumstances::default()] {
            let failure = failure(map(libc::EPERM), circumstances);
            assert!(failure.reason == Reason::PermissionDenied && failure.message.contains("CAP_BPF"), "{failure}");
        }
    }

    #[test]
    fn a_helper_that_only_newer_kernels_have_is_named_and_one_of_another_type_is_a_mistake() {
        for (words, reason, named) in [
            (
                "unknown func bpf_get_netns_cookie#122",
                Reason::KernelUnsupported,
                "bpf_get_netns_cookie, as Linux 6.1 does",
            ),
            ("invalid func unknown#181", Reason::KernelUnsupported, "bpf_loop, as Linux 6.1 does"),
            ("unknown func bpf_redirect#23", Reason::VerifierRejected, "bpf_redirect#23"),
            ("invalid func unknown#5000", Reason::KernelUnsupported, "has no helper of that number"),
            ("invalid func unknown#195896080", Reason::VerifierRejected, "unknown#195896080"),
            ("unknown func bpf_probe_read_kernel#113", Reason::VerifierRejected, "bpf_probe_read_kernel#113"),
        ] {
            let failure = failure(program(libc::EINVAL, words), Circumstances::default());
            assert!(failure.reason == reason && failure.message.contains(named), "{failure}");
            assert_eq!(failure.verifier_log.as_deref(), Some(words));
        }
    }

    #[test]
    fn lockdown_is_named_where_it_is_the_cause() {
        let locked_down = Circumstances { is_locked_down: true, ..Circumstances::default() };
        for (words, is_cause) in [
            ("unknown func bpf_probe_read_kernel#113", true),
            ("program of this type cannot use helper bpf_probe_read#4", true),
            ("unknown func bpf_redirect#23", false),
        ] {
            let failure = failure(program(libc::EINVAL, words), locked_down.clone());
            assert_eq!(failure.reason == Reason::KernelUnsupported, is_cause, "{failure}");
            assert_eq!(failure.message.contains("lockdown=confidentiality"), is_cause, "{failure}");
        }
    }

    #[test]
    fn a_verifier_failure_ends_with_the_verifiers_last_sentence() {
        assert_eq!(last_words(LOG), "At program exit the register R0 has smin=5");
        let failure = failure(program(libc::EINVAL, LOG), Circumstances::default());
        assert_eq!(failure.reason, Reason::VerifierRejected);
        assert!(failure.message.contains("program p") && failure.message.contains("smin=5"), "{failure}");
    }

    #[test]
    fn what_a_kernel_lacks_is_told_by_name_with_the_line_of_the_source() {
        let subject = Subject {
            spec: "<byte_off> [2] struct task_struct___m.gone (0:0 @ offset 0)".to_owned(),
            type_name: "struct task_struct___m".to_owned(),
            field: "gone".to_owned(),
        };
        let source = SourceLine { file: "a.bpf.c".to_owned(), number: 7, text: "t->gone".to_owned() };
        let lacking = Some(Lacking::Invalid(Invalid::Core(subject, Cause::Missing)));
        let rejection = Box::new(Rejection { lacking, source: Some(source) });
        let (name, source) = ("p".to_owned(), io::Error::from_raw_os_error(libc::EINVAL));
        let (kind, without) = (ProgramKind { prog_type: 13, attach_type: 3 }, vec![]);
        let failure = Failure::from(LoadError::Program { name, kind, source, log: LOG.into(), rejection, without });
        assert_eq!(failure.reason, Reason::KernelUnsupported);
        for words in ["struct task_struct___m has no gone", "<byte_off> [2]", "at a.bpf.c:7 `t->gone`"] {
            assert!(failure.message.contains(words), "nothing of {words:?} in: {failure}");
        }
    }

    #[test]
    fn a_type_that_the_kernel_lacks_is_told_from_a_field_that_it_lacks() {
        let subject = Subject { spec: String::new(), type_name: "struct never_was".into(), field: "x".into() };
        let words = |cause| invalid_words(&Invalid::Core(subject.clone(), cause));
        assert!(words(Cause::Type).contains("this kernel has no struct never_was,"));
        assert!(words(Cause::Missing).contains("this kernel's struct never_was has no x, or one"));
    }

    #[test]
    fn types_that_the_kernel_did_not_take_are_told_where_they_are_missed() {
        let refused = |log: &str| {
            Failure::from(LoadError::Program {
                name: "p".into(),
                kind: ProgramKind { prog_type: 13, attach_type: 3 },
                source: io::Error::from_raw_os_error(libc::EINVAL),
                log: log.into(),
                rejection: Box::default(),
                without: vec!["map m has no types".to_owned()],
            })
        };
        let failure = refused("map 'm' has to have BTF in order to use bpf_spin_lock\n");
        assert!(failure.message.contains("; map m has no types"), "{failure}");
        assert!(!refused("R0 !read_ok\n").message.contains("no types"));
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let log = "é line\n".repeat(5000);
        let tail = tail(&log, MAX_LOG);
        assert!(tail.len() <= MAX_LOG + 8 && tail.ends_with("é line\n") && tail.starts_with("…\n"));
    }
}
