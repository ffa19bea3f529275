//! The run of a program on a packet, which changes nothing on the node.

use std::os::fd::BorrowedFd;

use aya_obj::generated::bpf_cmd;

use super::call::{bpf, raw, zeroed};
use crate::kernel::{Call as _, SysError};

/// `BPF_PROG_TEST_RUN`: runs a program on a packet; returns what it returns.
pub fn prog_test_run(program: BorrowedFd<'_>, packet: &[u8]) -> Result<u32, SysError> {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
    let test = unsafe { &mut attr.test };
    test.prog_fd = raw(program);
    test.data_in = packet.as_ptr() as u64;
    test.data_size_in = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).call(|| "BPF_PROG_TEST_RUN")?;
    // SAFETY: the kernel wrote the member of the union that was set above.
    Ok(unsafe { attr.test.retval })
}
