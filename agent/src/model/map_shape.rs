//! `MapShape`: the type, sizes and flags that two maps must share for the one to take over the other's content. Pure.

use std::fmt;

use aya_obj::generated::bpf_map_type;

use super::kernel::{Machine, MapInfo};

/// Lets the descriptor of a map's creation read it, or write it, and not the other.
const BPF_F_RDONLY: u32 = 1 << 3;
const BPF_F_WRONLY: u32 = 1 << 4;
/// Gives each processor its own LRU list.
const BPF_F_NO_COMMON_LRU: u32 = 1 << 1;
/// Lets programs read the map and not write it.
const BPF_F_RDONLY_PROG: u32 = 1 << 7;

/// The shape of a map, with the defaults of the loader and the kernel applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// The size of a key in bytes.
    pub key_size: u32,
    /// The size of a value in bytes.
    pub value_size: u32,
    /// The highest number of entries; for a ring buffer, its size in bytes.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl MapShape {
    /// Returns the shape of a map in the kernel.
    pub const fn of(map: &MapInfo) -> Self {
        let MapInfo { map_type, key_size, value_size, max_entries, flags, .. } = *map;
        Self { map_type, key_size, value_size, max_entries, flags }
    }

    /// Applies the defaults of the loader and the kernel to a declared shape.
    ///
    /// - As in libbpf, the size of a ring buffer is rounded up to a power of two of pages, and its value size is 0.
    /// - As in libbpf, a perf event array without a size gets one entry per processor.
    /// - The kernel gives all processors' own LRU lists equally many entries (`htab_map_alloc`).
    /// - A map forgets the flags that limit what the descriptor of its creation may do
    ///   (`bpf_map_flags_retain_permanent` in kernel/bpf/syscall.c).
    /// - The kernel makes device maps read-only for programs (`dev_map_init_map`).
    pub fn normalized(self, machine: &Machine) -> Self {
        let this = Self { flags: self.flags & !(BPF_F_RDONLY | BPF_F_WRONLY), ..self };
        match bpf_map_type::try_from(this.map_type) {
            Ok(bpf_map_type::BPF_MAP_TYPE_RINGBUF | bpf_map_type::BPF_MAP_TYPE_USER_RINGBUF) => Self {
                max_entries: match this.max_entries {
                    0 => 0,
                    bytes => bytes
                        .div_ceil(machine.page)
                        .checked_next_power_of_two()
                        .and_then(|pages| pages.checked_mul(machine.page))
                        .unwrap_or(bytes),
                },
                value_size: 0,
                ..this
            },
            Ok(bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY) if !(1..=machine.cpus).contains(&this.max_entries) => {
                Self { max_entries: machine.cpus, ..this }
            }
            Ok(bpf_map_type::BPF_MAP_TYPE_LRU_HASH | bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH)
                if this.flags & BPF_F_NO_COMMON_LRU != 0 && machine.cpus > 0 =>
            {
                let rounded_up = this.max_entries.checked_next_multiple_of(machine.cpus);
                let rounded_down = this.max_entries - this.max_entries % machine.cpus;
                Self { max_entries: rounded_up.unwrap_or(rounded_down), ..this }
            }
            Ok(bpf_map_type::BPF_MAP_TYPE_DEVMAP | bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH) => {
                Self { flags: this.flags | BPF_F_RDONLY_PROG, ..this }
            }
            _ => this,
        }
    }

    /// Estimates the bytes that a map of this shape holds once it is full (`*_map_mem_usage` in the kernel's
    /// kernel/bpf).
    ///
    /// Returns 0 for local storage, whose memory grows with the sockets, cgroups, inodes or tasks and not with the map.
    pub fn bytes(&self, machine: &Machine) -> u64 {
        use bpf_map_type::*;
        /// The bytes of `struct htab_elem` before the key.
        const ELEMENT: u64 = 48;
        /// The bytes of `struct bucket`.
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

impl fmt::Display for MapShape {
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
        MapShape { map_type: map_type as u32, max_entries, ..MapShape::default() }.normalized(&MACHINE).max_entries
    }

    #[test]
    fn ring_buffer_sizes_round_up_to_a_power_of_two_of_pages() {
        use bpf_map_type::BPF_MAP_TYPE_RINGBUF as RING;
        for (declared, expected) in
            [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (12_288, 16_384), (u32::MAX, u32::MAX)]
        {
            assert_eq!(entries(RING, declared), expected, "{declared}");
        }
    }

    #[test]
    fn device_maps_are_read_only_for_programs() {
        use bpf_map_type::{BPF_MAP_TYPE_ARRAY as ARRAY, BPF_MAP_TYPE_DEVMAP as DEVMAP};
        let flags =
            |of: bpf_map_type| MapShape { map_type: of as u32, ..MapShape::default() }.normalized(&MACHINE).flags;
        assert_eq!((flags(DEVMAP), flags(ARRAY)), (0x80, 0));
    }

    #[test]
    fn shapes_differ_if_any_field_differs() {
        let shape = MapShape { map_type: 1, key_size: 4, value_size: 8, max_entries: 10, flags: 0 };
        for other in [
            MapShape { map_type: 5, ..shape },
            MapShape { key_size: 8, ..shape },
            MapShape { value_size: 16, ..shape },
            MapShape { max_entries: 11, ..shape },
            MapShape { flags: 1, ..shape },
        ] {
            assert_ne!(shape, other);
            assert_ne!(shape.to_string(), other.to_string(), "the text shows the difference");
        }
    }

    #[test]
    fn perf_event_arrays_get_one_entry_per_processor() {
        use bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY as PERF;
        for (declared, expected) in [(0, 4), (2, 2), (4, 4), (5, 4)] {
            assert_eq!(entries(PERF, declared), expected, "{declared}");
        }
        assert_eq!(entries(bpf_map_type::BPF_MAP_TYPE_ARRAY, 0), 0);
    }

    #[test]
    fn per_processor_lru_lists_get_equally_many_entries() {
        let map_type = bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32;
        let normalized = |max_entries, flags| {
            MapShape { map_type, max_entries, flags, ..MapShape::default() }.normalized(&MACHINE).max_entries
        };
        assert_eq!([1, 4, 5].map(|n| normalized(n, BPF_F_NO_COMMON_LRU)), [4, 4, 8]);
        assert_eq!(normalized(u32::MAX, BPF_F_NO_COMMON_LRU), u32::MAX - 3);
        assert_eq!(normalized(5, 0), 5);
    }
}
