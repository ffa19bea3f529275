//! The sockets in a sockmap or sockhash: counts them, and takes them out.
//!
//! A sockhash lists the keys that are there. A sockmap lists all its keys, and tells user space which of them have a
//! socket only if its values have eight bytes (`sock_map_lookup_sys`). A program sees the sockets of any sockmap.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use sockeye_ebpf::kinds::map_type::SOCKHASH;

use super::{
    Call as _, SysError,
    bpf::{self, ProgAttr},
    info,
};
use crate::model::kernel::MapInfo;

/// `BPF_PROG_TYPE_SCHED_CLS`
const SCHED_CLS: u32 = 3;
/// The least length of a packet for such a program (`ETH_HLEN`).
const PACKET: usize = 14;

/// Counts the sockets in a map.
pub fn count(map: BorrowedFd<'_>) -> Result<u32, SysError> {
    let info = info::map(map)?;
    let sockets = match info.map_type {
        SOCKHASH => keys(map, &info)?.len(),
        _ if info.value_size == 8 => {
            let mut value = [0; 8];
            count_keys(&info, |key| bpf::map_lookup(map, key, &mut value).call(|| "BPF_MAP_LOOKUP_ELEM"))?
        }
        _ => {
            let looker = Looker::new(map)?;
            count_keys(&info, |key| looker.looks_up(key))?
        }
    };
    Ok(u32::try_from(sockets).unwrap_or(u32::MAX))
}

/// Takes all sockets out of a map. They go on as plain sockets, without what lay in the map's queues for them.
pub fn take_out(map: BorrowedFd<'_>) -> Result<(), SysError> {
    let info = info::map(map)?;
    let keys: Vec<Vec<u8>> = match info.map_type {
        SOCKHASH => keys(map, &info)?.into_iter().collect(),
        _ => (0..info.max_entries).map(|key| key.to_ne_bytes().to_vec()).collect(),
    };
    keys.iter().try_for_each(|key| match bpf::map_delete(map, key) {
        // There is no socket (`__sock_map_delete`).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        answer => answer.map(drop).call(|| "BPF_MAP_DELETE_ELEM"),
    })
}

/// Lists the keys of a sockhash. Where a socket leaves meanwhile, the kernel begins anew, so that keys come twice.
fn keys(map: BorrowedFd<'_>, info: &MapInfo) -> Result<BTreeSet<Vec<u8>>, SysError> {
    let mut keys = BTreeSet::new();
    let mut last: Option<Vec<u8>> = None;
    for _ in 0..u64::from(info.max_entries).saturating_mul(2) {
        let mut next = vec![0; info.key_size as usize];
        if !bpf::map_next_key(map, last.as_deref(), &mut next).call(|| "BPF_MAP_GET_NEXT_KEY")? {
            break;
        }
        keys.insert(next.clone());
        last = Some(next);
    }
    Ok(keys)
}

/// Counts the keys of a sockmap that have a socket.
fn count_keys(info: &MapInfo, mut has: impl FnMut(&[u8]) -> Result<bool, SysError>) -> Result<usize, SysError> {
    let mut sockets = 0;
    for key in 0..info.max_entries {
        sockets += usize::from(has(&key.to_ne_bytes())?);
    }
    Ok(sockets)
}

/// A program that says whether a key of a sockmap has a socket. It is attached nowhere; `BPF_PROG_TEST_RUN` runs it.
pub(super) struct Looker(OwnedFd);

impl Looker {
    pub(super) fn new(map: BorrowedFd<'_>) -> Result<Self, SysError> {
        /// Operation, registers (source above destination), offset and constant.
        type Instruction = (u8, u8, i16, i32);
        #[rustfmt::skip]
        let code: [Instruction; 15] = [
            // bpf_skb_load_bytes(r1, 0, fp - 4, 4)
            (0xb7, 0x02, 0, 0), (0xbf, 0xa3, 0, 0), (0x07, 0x03, 0, -4), (0xb7, 0x04, 0, 4), (0x85, 0, 0, 26),
            // r0 = bpf_map_lookup_elem(map, fp - 4)
            (0x18, 0x11, 0, map.as_raw_fd()), (0, 0, 0, 0), (0xbf, 0xa2, 0, 0), (0x07, 0x02, 0, -4), (0x85, 0, 0, 1),
            // if (r0) { bpf_sk_release(r0); r0 = 1; } return r0
            (0x15, 0x00, 3, 0), (0xbf, 0x01, 0, 0), (0x85, 0, 0, 86), (0xb7, 0x00, 0, 1), (0x95, 0, 0, 0),
        ];
        let bytes = |&(operation, registers, offset, constant): &Instruction| {
            bpf::instruction(operation, registers, offset, constant)
        };
        let code: Vec<u8> = code.iter().flat_map(bytes).collect();
        let attr = ProgAttr {
            name: "sockeye_count",
            prog_type: SCHED_CLS,
            expected_attach_type: 0,
            code: &code,
            license: c"Apache-2.0",
            kernel_version: 0,
            btf: None,
        };
        bpf::prog_load(&attr, &mut []).map(Self).call(|| "BPF_PROG_LOAD of the program that counts sockets")
    }

    pub(super) fn looks_up(&self, key: &[u8]) -> Result<bool, SysError> {
        let mut packet = [0; PACKET];
        for (to, from) in packet.iter_mut().zip(key) {
            *to = *from;
        }
        Ok(bpf::prog_test_run(self.0.as_fd(), &packet)? != 0)
    }
}
