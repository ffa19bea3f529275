//! The bpf(2) system call.
//!
//! `union bpf_attr` is zeroed before use. The kernel accepts bytes that it does not know if they are zero
//! (`bpf_check_uarg_tail_zero`), so one binary runs on older kernels too.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use crate::kernel::fault;

pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which all-zero is valid.
    unsafe { mem::zeroed() }
}

/// Makes the system call. The attribute's pointers must be valid for all that `cmd` reads and writes; each caller here
/// ensures that.
pub(super) fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    fault::point(|| format!("{cmd:?}"))?;
    // SAFETY: the kernel reads and writes `attr` within the size given, and the memory it points to, which the caller
    // borrows for the duration of the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Makes a system call that returns a descriptor.
pub(super) fn bpf_fd(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(cmd, attr)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: a descriptor that the kernel has just opened for us and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_COMMON_ATTRS`: the command has further arguments.
const COMMON_ATTRS: libc::c_long = 1 << 16;

/// `struct bpf_common_attr`, which is younger than aya's bindings.
#[repr(C)]
struct CommonAttr {
    log_buf: u64,
    log_size: u32,
    log_level: u32,
    log_true_size: u32,
    _padding: u32,
}

/// Makes a system call that returns a descriptor, and has the kernel say in a log why it refuses it.
pub(super) fn bpf_fd_logged(cmd: bpf_cmd, attr: &mut bpf_attr, log: &mut [u8]) -> io::Result<OwnedFd> {
    fault::point(|| format!("{cmd:?}"))?;
    let mut common = CommonAttr {
        log_buf: log.as_mut_ptr() as u64,
        log_size: u32::try_from(log.len()).unwrap_or(u32::MAX),
        log_level: 1,
        log_true_size: 0,
        _padding: 0,
    };
    let cmd = cmd as libc::c_long | COMMON_ATTRS;
    let (attr, size) = (std::ptr::from_mut(attr), size_of::<bpf_attr>());
    // SAFETY: as in `bpf`; the kernel writes the log within the size given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd,
            attr,
            size,
            std::ptr::from_mut(&mut common),
            mem::offset_of!(CommonAttr, _padding),
        )
    };
    let fd = if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: a descriptor that the kernel has just opened for us and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    fd.as_raw_fd() as u32
}
