//! `Definition`: the attributes that a map is created with.

/// `BPF_MAP_TYPE_ARRAY`
pub(super) const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`
pub(crate) const PROG_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`
const ARRAY_OF_MAPS: u32 = 12;
/// `BPF_MAP_TYPE_HASH_OF_MAPS`
const HASH_OF_MAPS: u32 = 13;

/// A map's definition: the attributes of `BPF_MAP_CREATE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) numa_node: u32,
    pub(crate) extra: u64,
    /// The BTF type of keys; 0 if the definition has none.
    pub(crate) key_type: u32,
    /// The BTF type of values; 0 if the definition has none.
    pub(crate) value_type: u32,
    /// True if the object asks to have the map pinned, by its name or otherwise.
    pub(crate) is_pinned: bool,
    /// The offset of `values` in the definition, in bytes, if it has that field.
    pub(crate) values_at: Option<u32>,
    /// The shape of the maps in this one.
    pub(crate) inner: Option<Box<Self>>,
}

impl Definition {
    /// Returns whether the map holds maps.
    pub(crate) const fn holds_maps(&self) -> bool {
        matches!(self.map_type, ARRAY_OF_MAPS | HASH_OF_MAPS)
    }

    /// Returns whether the kernel wants a number of entries that the definition does not have. libbpf fills in that of
    /// perf event arrays, and local storage has none.
    pub(crate) const fn lacks_entries(&self) -> bool {
        const PERF_EVENT_ARRAY: u32 = 4;
        const CGROUP_STORAGE: u32 = 19;
        const PERCPU_CGROUP_STORAGE: u32 = 21;
        const SK_STORAGE: u32 = 24;
        const STRUCT_OPS: u32 = 26;
        const INODE_STORAGE: u32 = 28;
        const TASK_STORAGE: u32 = 29;
        const CGRP_STORAGE: u32 = 32;
        let fills = matches!(
            self.map_type,
            PERF_EVENT_ARRAY
                | CGROUP_STORAGE
                | PERCPU_CGROUP_STORAGE
                | SK_STORAGE
                | STRUCT_OPS
                | INODE_STORAGE
                | TASK_STORAGE
                | CGRP_STORAGE
        );
        self.max_entries == 0 && !fills
    }
}
