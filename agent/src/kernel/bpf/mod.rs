//! bpf(2): one function per command that the agent makes. Each returns the kernel's answer, nothing more.
//!
//! `union bpf_attr` is zeroed before use: the kernel takes bytes it does not know as long as they are zero
//! (`bpf_check_uarg_tail_zero`), so one binary runs on older kernels.
//!
//! | file | commands |
//! |---|---|
//! | this one | the call itself; pins, and what the kernel says of an object |
//! | `create` | what is made: maps, BTF, programs |
//! | `attach` | what runs where |
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

mod attach;
mod create;

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::LazyLock,
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{Call as _, SysError, fault};
pub use attach::{
    Attachments, F_BEFORE, MAX_PROGRAMS_PER_CGROUP, link_create, link_create_nowhere, link_detach, link_update,
    link_update_nothing, map_attach, map_detach, map_link, map_query, prog_query, prog_query_nowhere,
};
pub use create::{MapAttr, ProgAttr, ProgBtf, btf_load, map_create, map_freeze, map_update, prog_load};

/// `BPF_F_PATH_FD`: the path of a pin is from a directory.
const F_PATH_FD: u32 = 1 << 14;

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which all-zero is valid.
    unsafe { mem::zeroed() }
}

/// Makes the call. The attribute's pointers must be valid for what `cmd` reads and writes, which every caller here sees to.
fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    fault::point(|| format!("{cmd:?}"))?;
    // SAFETY: the kernel reads and writes `attr` within the size given, and the memory it points to, which the caller borrows
    // for the duration of the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// For commands that answer with a new descriptor; the kernel opens all of them close-on-exec.
fn bpf_fd(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(cmd, attr)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: a descriptor that the kernel has just opened for us and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    fd.as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// `BPF_OBJ_PIN`; the path is from the directory, where one is given.
pub fn obj_pin(object: BorrowedFd<'_>, from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<()> {
    let c_path = c_path(path)?;
    let mut attr = at(from, &c_path);
    attr.__bindgen_anon_4.bpf_fd = raw(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// `BPF_OBJ_GET`; the path is from the directory, where one is given.
pub fn obj_get(from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let c_path = c_path(path)?;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut at(from, &c_path))
}

/// Whether [`obj_pin`] and [`obj_get`] take directories: kernels before 6.5 refuse the flag before they look at the path.
pub fn takes_directories() -> bool {
    static TAKES: LazyLock<bool> = LazyLock::new(|| {
        let answer = obj_get(Some(rustix::fs::CWD), Path::new(""));
        answer.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    *TAKES
}

/// The attribute that names a pin, which must not outlive the path.
fn at(from: Option<BorrowedFd<'_>>, path: &CStr) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
    let at = unsafe { &mut attr.__bindgen_anon_4 };
    at.pathname = path.as_ptr() as u64;
    if let Some(from) = from {
        at.file_flags = F_PATH_FD;
        at.path_fd = from.as_raw_fd();
    }
    attr
}

/// `BPF_OBJ_GET_INFO_BY_FD` into a `struct bpf_*_info`. `T` must be the struct of the descriptor's kind.
///
/// # Safety
/// `T` is a plain struct of integers whose pointers, where it has any, point to memory of the size it says.
pub(super) unsafe fn obj_info<T>(object: BorrowedFd<'_>, info: &mut T) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above; the kernel writes at most `info_len` bytes.
    let get = unsafe { &mut attr.info };
    get.bpf_fd = raw(object);
    get.info_len = size_of::<T>() as u32;
    get.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop).call(|| "BPF_OBJ_GET_INFO_BY_FD")
}
