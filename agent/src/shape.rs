//! `Shape`: what two maps must have in common for one to carry the other's content. Pure.

use std::fmt;

use aya_obj::generated::bpf_map_type;

use crate::kernel::{facts::Machine, info::MapInfo};

/// `BPF_F_NO_COMMON_LRU`: each processor has an LRU list of its own.
const BPF_F_NO_COMMON_LRU: u32 = 1 << 1;
/// `BPF_F_RDONLY_PROG`: programs only read it.
const BPF_F_RDONLY_PROG: u32 = 1 << 7;

/// A map's shape, after the kernel's and the loader's defaulting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// `enum bpf_map_type`
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `BPF_F_*`
    pub flags: u32,
}

impl Shape {
    /// That of a map in the kernel.
    pub const fn of(map: &MapInfo) -> Self {
        let MapInfo { map_type, key_size, value_size, max_entries, flags, .. } = *map;
        Self { map_type, key_size, value_size, max_entries, flags }
    }

    /// What the loader and the kernel make of a declared shape, as libbpf does it: a ring buffer's size is rounded up to
    /// a power of two of pages and has no value size, and a perf event array that names no size gets one entry a processor.
    /// The kernel itself gives each processor's own LRU list as many entries (`htab_map_alloc`), and lets programs only read
    /// maps of devices (`dev_map_init_map`).
    pub fn settled(self, machine: &Machine) -> Self {
        match bpf_map_type::try_from(self.map_type) {
            Ok(bpf_map_type::BPF_MAP_TYPE_RINGBUF | bpf_map_type::BPF_MAP_TYPE_USER_RINGBUF) => Self {
                max_entries: match self.max_entries {
                    0 => 0,
                    bytes => bytes
                        .div_ceil(machine.page)
                        .checked_next_power_of_two()
                        .and_then(|pages| pages.checked_mul(machine.page))
                        .unwrap_or(bytes),
                },
                value_size: 0,
                ..self
            },
            Ok(bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY) if !(1..=machine.cpus).contains(&self.max_entries) => {
                Self { max_entries: machine.cpus, ..self }
            }
            Ok(bpf_map_type::BPF_MAP_TYPE_LRU_HASH | bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH)
                if self.flags & BPF_F_NO_COMMON_LRU != 0 && machine.cpus > 0 =>
            {
                let up = self.max_entries.checked_next_multiple_of(machine.cpus);
                Self { max_entries: up.unwrap_or(self.max_entries - self.max_entries % machine.cpus), ..self }
            }
            Ok(bpf_map_type::BPF_MAP_TYPE_DEVMAP | bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH) => {
                Self { flags: self.flags | BPF_F_RDONLY_PROG, ..self }
            }
            _ => self,
        }
    }

