//! Map types: the kernel's numbers (`enum bpf_map_type`) and the names in statuses.

use std::borrow::Cow;

macro_rules! numbers {
    ($($name:ident = $number:literal,)*) => {
        $(
            #[doc = concat!("`BPF_MAP_TYPE_", stringify!($name), "`.")]
            pub const $name: u32 = $number;
        )*
    };
}

numbers! {
    HASH = 1,
    ARRAY = 2,
    PROG_ARRAY = 3,
    PERF_EVENT_ARRAY = 4,
    PERCPU_HASH = 5,
    PERCPU_ARRAY = 6,
    STACK_TRACE = 7,
    CGROUP_ARRAY = 8,
    LRU_HASH = 9,
    LRU_PERCPU_HASH = 10,
    LPM_TRIE = 11,
    ARRAY_OF_MAPS = 12,
    HASH_OF_MAPS = 13,
    DEVMAP = 14,
    SOCKMAP = 15,
    CPUMAP = 16,
    XSKMAP = 17,
    SOCKHASH = 18,
    CGROUP_STORAGE = 19,
    PERCPU_CGROUP_STORAGE = 21,
    QUEUE = 22,
    STACK = 23,
    SK_STORAGE = 24,
    DEVMAP_HASH = 25,
    STRUCT_OPS = 26,
    RINGBUF = 27,
    INODE_STORAGE = 28,
    TASK_STORAGE = 29,
    BLOOM_FILTER = 30,
    USER_RINGBUF = 31,
    CGRP_STORAGE = 32,
    ARENA = 33,
}

/// `BPF_F_NO_PREALLOC`: the flag of a map whose entries get memory when they are written.
pub const F_NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the flag of an array that a process can map into its memory.
pub const F_MMAPABLE: u32 = 1 << 10;

/// The names by number, from 1; 0 is unspecified.
const NAMES: [&str; 34] = [
    "Hash",
    "Array",
    "ProgArray",
    "PerfEventArray",
    "PercpuHash",
    "PercpuArray",
    "StackTrace",
    "CgroupArray",
    "LruHash",
    "LruPercpuHash",
    "LpmTrie",
    "ArrayOfMaps",
    "HashOfMaps",
    "Devmap",
    "Sockmap",
    "Cpumap",
    "Xskmap",
    "Sockhash",
    "CgroupStorage",
    "ReuseportSockarray",
    "PercpuCgroupStorage",
    "Queue",
    "Stack",
    "SkStorage",
    "DevmapHash",
    "StructOps",
    "RingBuf",
    "InodeStorage",
    "TaskStorage",
    "BloomFilter",
    "UserRingBuf",
    "CgrpStorage",
    "Arena",
    "InsnArray",
];

/// The map types that kernels can be built without, or that came after the least kernel. Agents ask for each.
pub const OPTIONAL: [u32; 9] = [
    SOCKMAP,
    SOCKHASH,
    CGROUP_STORAGE,
    PERCPU_CGROUP_STORAGE,
    SK_STORAGE,
    RINGBUF,
    BLOOM_FILTER,
    USER_RINGBUF,
    CGRP_STORAGE,
];

/// Returns the name of the feature that a kernel with a map type has (`status.node.features` of a BpfNode).
pub fn feature(name: &str) -> String {
    format!("Map{name}")
}

/// Returns the name of a map type, or its number if it has none.
pub fn name(number: u32) -> Cow<'static, str> {
    let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    index.and_then(|i| NAMES.get(i)).map_or_else(|| Cow::Owned(number.to_string()), |name| Cow::Borrowed(*name))
}

/// Returns the number of a map type, given by name or number.
pub fn number(name: &str) -> Option<u32> {
    let index = NAMES.iter().position(|known| *known == name);
    index.and_then(|i| u32::try_from(i + 1).ok()).or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated::bpf_map_type;

    #[test]
    fn the_numbers_are_the_kernels() {
        use bpf_map_type::*;
        for (kind, number) in [
            (BPF_MAP_TYPE_ARRAY, ARRAY),
            (BPF_MAP_TYPE_LRU_PERCPU_HASH, LRU_PERCPU_HASH),
            (BPF_MAP_TYPE_LPM_TRIE, LPM_TRIE),
            (BPF_MAP_TYPE_HASH_OF_MAPS, HASH_OF_MAPS),
            (BPF_MAP_TYPE_SOCKHASH, SOCKHASH),
            (BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED, PERCPU_CGROUP_STORAGE),
            (BPF_MAP_TYPE_STRUCT_OPS, STRUCT_OPS),
            (BPF_MAP_TYPE_USER_RINGBUF, USER_RINGBUF),
            (BPF_MAP_TYPE_ARENA, ARENA),
        ] {
            assert_eq!(kind as u32, number);
        }
    }

    #[test]
    fn names_belong_to_the_kernels_numbers() {
        for (kind, word) in [
            (bpf_map_type::BPF_MAP_TYPE_HASH, "Hash"),
            (bpf_map_type::BPF_MAP_TYPE_ARRAY, "Array"),
            (bpf_map_type::BPF_MAP_TYPE_LPM_TRIE, "LpmTrie"),
            (bpf_map_type::BPF_MAP_TYPE_SOCKHASH, "Sockhash"),
            (bpf_map_type::BPF_MAP_TYPE_RINGBUF, "RingBuf"),
            (bpf_map_type::BPF_MAP_TYPE_CGRP_STORAGE, "CgrpStorage"),
            (bpf_map_type::BPF_MAP_TYPE_ARENA, "Arena"),
        ] {
            assert_eq!(name(kind as u32), word);
            assert_eq!(number(word), Some(kind as u32));
        }
        assert_eq!(name(0), "0");
        assert_eq!(number("99"), Some(99));
        assert_eq!(number("Nonsense"), None);
    }
}
