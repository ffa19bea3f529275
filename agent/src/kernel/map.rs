//! A map's creation: from the object's definition and the settled size to `BPF_MAP_CREATE`, then its first content.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::{EbpfSectionKind, Map, generated::bpf_map_type};

use super::{
    SysError,
    bpf::{self, MapAttr},
};

/// Creates the map that the object defines, with the settled sizes, and fills and freezes it where it is global data.
pub fn create(name: &str, map: &Map, btf: Option<BorrowedFd<'_>>) -> Result<OwnedFd, SysError> {
    let inner = match map.inner() {
        // The kernel wants a map of the inner shape to take the shape from; it keeps no reference to it.
        Some(inner) => Some(bpf::map_create(&attr(name, &inner, btf, None))?),
        None => None,
    };
    if !map.data().is_empty() && map.data().len() != map.value_size() as usize {
        // The kernel reads as many bytes as the map's values have.
        let call = format!("filling of map {name}, whose values are not as long as its data");
        return Err(SysError { call, source: io::ErrorKind::InvalidInput.into() });
    }
    let fd = bpf::map_create(&attr(name, map, btf, inner.as_ref().map(|fd| fd.as_fd())))?;
    if !map.data().is_empty() {
        bpf::map_fill(fd.as_fd(), map.data())?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        bpf::map_freeze(fd.as_fd())?;
    }
    Ok(fd)
}

fn attr<'a>(name: &'a str, map: &Map, btf: Option<BorrowedFd<'a>>, inner: Option<BorrowedFd<'a>>) -> MapAttr<'a> {
    MapAttr {
        name,
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
        extra: map.map_extra(),
        btf: btf.and_then(|fd| btf_types(map).map(|(key, value)| (fd, key, value))),
        inner,
    }
}

/// The BTF types of key and value, where the kernel takes them for that type of map: many types refuse them
/// (libbpf's `bpf_object__create_map`, `map_is_btf_capable` in the kernel).
fn btf_types(map: &Map) -> Option<(u32, u32)> {
    use bpf_map_type::*;
    let Map::Btf(btf) = map else { return None };
    match bpf_map_type::try_from(map.map_type()) {
        Ok(
            BPF_MAP_TYPE_PERF_EVENT_ARRAY
            | BPF_MAP_TYPE_CGROUP_ARRAY
            | BPF_MAP_TYPE_STACK_TRACE
            | BPF_MAP_TYPE_ARRAY_OF_MAPS
            | BPF_MAP_TYPE_HASH_OF_MAPS
            | BPF_MAP_TYPE_DEVMAP
            | BPF_MAP_TYPE_DEVMAP_HASH
            | BPF_MAP_TYPE_CPUMAP
            | BPF_MAP_TYPE_XSKMAP
            | BPF_MAP_TYPE_SOCKMAP
            | BPF_MAP_TYPE_SOCKHASH
            | BPF_MAP_TYPE_QUEUE
            | BPF_MAP_TYPE_STACK
            | BPF_MAP_TYPE_RINGBUF,
        ) => None,
        Ok(BPF_MAP_TYPE_BLOOM_FILTER) => Some((0, btf.def.btf_value_type_id)),
        _ => Some((btf.def.btf_key_type_id, btf.def.btf_value_type_id)),
    }
}
