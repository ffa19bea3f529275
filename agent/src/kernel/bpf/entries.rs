//! Commands on the entries of a map, and the run of a program that reads them.

use std::{io, os::fd::BorrowedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::call::{bpf, raw, zeroed};
use crate::kernel::{Call as _, SysError};

/// `BPF_MAP_GET_NEXT_KEY`: writes the key after one, or the first, into `next`; returns whether there is one. Keys must
/// have as many bytes as the map's.
pub fn map_next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool, SysError> {
    let mut attr = entry(map, key.map_or(0, |key| key.as_ptr() as u64));
    // SAFETY: every member of the union is plain integers, zeroed above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    if_there(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr)).call(|| "BPF_MAP_GET_NEXT_KEY")
}

/// `BPF_MAP_LOOKUP_ELEM`: reads a value; returns whether there is one. Key and value must have as many bytes as the
/// map's.
pub fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> Result<bool, SysError> {
    let mut attr = entry(map, key.as_ptr() as u64);
    // SAFETY: as above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    if_there(bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)).call(|| "BPF_MAP_LOOKUP_ELEM")
}

/// `BPF_MAP_DELETE_ELEM`; returns whether there was one. A sockmap says EINVAL where it has no socket
/// (`__sock_map_delete`). The key must have as many bytes as the map's.
pub fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> Result<bool, SysError> {
    let answer = bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut entry(map, key.as_ptr() as u64));
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        answer => if_there(answer).call(|| "BPF_MAP_DELETE_ELEM"),
    }
}

/// `BPF_PROG_TEST_RUN`: runs a program on a packet; returns what it returns.
pub fn prog_test_run(program: BorrowedFd<'_>, packet: &[u8]) -> Result<u32, SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let test = unsafe { &mut attr.test };
    test.prog_fd = raw(program);
    test.data_in = packet.as_ptr() as u64;
    test.data_size_in = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).call(|| "BPF_PROG_TEST_RUN")?;
    // SAFETY: the kernel wrote the member of the union that was set above.
    Ok(unsafe { attr.test.retval })
}

fn entry(map: BorrowedFd<'_>, key: u64) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: as above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = raw(map);
    elem.key = key;
    attr
}

/// Turns ENOENT into `false`.
fn if_there(answer: io::Result<i64>) -> io::Result<bool> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        answer => answer.map(|_| true),
    }
}
