//! The elements of maps, singly and in batches.
//!
//! The kernel reads and writes as many bytes as the map's keys and values have: callers give slices of these sizes, and
//! [`map_entries`](crate::kernel::map_entries) checks them against the map's own info.

use std::{io, os::fd::BorrowedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::call::{bpf, raw, zeroed};

/// The attribute that names one element of a map.
fn element(map: BorrowedFd<'_>, key: Option<&[u8]>) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = raw(map);
    elem.key = key.map_or(0, |key| key.as_ptr() as u64);
    attr
}

/// `BPF_MAP_LOOKUP_ELEM`: reads the value of a key, or, without a key, the next one of a queue. False if there is none.
pub fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = element(map, Some(key).filter(|key| !key.is_empty()));
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    found(bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr))
}

/// `BPF_MAP_GET_NEXT_KEY`: reads the key after another one, or the first key. False at the end. After a key that the
/// map has no longer, most maps begin anew.
pub fn map_next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attr = element(map, key);
    attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    found(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr))
}

/// `BPF_MAP_DELETE_ELEM`: deletes a key. False if there was none.
pub fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    found(bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut element(map, Some(key))))
}

fn found(answer: io::Result<i64>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The memory for one batch: so many keys and values, one after the other.
pub struct Batch<'a> {
    /// The keys.
    pub keys: &'a mut [u8],
    /// The values; empty for a deletion.
    pub values: &'a mut [u8],
    /// The number of elements.
    pub count: u32,
}

impl Batch<'_> {
    fn attr(&mut self, map: BorrowedFd<'_>) -> bpf_attr {
        let mut attr = zeroed();
        // SAFETY: as above.
        let batch = unsafe { &mut attr.batch };
        batch.map_fd = raw(map);
        batch.keys = self.keys.as_mut_ptr() as u64;
        batch.values = if self.values.is_empty() { 0 } else { self.values.as_mut_ptr() as u64 };
        batch.count = self.count;
        attr
    }
}

/// The end of a batched read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There may be more elements.
    Maybe,
    /// All have been read.
    None,
}

/// `BPF_MAP_LOOKUP_BATCH`: reads the next elements; returns how many. `position` is where the last call stopped, and
/// becomes where this one does; it has as many bytes as a key, and at least four. `is_first` says that there was none.
pub fn map_lookup_batch(
    map: BorrowedFd<'_>,
    position: &mut [u8],
    is_first: bool,
    mut into: Batch<'_>,
) -> io::Result<(u32, More)> {
    let mut attr = into.attr(map);
    attr.batch.in_batch = if is_first { 0 } else { position.as_ptr() as u64 };
    attr.batch.out_batch = position.as_mut_ptr() as u64;
    let answer = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
    // SAFETY: as above; the kernel writes the number of elements that it read.
    let read = unsafe { attr.batch.count }.min(into.count);
    match answer {
        Ok(_) => Ok((read, More::Maybe)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((read, More::None)),
        Err(error) => Err(error),
    }
}

/// `BPF_MAP_UPDATE_BATCH`: writes elements in their order.
pub fn map_update_batch(map: BorrowedFd<'_>, mut elements: Batch<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut elements.attr(map)).map(drop)
}

/// `BPF_MAP_DELETE_BATCH`: deletes keys in their order, until one that the map has not.
pub fn map_delete_batch(map: BorrowedFd<'_>, mut keys: Batch<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut keys.attr(map)).map(drop)
}
