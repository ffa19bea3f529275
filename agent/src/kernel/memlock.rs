//! The memory that a user may lock. Before Linux 5.11 the kernel charges each map and program to the real user of the
//! process that creates it (`bpf_charge_memlock`, kernel/bpf/syscall.c), and compares what all of that user's processes
//! hold with the creator's own `RLIMIT_MEMLOCK`. Later kernels charge memory cgroups.

use std::{
    fmt::{self, Display},
    sync::LazyLock,
};

use rustix::{
    process::{Resource, Rlimit, Uid, getrlimit, getuid, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_res_uid},
};

use super::{
    Call as _, SysError,
    verifier::{self, FeatureSupport},
};

/// A limit that the kernel compares a user's maps and programs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// Bytes; `None` without a limit.
    pub limit: Option<u64>,
    /// The user who is charged.
    pub uid: u32,
}

impl Memlock {
    /// The limit of this process, if the kernel charges users.
    pub fn in_force() -> Option<Self> {
        static IS_CHARGED: LazyLock<bool> = LazyLock::new(|| verifier::memory_cgroups() == FeatureSupport::Lacks);
        let limit = getrlimit(Resource::Memlock).current;
        IS_CHARGED.then(|| Self { limit, uid: getuid().as_raw() })
    }
}

impl Display for Memlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => write!(f, "RLIMIT_MEMLOCK is {} KiB", limit / 1024)?,
            None => write!(f, "RLIMIT_MEMLOCK is unlimited")?,
        }
        write!(f, ", and before Linux 5.11 it bounds the maps and programs of all processes of user {}", self.uid)
    }
}

/// The capabilities that [`prepare`] uses and gives up.
const TEMPORARY: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SYS_RESOURCE);

/// Prepares this process, which must have one thread, to hold maps and programs: takes the limit away if it may. With
/// `own`, it also takes that real user ID, so that nobody else's maps count, and gives up the capabilities that this
/// needs.
///
/// The effective user stays the same, and with it the owner of what the process creates, and its other capabilities.
pub fn prepare(own: Option<u32>) -> Result<(), SysError> {
    let charged = Memlock::in_force();
    if charged.is_some_and(|memlock| memlock.limit.is_some()) {
        let unlimited = Rlimit { current: None, maximum: None };
        if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
            tracing::debug!(%error, "the limit of locked memory stays as it is");
        }
    }
    let Some(uid) = own else { return Ok(()) };
    if charged.is_some() {
        take_user(uid)?;
    }
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None).call(|| "capget")?;
    let kept = CapabilitySets {
        effective: effective - TEMPORARY,
        permitted: permitted - TEMPORARY,
        inheritable: inheritable - TEMPORARY,
    };
    set_capabilities(None, kept).call(|| "capset")
}

fn take_user(uid: u32) -> Result<(), SysError> {
    set_thread_res_uid(Uid::from_raw(uid), None, None)
        .call(|| format!("setresuid of the real user {uid} (it needs CAP_SETUID)"))
}
