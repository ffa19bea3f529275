//! Map types: the kernel's numbers (`enum bpf_map_type`) and the names in statuses.

use std::borrow::Cow;

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
pub const OPTIONAL: [u32; 9] = [15, 18, 19, 21, 24, 27, 30, 31, 32];

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
