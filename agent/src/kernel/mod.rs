//! The only door to the kernel: bpf(2), bpffs, cgroups and inotify. All `unsafe` code of the agent is here. Everything
//! here does IO.
//!
//! | file | noun |
//! |---|---|
//! | [`bpf`] | one function per bpf(2) command that the agent uses |
//! | [`info`] | a program, map or link as the kernel describes it, through the agent's own descriptor |
//! | [`load`] | loads the programs and maps of an ELF object |
//! | `log` | the kernel's logs as text |
//! | [`map`] | creates a map and fills it |
//! | [`map_entries`] | the entries of a map |
//! | [`own_descriptors`] | the agent's own descriptors |
//! | [`pages`] | the entries of any map, a page at a time |
//! | [`statistics`] | the runs of programs |
//! | [`record`] | bytes that outlive the agent |
//! | [`cgroup`] | the cgroup root and the cgroups below it |
//! | [`bpffs`] | the file system that holds the pins |
//! | [`inotify`] | reports which directories change |
//! | [`facts`] | the node and its kernel |
//! | [`link_features`] | the features of the kernel that change what an object becomes |
//! | [`running`] | the facts of the kernel that linking needs |
//! | [`heap`] | the process's heap |
//! | [`memlock`] | the limit of locked memory, which counts before Linux 5.11 |
//! | [`ring`] | a ring buffer that programs fill |
//! | [`perf`] | a perf buffer, which does the same |
//! | [`kernel_features`] | the BPF features that this kernel has |
//! | [`regressions`] | the known regressions that this kernel has |
//! | [`sockets`] | the sockets in a sockmap or sockhash |
//! | [`verifier`] | questions that the verifier answers |
//! | `fault` | kills the agent or fails a call where a test asks for it |
//!
//! CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON suffice for all of this. With these alone the kernel refuses to walk IDs
//! (`*_GET_NEXT_ID`) and to open an object by its ID (`*_GET_FD_BY_ID`), so nothing here does either.

pub mod bpf;
pub mod bpffs;
pub mod cgroup;
pub mod facts;
mod fault;
pub mod heap;
pub mod info;
pub mod inotify;
pub mod kernel_features;
pub mod link_features;
pub mod load;
mod log;
pub mod map;
pub mod map_entries;
pub mod memlock;
pub mod own_descriptors;
pub mod pages;
pub mod perf;
pub mod record;
pub mod regressions;
pub mod ring;
pub mod running;
pub mod sockets;
pub mod statistics;
pub mod verifier;

use std::{io, os::fd::OwnedFd, sync::Arc};

/// The kernel's own number for an operation that an object of this type does not have. C has no name for it.
pub const ENOTSUPP: i32 = 524;

/// A file descriptor with several owners; the last one closes it.
pub type Fd = Arc<OwnedFd>;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct SysError {
    /// The call and its object, e.g. `BPF_LINK_CREATE`.
    pub call: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl SysError {
    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Returns whether the object does not exist (ENOENT).
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Returns whether an object of that name exists already (EEXIST).
    pub fn already_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Returns whether the kernel does not have the operation for an object of this type (ENOTSUPP, EOPNOTSUPP).
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(ENOTSUPP | libc::EOPNOTSUPP))
    }
}

/// Returns the number of possible CPUs.
fn possible_cpus() -> Result<usize, SysError> {
    aya::util::nr_cpus().map_err(|(_, error)| error).call(|| "read of the possible CPUs")
}

/// Adds the name of the failed system call to an error.
pub trait Call<T> {
    /// Adds the name of the call; `call` runs only if there is an error.
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, SysError>;
}

impl<T, E: Into<io::Error>> Call<T> for Result<T, E> {
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, SysError> {
        self.map_err(|e| SysError { call: call().into(), source: e.into() })
    }
}
