//! Commands on any BPF object: pin it, open its pin, read its info.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::LazyLock,
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::call::{bpf, bpf_fd, raw, zeroed};
use crate::kernel::{Call as _, SysError};

/// `BPF_F_PATH_FD`: a pin's path starts at a directory.
const F_PATH_FD: u32 = 1 << 14;

/// `BPF_OBJ_PIN`. The path starts at the directory `from`, if one is given.
pub fn obj_pin(object: BorrowedFd<'_>, from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<()> {
    let c_path = c_path(path)?;
    let mut attr = pin_attr(from, &c_path);
    attr.__bindgen_anon_4.bpf_fd = raw(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// `BPF_OBJ_GET`. The path starts at the directory `from`, if one is given.
pub fn obj_get(from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let c_path = c_path(path)?;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut pin_attr(from, &c_path))
}

/// Returns whether [`obj_pin`] and [`obj_get`] accept directories. Kernels before 6.5 refuse the flag before they read
/// the path.
pub fn takes_directories() -> bool {
    static TAKES: LazyLock<bool> = LazyLock::new(|| {
        let answer = obj_get(Some(rustix::fs::CWD), Path::new(""));
        answer.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    *TAKES
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// The attribute that names a pin. It must not outlive the path.
fn pin_attr(from: Option<BorrowedFd<'_>>, path: &CStr) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
    let pin = unsafe { &mut attr.__bindgen_anon_4 };
    pin.pathname = path.as_ptr() as u64;
    if let Some(from) = from {
        pin.file_flags = F_PATH_FD;
        pin.path_fd = from.as_raw_fd();
    }
    attr
}

/// `BPF_OBJ_GET_INFO_BY_FD` into a `struct bpf_*_info`. `T` must be the struct of the descriptor's kind.
///
/// # Safety
/// `T` is a plain struct of integers. Its pointers, if it has any, point to memory of the size that it says.
pub(in crate::kernel) unsafe fn obj_info<T>(object: BorrowedFd<'_>, info: &mut T) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above; the kernel writes at most `info_len` bytes.
    let get = unsafe { &mut attr.info };
    get.bpf_fd = raw(object);
    get.info_len = size_of::<T>() as u32;
    get.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop).call(|| "BPF_OBJ_GET_INFO_BY_FD")
}
