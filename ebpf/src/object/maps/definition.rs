//! `Definition`: the attributes that a map is created with.

use crate::kinds::map_type::{
    ARRAY, ARRAY_OF_MAPS, BLOOM_FILTER, CGROUP_ARRAY, CGROUP_STORAGE, CGRP_STORAGE, F_NO_PREALLOC, HASH, HASH_OF_MAPS,
    INODE_STORAGE, LPM_TRIE, LRU_HASH, LRU_PERCPU_HASH, PERCPU_ARRAY, PERCPU_CGROUP_STORAGE, PERCPU_HASH,
    PERF_EVENT_ARRAY, PROG_ARRAY, QUEUE, SK_STORAGE, SOCKHASH, SOCKMAP, STACK, STRUCT_OPS, TASK_STORAGE,
};

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

    /// Returns why no kernel creates a map of this definition, if none does.
    pub(crate) fn creation_error(&self) -> Option<CreationError> {
        let Self { key_size: key, value_size: value, max_entries: entries, .. } = *self;
        let (has_keys, has_indices, is_local) = (self.is_of(&WITH_KEYS), self.is_of(&INDEXED), self.is_of(&LOCAL));
        let lacks_flag = self.flags & F_NO_PREALLOC == 0 && (is_local || self.map_type == LPM_TRIE);
        let inner = self.inner.as_deref();
        let own = [
            (has_keys && key == 0, CreationError::Key),
            ((has_indices || is_local) && key != 4, CreationError::Index),
            ((has_keys || has_indices || is_local || self.is_of(&KEYLESS)) && value == 0, CreationError::Value),
            (is_local && (self.key_type == 0 || self.value_type == 0), CreationError::Types),
            (lacks_flag, CreationError::Preallocated),
            (self.holds_maps() && inner.is_none(), CreationError::Inner),
            (entries != 0 && self.is_of(&SIZELESS), CreationError::Entries),
        ];
        let own = own.into_iter().find_map(|(is_so, error)| is_so.then_some(error));
        let of_inner = || Some(CreationError::OfInner(Box::new(inner?.creation_error()?)));
        // This is last, since a spec may say it.
        let lacks_entries = entries == 0 && !self.is_of(&SIZELESS) && !self.is_of(&FILLED_IN);
        own.or_else(of_inner).or(lacks_entries.then_some(CreationError::NoEntries))
    }

    fn is_of(&self, types: &[u32]) -> bool {
        types.contains(&self.map_type)
    }
}

/// The types whose keys are of any size but none (`htab_map_alloc_check`, `trie_alloc_check`, `sock_hash_alloc`).
const WITH_KEYS: [u32; 7] = [HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, HASH_OF_MAPS, SOCKHASH];
/// The types whose keys are indices of four bytes (`array_map_alloc_check`, `sock_map_alloc`).
const INDEXED: [u32; 7] = [ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_ARRAY, CGROUP_ARRAY, ARRAY_OF_MAPS, SOCKMAP];
/// The types that have values without keys (`queue_stack_map_alloc_check`, `bloom_map_alloc`).
const KEYLESS: [u32; 3] = [QUEUE, STACK, BLOOM_FILTER];
/// The types whose values belong to sockets, inodes, tasks or cgroups (`bpf_local_storage_map_alloc_check`).
const LOCAL: [u32; 4] = [SK_STORAGE, INODE_STORAGE, TASK_STORAGE, CGRP_STORAGE];
/// The types of which the kernel wants 0 entries.
const SIZELESS: [u32; 6] =
    [SK_STORAGE, INODE_STORAGE, TASK_STORAGE, CGRP_STORAGE, CGROUP_STORAGE, PERCPU_CGROUP_STORAGE];
/// The types whose number of entries libbpf fills in (`map_set_def_max_entries`), or that have one.
const FILLED_IN: [u32; 2] = [PERF_EVENT_ARRAY, STRUCT_OPS];

/// The reason why no kernel creates a map of a definition. It would say EINVAL and no word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CreationError {
    /// There is no key.
    #[error("it says no key: __type(key, ...)")]
    Key,
    /// Keys are no indices.
    #[error("its keys must have four bytes: __type(key, __u32)")]
    Index,
    /// There is no value.
    #[error("it says no value: __type(value, ...)")]
    Value,
    /// The kernel wants types, and not only sizes.
    #[error("it says sizes of keys and values, and the kernel wants their types: __type(key, int), __type(value, ...)")]
    Types,
    /// A flag is missing.
    #[error("maps of its type need __uint(map_flags, BPF_F_NO_PREALLOC)")]
    Preallocated,
    /// It is not known what the maps in it are like.
    #[error("it holds maps, and does not say what they are like: __array(values, struct {{ ... }})")]
    Inner,
    /// The maps in it can't be created.
    #[error("the definition of the maps in it: {0}")]
    OfInner(Box<CreationError>),
    /// It has a number of entries.
    #[error("maps of its type have no number of entries: leave max_entries out")]
    Entries,
    /// It has no number of entries, which a spec can say.
    #[error("it says no max_entries: __uint(max_entries, ...)")]
    NoEntries,
}