    /// The bytes that a map of this shape holds once it is full, near enough to bound them (`*_map_mem_usage` in the
    /// kernel's kernel/bpf). Maps that keep something with each socket, cgroup or task have no such bound of their own.
    pub fn bytes(&self, machine: &Machine) -> u64 {
        use bpf_map_type::*;
        /// `struct htab_elem` before the key, and a bucket.
        const ELEMENT: u64 = 48;
        const BUCKET: u64 = 16;
        let padded = |size: u32| u64::from(size).next_multiple_of(8);
        let (entries, cpus, page) = (u64::from(self.max_entries), u64::from(machine.cpus), u64::from(machine.page));
        let (key, value) = (padded(self.key_size), padded(self.value_size));
        let buckets = entries.next_power_of_two() * BUCKET;
        let each = |size: u64| entries.saturating_mul(size);
        match bpf_map_type::try_from(self.map_type) {
            Ok(BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_QUEUE | BPF_MAP_TYPE_STACK | BPF_MAP_TYPE_STACK_TRACE) => each(value),
            Ok(
                BPF_MAP_TYPE_PROG_ARRAY
                | BPF_MAP_TYPE_PERF_EVENT_ARRAY
                | BPF_MAP_TYPE_CGROUP_ARRAY
                | BPF_MAP_TYPE_ARRAY_OF_MAPS
                | BPF_MAP_TYPE_SOCKMAP,
            ) => each(8),
            Ok(BPF_MAP_TYPE_PERCPU_ARRAY) => each(8 + value.saturating_mul(cpus)),
            Ok(BPF_MAP_TYPE_PERCPU_HASH | BPF_MAP_TYPE_LRU_PERCPU_HASH) => {
                each(ELEMENT + key + 8 + value.saturating_mul(cpus)).saturating_add(buckets)
            }
            Ok(BPF_MAP_TYPE_LPM_TRIE) => each(ELEMENT + key + value),
            Ok(BPF_MAP_TYPE_RINGBUF | BPF_MAP_TYPE_USER_RINGBUF) => entries.saturating_add(3 * page),
            Ok(BPF_MAP_TYPE_ARENA) => each(page),
            Ok(
                BPF_MAP_TYPE_SK_STORAGE
                | BPF_MAP_TYPE_INODE_STORAGE
                | BPF_MAP_TYPE_TASK_STORAGE
                | BPF_MAP_TYPE_CGRP_STORAGE,
            ) => 0,
            _ => each(ELEMENT + key + value).saturating_add(buckets),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map_type, key_size, value_size, max_entries, flags } = self;
        let name = sockeye_ebpf::kinds::map_type::name(*map_type);
        write!(f, "{name} key {key_size}B value {value_size}B max_entries {max_entries} flags {flags:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { page: 4096, cpus: 4 };

    fn entries(map_type: bpf_map_type, max_entries: u32) -> u32 {
        Shape { map_type: map_type as u32, max_entries, ..Shape::default() }.settled(&MACHINE).max_entries
    }

    #[test]
    fn ring_buffers_are_powers_of_two_of_pages() {
        use bpf_map_type::BPF_MAP_TYPE_RINGBUF as RING;
        for (declared, settled) in
            [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (12_288, 16_384), (u32::MAX, u32::MAX)]
        {
            assert_eq!(entries(RING, declared), settled, "{declared}");
        }
    }

    #[test]
    fn programs_only_read_maps_of_devices() {
        use bpf_map_type::{BPF_MAP_TYPE_ARRAY as ARRAY, BPF_MAP_TYPE_DEVMAP as DEVMAP};
        let flags = |of: bpf_map_type| Shape { map_type: of as u32, ..Shape::default() }.settled(&MACHINE).flags;
        assert_eq!((flags(DEVMAP), flags(ARRAY)), (0x80, 0));
    }

    #[test]
    fn all_of_a_shape_counts() {
        let shape = Shape { map_type: 1, key_size: 4, value_size: 8, max_entries: 10, flags: 0 };
        for other in [
            Shape { map_type: 5, ..shape },
            Shape { key_size: 8, ..shape },
            Shape { value_size: 16, ..shape },
            Shape { max_entries: 11, ..shape },
            Shape { flags: 1, ..shape },
        ] {
            assert_ne!(shape, other);
            assert_ne!(shape.to_string(), other.to_string(), "both are shown");
        }
    }

    #[test]
    fn perf_event_arrays_get_an_entry_a_processor() {
        use bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY as PERF;
        for (declared, settled) in [(0, 4), (2, 2), (4, 4), (5, 4)] {
            assert_eq!(entries(PERF, declared), settled, "{declared}");
        }
        assert_eq!(entries(bpf_map_type::BPF_MAP_TYPE_ARRAY, 0), 0);
    }

    #[test]
    fn lists_of_each_processor_have_equally_many_entries() {
        let map_type = bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32;
        let settled = |max_entries, flags| {
            Shape { map_type, max_entries, flags, ..Shape::default() }.settled(&MACHINE).max_entries
        };
        assert_eq!([1, 4, 5].map(|n| settled(n, BPF_F_NO_COMMON_LRU)), [4, 4, 8]);
        assert_eq!(settled(u32::MAX, BPF_F_NO_COMMON_LRU), u32::MAX - 3);
        assert_eq!(settled(5, 0), 5);
    }
}
