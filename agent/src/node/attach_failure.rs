//! Failures to attach: what the kernel's errno means at a cgroup or map, and what to do about it.

use std::fmt::{self, Display};

use sockeye_crds::Reason;

use crate::{
    kernel::SysError,
    model::observed::LinkKey,
    node::{failure::Failure, observe::ExclusiveAttachment},
};

/// The remedy where the kernel's answer is none that attaching is known to give.
const UNKNOWN: &str =
    "the agent tries again; if that does not help, look for the cause in the kernel's log of this node (dmesg)";

/// The function and the cgroup or map that an attachment joins.
#[derive(Clone, Copy, Debug)]
pub enum AttachPoint<'a> {
    /// A function at a cgroup.
    Cgroup {
        /// The function.
        function: &'a str,
        /// The cgroup: its path below the root, or its ID.
        path: &'a str,
    },
    /// A function at a map.
    Map {
        /// The function.
        function: &'a str,
        /// The map's pin name.
        map: &'a str,
    },
}

impl<'a> AttachPoint<'a> {
    /// The attach point of a link.
    pub fn of(key: &'a LinkKey) -> Self {
        let LinkKey { function, place } = key;
        match key.map() {
            Some(map) => Self::Map { function, map },
            None => Self::Cgroup { function, path: place },
        }
    }
}

impl Display for AttachPoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { function, path } => write!(f, "program {function}, cgroup {path}"),
            Self::Map { function, map } => write!(f, "program {function}, map {map}"),
        }
    }
}

/// The cause of an EPERM, as far as the agent can tell.
#[derive(Clone, Debug)]
pub enum EpermCause {
    /// The agent lacks these capabilities.
    MissingCapabilities(Vec<&'static str>),
    /// Another attachment excludes all others.
    ExclusiveAttachment(ExclusiveAttachment),
    /// The link no longer runs the program that the update was to replace.
    LinkChanged,
    /// Nothing that the agent can see.
    Unknown,
}

impl Failure {
    /// The kernel refused an attachment or an update. `cause` matters only if it said EPERM.
    pub fn attach(point: AttachPoint<'_>, error: &SysError, cause: &EpermCause) -> Self {
        let to_map = matches!(point, AttachPoint::Map { .. });
        let (reason, hint) = match error.errno() {
            Some(libc::EBUSY) if to_map => (
                Reason::AttachFailed,
                "another program is attached to the map, or its verdict is of the other kind: see `bpftool link`"
                    .into(),
            ),
            Some(libc::EOPNOTSUPP) if to_map => {
                (Reason::KernelUnsupported, "this kernel is built without CONFIG_BPF_STREAM_PARSER".into())
            }
            Some(libc::E2BIG) => (
                Reason::AttachFailed,
                "the cgroup already has 64 programs of this attach type, the kernel's limit: remove some".into(),
            ),
            Some(libc::EPERM) => eperm(cause),
            Some(libc::EBADF) => (
                Reason::AttachFailed,
                "the directory is not a cgroup v2 directory: name one of the cgroup v2 hierarchy".into(),
            ),
            Some(libc::ENOENT | libc::ENOLINK) => (
                Reason::AttachFailed,
                "the cgroup is gone: the agent attaches the program once it is there again".into(),
            ),
            _ => (Reason::AttachFailed, UNKNOWN.into()),
        };
        Self::new(reason, format!("{point}: {error}: {hint}"))
    }
}

fn eperm(cause: &EpermCause) -> (Reason, String) {
    match cause {
        EpermCause::ExclusiveAttachment(ExclusiveAttachment { path, programs }) => {
            let ids = programs.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let hint = format!(
                "program {ids}, attached at cgroup {path} without BPF_F_ALLOW_MULTI, excludes all others at that \
                 cgroup and below it: detach it there, or attach it with that flag (bpftool cgroup attach ... multi)"
            );
            (Reason::AttachFailed, hint)
        }
        EpermCause::MissingCapabilities(capabilities) => {
            let hint = format!("the agent lacks {}: install the chart unchanged", capabilities.join(", "));
            (Reason::PermissionDenied, hint)
        }
        EpermCause::LinkChanged => (
            Reason::AttachFailed,
            "something else has updated the link meanwhile, and the agent tries again: keep other tools from updating \
             sockeye's links"
                .into(),
        ),
        EpermCause::Unknown => (
            Reason::AttachFailed,
            "a program attached above this node's cgroup root without BPF_F_ALLOW_MULTI may exclude others: see \
             `bpftool cgroup tree` on the host"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sockeye_crds_testing::provoked;

    use super::*;

    fn failure(errno: i32, point: AttachPoint<'_>, cause: &EpermCause) -> Failure {
        let error = SysError { call: "BPF_LINK_CREATE".into(), source: io::Error::from_raw_os_error(errno) };
        let failure = Failure::attach(point, &error, cause);
        provoked(failure.reason, &failure.message);
        failure
    }

    #[test]
    fn an_eperm_names_its_cause() {
        let point = AttachPoint::Cgroup { function: "f", path: "/pods" };
        let exclusive = ExclusiveAttachment { path: "/".into(), programs: vec![7, 9] };
        let missing = EpermCause::MissingCapabilities(vec!["CAP_BPF", "CAP_NET_ADMIN"]);
        for (cause, reason, words) in [
            (EpermCause::ExclusiveAttachment(exclusive), Reason::AttachFailed, "program 7, 9, attached at cgroup / "),
            (missing, Reason::PermissionDenied, "CAP_BPF, CAP_NET_ADMIN"),
            (EpermCause::LinkChanged, Reason::AttachFailed, "updated the link meanwhile"),
            (EpermCause::Unknown, Reason::AttachFailed, "bpftool cgroup tree"),
        ] {
            let failure = failure(libc::EPERM, point, &cause);
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(
                failure.message.starts_with("program f, cgroup /pods: ") && failure.message.contains(words),
                "{failure}"
            );
        }
    }

    #[test]
    fn an_errno_means_something_else_at_a_map() {
        let at_map = AttachPoint::Map { function: "f", map: "sockets" };
        let at_cgroup = AttachPoint::Cgroup { function: "f", path: "/" };
        let busy = failure(libc::EBUSY, at_map, &EpermCause::Unknown);
        assert!(busy.message.contains("map sockets") && busy.message.contains("bpftool link"), "{busy}");
        assert!(failure(libc::EBUSY, at_cgroup, &EpermCause::Unknown).message.ends_with(UNKNOWN));
        assert_eq!(failure(libc::EOPNOTSUPP, at_map, &EpermCause::Unknown).reason, Reason::KernelUnsupported);
    }
}
