//! `MapAccess`: how the entries of a map are read, by its type. Values.

use aya_obj::generated::bpf_map_type;

/// How the entries of a map are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAccess {
    /// Keys are indices.
    Slots,
    /// The kernel reads bucket after bucket. Where it does not for this type yet, key after key.
    Buckets,
    /// Key after key.
    Keys,
    /// There are no keys, and only the next value shows.
    Peek,
    /// Not at all, for this reason.
    Unreadable(&'static str),
}

impl MapAccess {
    /// Returns how maps of a type (`enum bpf_map_type`) are read. Of a type that is younger than this agent nothing
    /// says how many bytes the kernel writes for a value: it may be one for each processor.
    pub fn of(map_type: u32) -> Self {
        use bpf_map_type::*;
        let Ok(map_type) = bpf_map_type::try_from(map_type) else {
            return Self::Unreadable("this agent does not know maps of its type: upgrade it");
        };
        match map_type {
            BPF_MAP_TYPE_ARRAY
            | BPF_MAP_TYPE_PROG_ARRAY
            | BPF_MAP_TYPE_PERCPU_ARRAY
            | BPF_MAP_TYPE_ARRAY_OF_MAPS
            | BPF_MAP_TYPE_DEVMAP
            | BPF_MAP_TYPE_SOCKMAP
            | BPF_MAP_TYPE_CPUMAP
            | BPF_MAP_TYPE_XSKMAP
            | BPF_MAP_TYPE_REUSEPORT_SOCKARRAY => Self::Slots,
            BPF_MAP_TYPE_HASH
            | BPF_MAP_TYPE_PERCPU_HASH
            | BPF_MAP_TYPE_LRU_HASH
            | BPF_MAP_TYPE_LRU_PERCPU_HASH
            | BPF_MAP_TYPE_HASH_OF_MAPS => Self::Buckets,
            BPF_MAP_TYPE_QUEUE | BPF_MAP_TYPE_STACK => Self::Peek,
            BPF_MAP_TYPE_RINGBUF | BPF_MAP_TYPE_PERF_EVENT_ARRAY => {
                Self::Unreadable("a buffer has records, which are read as a stream (maps[].stream in the spec)")
            }
            BPF_MAP_TYPE_USER_RINGBUF => Self::Unreadable("programs alone read what is written to it"),
            BPF_MAP_TYPE_CGROUP_ARRAY => Self::Unreadable("the kernel does not tell which cgroups are in it"),
            BPF_MAP_TYPE_SK_STORAGE
            | BPF_MAP_TYPE_INODE_STORAGE
            | BPF_MAP_TYPE_TASK_STORAGE
            | BPF_MAP_TYPE_CGRP_STORAGE => Self::Unreadable(
                "the kernel keeps its values in the sockets, tasks, cgroups or inodes themselves, and lists no keys",
            ),
            BPF_MAP_TYPE_BLOOM_FILTER => Self::Unreadable("a Bloom filter does not hold the values themselves"),
            BPF_MAP_TYPE_STRUCT_OPS => Self::Unreadable("it holds the kernel's own structure"),
            BPF_MAP_TYPE_ARENA => Self::Unreadable("it is memory without keys"),
            _ => Self::Keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_unknown_size_is_not_read() {
        assert!(matches!(MapAccess::of(0xffff), MapAccess::Unreadable(_)));
        assert_eq!(MapAccess::of(bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32), MapAccess::Keys);
    }
}
