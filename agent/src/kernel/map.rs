//! Creates a map from the object's definition and its final sizes, and writes its first content.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::{EbpfSectionKind, Map, generated::bpf_map_type};
use sockeye_ebpf::values::settings::Encoded;

use super::{
    Call as _, SysError,
    bpf::{self, MapAttr},
};

/// Creates the map that the object defines and fills it. Freezes it if it is read-only data.
pub fn create(name: &str, map: &Map, entries: &[Encoded], btf: Option<BorrowedFd<'_>>) -> Result<OwnedFd, SysError> {
    let inner = match map.inner() {
        // The kernel copies the shape of the inner maps from an example and keeps no reference to it.
        Some(inner) => Some(bpf::map_create(&attr(name, &inner, btf, None))?),
        None => None,
    };
    let fd = bpf::map_create(&attr(name, map, btf, inner.as_ref().map(|fd| fd.as_fd())))?;
    if !map.data().is_empty() {
        update(name, map, fd.as_fd(), &0u32.to_le_bytes(), map.data())?;
    }
    for (key, value) in entries {
        update(name, map, fd.as_fd(), key, value)?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        bpf::map_freeze(fd.as_fd())?;
    }
    Ok(fd)
}

/// Puts a map or program into a slot of a map that holds maps or programs.
pub fn put(name: &str, map: &Map, fd: BorrowedFd<'_>, slot: u32, entry: BorrowedFd<'_>) -> Result<(), SysError> {
    // Descriptors are never negative.
    update(name, map, fd, &slot.to_le_bytes(), &entry.as_raw_fd().to_le_bytes())
}

/// Writes an entry; an empty key means none. The kernel reads as many bytes as the map's keys and values have, so the
/// lengths are checked here.
fn update(name: &str, map: &Map, fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<(), SysError> {
    if key.len() != map.key_size() as usize || value.len() != map.value_size() as usize {
        let call = format!("filling of map {name}: the entry's key or value is not as long as the map's");
        return Err(SysError { call, source: io::ErrorKind::InvalidInput.into() });
    }
    let values;
    let value = if is_per_cpu(map) {
        // The kernel reads one value per possible CPU, each padded to eight bytes.
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).call(|| "read of the possible CPUs")?;
        let mut padded = value.to_vec();
        padded.resize(value.len().next_multiple_of(8), 0);
        values = padded.repeat(cpus);
        &values
    } else {
        value
    };
    bpf::map_update(fd, (!key.is_empty()).then_some(key), value)
}

fn is_per_cpu(map: &Map) -> bool {
    use bpf_map_type::*;
    let per_cpu = [BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH];
    bpf_map_type::try_from(map.map_type()).is_ok_and(|kind| per_cpu.contains(&kind))
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

/// The BTF types of key and value, if the kernel accepts them for that type of map. Many types refuse them (libbpf's
/// `bpf_object__create_map`, `map_is_btf_capable` in the kernel).
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
        // The kernel accepts both or neither.
        _ => Some((btf.def.btf_key_type_id, btf.def.btf_value_type_id)).filter(|(key, value)| *key != 0 && *value != 0),
    }
}
