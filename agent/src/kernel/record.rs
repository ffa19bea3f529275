//! Bytes that outlive the agent: a map that no program uses, with them as its content. bpffs holds no files.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya_obj::generated::bpf_map_type;

use super::{
    Call as _, Fd, SysError,
    bpf::{self, MapAttr},
    info,
};

/// The size of one element: longer ones would need contiguous memory of the kernel's.
const ELEMENT: usize = 32 << 10;

/// Makes a map with these bytes, padded by zeroes.
pub fn create(name: &str, bytes: &[u8]) -> Result<Fd, SysError> {
    let element = bytes.len().clamp(8, ELEMENT).next_multiple_of(8);
    let count = bytes.len().div_ceil(element).max(1);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let attr = MapAttr {
        name,
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: number(element),
        max_entries: number(count),
        ..MapAttr::default()
    };
    let fd = bpf::map_create(&attr)?;
    for (index, chunk) in bytes.chunks(element).enumerate() {
        let mut value = chunk.to_vec();
        value.resize(element, 0);
        bpf::map_update(fd.as_fd(), Some(&number(index).to_ne_bytes()), &value)?;
    }
    Ok(fd.into())
}

/// Reads the bytes of such a map.
pub fn read(fd: BorrowedFd<'_>) -> Result<Vec<u8>, SysError> {
    let map = info::map(fd)?;
    if map.map_type != bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 {
        return Ok(Vec::new());
    }
    let element = map.value_size as usize;
    let mut bytes = Vec::new();
    for index in 0..map.max_entries {
        let mut value = vec![0; element];
        bpf::map_lookup(fd, &index.to_ne_bytes(), &mut value).call(|| "BPF_MAP_LOOKUP_ELEM")?;
        bytes.extend(value);
    }
    Ok(bytes)
}
