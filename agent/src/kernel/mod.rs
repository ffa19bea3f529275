//! The only door to the kernel: bpf(2), bpffs and cgroups. Everything unsafe is here, and everything here does IO.
//!
//! | file | noun |
//! |---|---|
//! | [`bpf`] | one function per bpf(2) command that the agent makes |
//! | [`info`] | what the kernel says of a program, a map or a link, through the agent's own descriptor |
//! | [`load`] | an ELF object made into programs and maps in the kernel |
//! | [`map`] | a map made and filled |
//! | [`cgroup`] | the cgroup root and the cgroups below it |
//! | [`bpffs`] | the file system that holds the pins |
//! | [`inotify`] | told when pins come and go |
//! | [`facts`] | the node and its kernel |
//! | [`ring`] | a ring buffer that programs fill |
//! | [`probe`] | what of what programs need this kernel has |
//! | `fault` | where tests let the agent die or a call fail |
//!
//! With CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON the kernel lets the agent do all of this. It refuses walking IDs
//! (`*_GET_NEXT_ID`) and opening an object by its ID (`*_GET_FD_BY_ID`), so nothing here does.

pub mod bpf;
pub mod bpffs;
pub mod cgroup;
pub mod facts;
mod fault;
pub mod info;
pub mod inotify;
pub mod load;
pub mod map;
pub mod probe;
pub mod ring;

use std::{io, os::fd::OwnedFd, sync::Arc};

/// A descriptor that several hold; it is closed with the last of them.
pub type Fd = Arc<OwnedFd>;

/// A system call that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct SysError {
    /// The call, e.g. `BPF_LINK_CREATE`, and on what.
    pub call: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl SysError {
    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether the thing was not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether something was there already.
    pub fn is_there(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Names the call that failed.
pub trait Call<T> {
    /// Names the call, lazily.
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, SysError>;
}

impl<T, E: Into<io::Error>> Call<T> for Result<T, E> {
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T, SysError> {
        self.map_err(|e| SysError { call: call().into(), source: e.into() })
    }
}
