//! Questions to the verifier: it is given programs of a few instructions, and answers by taking or refusing them.

use std::{
    fs, io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::sleep,
    time::Duration,
};

use super::{
    bpf::{self, PROBE_NAME, ProgAttr},
    facts,
};
use crate::model::kernel::ProgramKind;

/// The kernel's answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureSupport {
    /// The kernel has it.
    Has,
    /// It lacks it.
    Lacks,
    /// The kernel does not tell.
    Unknown,
}

impl FeatureSupport {
    pub(super) const fn from_bool(has: bool) -> Self {
        if has { Self::Has } else { Self::Lacks }
    }

    /// The answer by an errno: the kernel refuses by EINVAL whatever it does not know.
    pub(super) const fn refused(errno: Option<i32>) -> Self {
        match errno {
            Some(libc::EINVAL) => Self::Lacks,
            _ => Self::Unknown,
        }
    }

    /// The answer by the error of a call without a valid descriptor: a kernel that knows the call says EBADF.
    pub(super) fn by_bad_fd(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EBADF) => Self::Has,
            errno => Self::refused(errno),
        }
    }
}

/// `BPF_PROG_TYPE_SOCK_OPS`, `BPF_CGROUP_SOCK_OPS`
pub(super) const SOCK_OPS: ProgramKind = ProgramKind { prog_type: 13, attach_type: 3 };
/// `r0 = 1`: a return value that programs of every type may have.
pub(super) const MOV: (u8, u8, i32) = (0xb7, 0, 1);
/// `r0 = r2`, which is uninitialized at a program's start
const MOV_UNSET: (u8, u8, i32) = (0xbf, 2, 0);
/// `exit`
pub(super) const EXIT: (u8, u8, i32) = (0x95, 0, 0);
/// `r0 = atomic_fetch_add((u64 *)(r0 + 0), r0)`
const FETCH: (u8, u8, i32) = (0xdb, 0, 1);
/// `r0 = bswap64 r0`
const BSWAP: (u8, u8, i32) = (0xd7, 0, 64);
/// `bpf_probe_read_kernel`
const PROBE_READ_KERNEL: i32 = 113;
/// `bpf_get_netns_cookie`
pub(super) const GET_NETNS_COOKIE: i32 = 122;
/// `bpf_ktime_get_coarse_ns`
const KTIME_GET_COARSE_NS: i32 = 160;

/// The call of a helper.
const fn call(helper: i32) -> (u8, u8, i32) {
    (0x85, 0, helper)
}

/// Loads a program from instructions: operation, source register and constant.
pub(super) fn prog_load(kind: ProgramKind, code: &[(u8, u8, i32)], log: &mut [u8]) -> io::Result<OwnedFd> {
    let instruction = |&(code, source, imm): &(u8, u8, i32)| bpf::instruction(code, source << 4, 0, imm);
    let code: Vec<u8> = code.iter().flat_map(instruction).collect();
    let ProgramKind { prog_type, attach_type } = kind;
    let attr = ProgAttr {
        name: PROBE_NAME,
        prog_type,
        expected_attach_type: attach_type,
        code: &code,
        license: c"Apache-2.0",
        kernel_version: 0,
        btf: None,
    };
    retry_on_eperm(|| bpf::prog_load(&attr, log))
}

/// Asks again for a while if the kernel says EPERM. Kernels that charge users (before 5.11) go on counting a program
/// that was dropped until a grace period has passed, so that many questions can go beyond a small limit.
pub(super) fn retry_on_eperm<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const TURNS: u32 = 20;
    /// Whether the kernel has said so all the while.
    static IS_FULL: AtomicBool = AtomicBool::new(false);
    for _ in 0..TURNS {
        match ask() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && !IS_FULL.load(Relaxed) && is_capable() => {
                sleep(Duration::from_millis(5));
            }
            answer => return answer,
        }
    }
    IS_FULL.store(true, Relaxed);
    ask()
}

/// Probes whether a verifier log that is too long for its buffer keeps its end, where the refusal is.
pub(super) fn verifier_log_end() -> FeatureSupport {
    let mut log = [0; 128];
    let code = [MOV, MOV, MOV, MOV, MOV, MOV, MOV, MOV, MOV_UNSET, EXIT];
    match prog_load(SOCK_OPS, &code, &mut log) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
            FeatureSupport::from_bool(String::from_utf8_lossy(&log).contains("!read_ok"))
        }
        _ => FeatureSupport::Unknown,
    }
}

/// Probes whether the kernel charges the memory of maps and programs to memory cgroups, as it does since 5.11, and not
/// to users. libbpf (`probe_memcg_account`) asks for the same helper, which came with that release.
pub(super) fn memory_cgroups() -> FeatureSupport {
    match prog_load(SOCK_OPS, &[call(KTIME_GET_COARSE_NS), MOV, EXIT], &mut []).map_err(|error| error.raw_os_error()) {
        Ok(_) => FeatureSupport::Has,
        // A kernel that charges users does so before it verifies the program, and says EPERM beyond the limit.
        Err(Some(libc::EPERM))
            if is_capable() && FeatureSupport::by_bad_fd(&bpf::link_update_nothing()) == FeatureSupport::Has =>
        {
            FeatureSupport::Lacks
        }
        Err(errno) => FeatureSupport::refused(errno),
    }
}

/// Returns whether the kernel is locked down so that programs can't read its memory, as far as it tells:
/// `lockdown=confidentiality`. The file that says so is not in containers; there the verifier does.
pub fn is_locked_down() -> bool {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(mode) => mode.contains("[confidentiality]"),
        Err(_) => is_capable() && has_helper(SOCK_OPS, PROBE_READ_KERNEL) == Some(false),
    }
}

/// Returns whether the kernel lets programs of a kind call a helper (`enum bpf_func_id`). `None` if it does not tell.
pub fn has_helper(kind: ProgramKind, helper: i32) -> Option<bool> {
    let mut log = [0; 4096];
    let Err(refused) = prog_load(kind, &[call(helper), MOV, EXIT], &mut log) else { return Some(true) };
    let log = String::from_utf8_lossy(&log);
    let words = ["unknown func", "invalid func", "cannot use helper"];
    match refused.raw_os_error() {
        Some(libc::EINVAL) if words.into_iter().any(|words| log.contains(words)) => Some(false),
        // The helper's arguments are not there.
        Some(libc::EACCES | libc::EINVAL) if log.contains("call ") => Some(true),
        _ => None,
    }
}

/// Probes whether the verifier knows an instruction, which reads r0 and may take it for an address.
fn knows(instruction: (u8, u8, i32)) -> FeatureSupport {
    match prog_load(SOCK_OPS, &[MOV, instruction, MOV, EXIT], &mut []).map_err(|error| error.raw_os_error()) {
        Ok(_) | Err(Some(libc::EACCES)) => FeatureSupport::Has,
        Err(errno) => FeatureSupport::refused(errno),
    }
}

/// Probes whether the verifier knows atomic operations that give the value of before (Linux 5.12).
pub fn atomic_fetch() -> FeatureSupport {
    knows(FETCH)
}

/// Probes whether the verifier knows the fourth version of the instruction set (Linux 6.6).
pub fn instructions_v4() -> FeatureSupport {
    knows(BSWAP)
}

fn is_capable() -> bool {
    facts::lacking_capabilities().is_ok_and(|lacking| lacking.is_empty())
}
