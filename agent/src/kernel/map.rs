//! Creates a map as it is planned, and writes its first content.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use sockeye_ebpf::{
    kinds::map_type,
    link::{MapAttributes, PlannedMap},
};

use super::{
    SysError,
    bpf::{self, MapAttr},
    log::text,
    possible_cpus,
};
use crate::model::per_cpu::{PerCpuLayout, is_per_cpu};

/// The bytes of the kernel's log on a map that are read.
const LOG: usize = 4096;

/// `BPF_F_RDONLY`, `BPF_F_WRONLY`: what processes may do with a descriptor.
const F_RDONLY: u32 = 1 << 3;
const F_WRONLY: u32 = 1 << 4;

/// Creates a map with values of that size and fills it. Freezes it if it is constant. An error comes with the kernel's
/// log, which is empty before 7.2.
pub fn create(
    map: &PlannedMap<'_>,
    value_size: u32,
    btf: Option<BorrowedFd<'_>>,
    notes: &mut Vec<String>,
) -> Result<OwnedFd, (SysError, String)> {
    let plain = |error: SysError| (error, String::new());
    let inner = match &map.inner {
        // The kernel copies the shape of the inner maps from an example and keeps no reference to it.
        Some(inner) => Some(create_one(&format!("{}.inner", map.name), inner, (btf, None), notes)?),
        None => None,
    };
    let attributes = MapAttributes { value_size, ..map.attributes.clone() };
    let fd = create_one(map.name, &attributes, (btf, inner.as_ref().map(|fd| fd.as_fd())), notes)?;
    if let Some(data) = map.data.as_deref() {
        update(map.name, &attributes, fd.as_fd(), &0u32.to_le_bytes(), data).map_err(plain)?;
    }
    for (key, value) in map.entries {
        update(map.name, &attributes, fd.as_fd(), key, value).map_err(plain)?;
    }
    if map.is_frozen {
        bpf::map_freeze(fd.as_fd()).map_err(plain)?;
    }
    Ok(fd)
}

/// Creates one map. As in libbpf, a kernel that refuses the types of keys and values may take the map without.
fn create_one(
    name: &str,
    attributes: &MapAttributes,
    (btf, inner): (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>),
    notes: &mut Vec<String>,
) -> Result<OwnedFd, (SysError, String)> {
    let types = btf.zip(attributes.types).map(|(fd, (key, value))| (fd, key, value));
    let attr = attr(name, attributes, types, inner);
    let refused = match bpf::map_create(&attr) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    if types.is_some_and(|(_, key, value)| key != 0 || value != 0)
        && let Ok(fd) = bpf::map_create(&MapAttr { btf: None, ..attr.clone() })
    {
        notes.push(without_types(name, attributes.map_type, &refused));
        return Ok(fd);
    }
    let mut log = vec![0; LOG];
    match bpf::map_create_logged(&attr, &mut log) {
        Ok(fd) => Ok(fd),
        Err(_) => Err((refused, text(&log))),
    }
}

/// Says that a map has no types, and why.
fn without_types(name: &str, map_type: u32, refused: &SysError) -> String {
    // `map_check_btf`
    let why = match refused.is_unsupported() {
        true => format!(
            "maps of type {} can't have the spin lock, timer or other field of the kernel's that its values have",
            map_type::name(map_type)
        ),
        false => format!("the kernel does not take those of its keys or values ({})", refused.source),
    };
    format!("map {name} has no types, so bpftool prints its entries as bytes: {why}")
}

/// Puts a map or program into a slot of a map that holds maps or programs.
pub fn put(map: &PlannedMap<'_>, fd: BorrowedFd<'_>, slot: u32, entry: BorrowedFd<'_>) -> Result<(), SysError> {
    // Descriptors are never negative.
    update(map.name, &map.attributes, fd, &slot.to_le_bytes(), &entry.as_raw_fd().to_le_bytes())
}

/// Writes an entry; an empty key means none. The kernel reads as many bytes as the map's keys and values have, so the
/// lengths are checked here.
fn update(name: &str, map: &MapAttributes, fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<(), SysError> {
    if key.len() != map.key_size as usize || value.len() != map.value_size as usize {
        let call = format!("filling of map {name}: the entry's key or value is not as long as the map's");
        return Err(SysError { call, source: io::ErrorKind::InvalidInput.into() });
    }
    let values;
    let value = if is_per_cpu(map.map_type) {
        values = PerCpuLayout { value_size: value.len(), cpus: possible_cpus()? }.repeat(value);
        &values
    } else {
        value
    };
    bpf::map_update(fd, (!key.is_empty()).then_some(key), value)
}

fn attr<'a>(
    name: &'a str,
    map: &MapAttributes,
    btf: Option<(BorrowedFd<'a>, u32, u32)>,
    inner: Option<BorrowedFd<'a>>,
) -> MapAttr<'a> {
    MapAttr {
        name,
        map_type: map.map_type,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        // These two limit what the new descriptor may do, not the map, which forgets them
        // (`bpf_map_flags_retain_permanent`). With them the agent could not fill the map.
        flags: map.flags & !(F_RDONLY | F_WRONLY),
        numa_node: map.numa_node,
        extra: map.extra,
        btf,
        inner,
    }
}
