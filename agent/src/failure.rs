//! `Failure`: why a revision is not in effect on this node, as a reason, in words, and with the verifier's where it spoke.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use sockeye_crds::{Reason, names::line};

use crate::{
    held::LinkKey,
    kernel::{SysError, load::LoadError},
    observe::{Keeper, ObserveError},
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
    /// Whether it is about single pods' cgroups, or what is to go, alone: everything else is in effect.
    pub partial: bool,
    /// Whether it is only that bytes are on their way.
    pub awaits: bool,
}

/// Where an attachment was to be.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// At a cgroup.
    Cgroup {
        /// The function.
        function: &'a str,
        /// The cgroup, as a path below the root or an ID.
        path: &'a str,
    },
    /// At a map.
    Map {
        /// The function.
        function: &'a str,
        /// The map's pin name.
        map: &'a str,
    },
}

impl<'a> Place<'a> {
    /// That of a link.
    pub fn of(key: &'a LinkKey) -> Self {
        let LinkKey { function, place } = key;
        match key.map() {
            Some(map) => Self::Map { function, map },
            None => Self::Cgroup { function, path: place },
        }
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { function, path } => write!(f, "program {function}, cgroup {path}"),
            Self::Map { function, map } => write!(f, "program {function}, map {map}"),
        }
    }
}

/// What stands behind an EPERM to an attachment, as far as the agent can see.
#[derive(Clone, Debug)]
pub enum Obstacle {
    /// The agent itself may not.
    Lacking(Vec<&'static str>),
    /// Something that is attached lets nothing beside it.
    Keeper(Keeper),
    /// Neither is to be seen from here.
    Unseen,
    /// The link no longer ran the program that it was to be moved away from.
    Moved,
}

/// What a refusal for want of rights asks for.
const NEEDED: &str = ": the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a bpffs that it may write";

/// A verifier log in a status has at most so many bytes; it keeps its end, where the refusal is.
const MAX_LOG: usize = 8000;

impl Failure {
    /// A failure without a verifier log.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: line(&message.into(), 2048), verifier_log: None, partial: false, awaits: false }
    }

    /// What was refused at single pods' cgroups: the first of it, and how much more there is.
    pub fn at_pods(refused: BTreeMap<String, Self>) -> Self {
        let more = refused.len().saturating_sub(1);
        let first = refused.into_values().next().unwrap_or_else(|| Self::internal("nothing was refused"));
        let message = if more > 0 { format!("{}; and {more} more cgroups", first.message) } else { first.message };
        Self { message: line(&message, 2048), partial: true, ..first }
    }

    /// A defect of ours, said instead of a panic.
    pub fn internal(message: impl Display) -> Self {
        Self::new(Reason::LoadFailed, format!("defect in sockeye: {message}"))
    }

    /// The kernel refused to attach.
    pub fn attach(place: Place<'_>, error: &SysError, obstacle: &Obstacle) -> Self {
        let to_map = matches!(place, Place::Map { .. });
        let (reason, hint) = match (error.errno(), obstacle) {
            (Some(libc::EBUSY), _) if to_map => (
                Reason::AttachRefused,
                "something else is attached to the map, or it runs a verdict of the other kind: see `bpftool link`"
                    .to_owned(),
            ),
            (Some(libc::EOPNOTSUPP), _) if to_map => {
                (Reason::KernelUnsupported, "this kernel is built without CONFIG_BPF_STREAM_PARSER".to_owned())
            }
            (Some(libc::E2BIG), _) => (
                Reason::AttachRefused,
                "the cgroup already has 64 programs of this attach type, the kernel's limit: remove some".to_owned(),
            ),
            (Some(libc::EPERM), Obstacle::Keeper(Keeper { path: above, programs })) => {
                let ids = programs.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                let hint = format!(
                    "program {ids}, attached at cgroup {above} without BPF_F_ALLOW_MULTI, keeps others out of it and of all \
                     below: detach it there, or attach it with that flag (bpftool cgroup attach ... multi)"
                );
                (Reason::AttachRefused, hint)
            }
            (Some(libc::EPERM), Obstacle::Lacking(capabilities)) => {
                let hint = format!("the agent lacks {}: install the chart as it is", capabilities.join(", "));
                (Reason::PermissionDenied, hint)
            }
            (Some(libc::EPERM), Obstacle::Unseen) => (
                Reason::AttachRefused,
                "a program attached above this node's cgroup root without BPF_F_ALLOW_MULTI may keep others out: \
                 see `bpftool cgroup tree` on the host"
                    .to_owned(),
            ),
            (Some(libc::EPERM), Obstacle::Moved) => {
                (Reason::AttachRefused, "something else has updated the link meanwhile".to_owned())
            }
            (Some(libc::EBADF), _) => (Reason::AttachRefused, "the directory is no cgroup v2 one".to_owned()),
            (Some(libc::ENOENT | libc::ENOLINK), _) => (Reason::AttachRefused, "the cgroup is gone".to_owned()),
            _ => (Reason::AttachRefused, "see the kernel's answer".to_owned()),
        };
        Self::new(reason, format!("{place}: {error}: {hint}"))
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
            ObserveError::NotBpffs(_) | ObserveError::ReadOnly(_) => {
                Self::new(Reason::BpffsUnusable, error.to_string())
            }
            ObserveError::Sys(error) => error.into(),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let message = error.to_string();
        match error {
            LoadError::Object(_) | LoadError::Missing(_) => Self::new(Reason::InvalidObject, message),
            LoadError::Slot { source, .. } => {
                let hint = match source.errno() {
                    Some(libc::EINVAL) => {
                        ": an inner map must have the shape that the outer one's definition says, max_entries of arrays too; a \
                         program the type of the array's other programs"
                    }
                    Some(libc::E2BIG) => ": the map has fewer entries",
                    _ => "",
                };
                Self::new(Reason::MapRefused, format!("{message}{hint}"))
            }
            LoadError::NoKernelBtf(_) => Self::new(Reason::KernelUnsupported, message),
            LoadError::Map { source, .. } => {
                let (reason, hint) = match source.errno() {
                    Some(libc::ENOMEM) => (
                        Reason::MapRefused,
                        ": not enough memory for it (a memory limit on the agent's pod counts map memory)",
                    ),
                    Some(libc::EINVAL | libc::E2BIG) => {
                        (Reason::MapRefused, ": the kernel does not take its type, sizes or flags")
                    }
                    Some(libc::EPERM) => (Reason::PermissionDenied, NEEDED),
                    _ => (Reason::MapRefused, ""),
                };
                Self::new(reason, format!("{message}{hint}"))
            }
            LoadError::Program { source, log, .. } if log.is_empty() => {
                let (reason, hint) = match source.raw_os_error() {
                    Some(libc::EPERM) => (Reason::PermissionDenied, NEEDED),
                    Some(libc::EINVAL) => (Reason::KernelUnsupported, ""),
                    _ => (Reason::LoadFailed, ""),
                };
                Self::new(reason, format!("{message}{hint}"))
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
