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

    /// Returns why no kernel creates a map of this definition, if none does.
    pub(crate) fn flaw(&self) -> Option<Flaw> {
        let Self { key_size: key, value_size: value, max_entries: entries, .. } = *self;
        let (has_keys, has_indices, is_local) = (self.is_of(&WITH_KEYS), self.is_of(&INDEXED), self.is_of(&LOCAL));
        let lacks_flag = self.flags & F_NO_PREALLOC == 0 && (is_local || self.map_type == LPM_TRIE);
        let inner = self.inner.as_deref();
        let own = [
            (has_keys && key == 0, Flaw::Key),
            ((has_indices || is_local) && key != 4, Flaw::Index),
            ((has_keys || has_indices || is_local || self.is_of(&KEYLESS)) && value == 0, Flaw::Value),
            (is_local && (self.key_type == 0 || self.value_type == 0), Flaw::Types),
            (lacks_flag, Flaw::Preallocated),
            (self.holds_maps() && inner.is_none(), Flaw::Inner),
            (entries != 0 && self.is_of(&SIZELESS), Flaw::Entries),
        ];
        let own = own.into_iter().find_map(|(is_so, flaw)| is_so.then_some(flaw));
        let of_inner = || Some(Flaw::OfInner(Box::new(inner?.flaw()?)));
        // This is last, since a spec may say it.
        let lacks_entries = entries == 0 && !self.is_of(&SIZELESS) && !self.is_of(&FILLED_IN);
        own.or_else(of_inner).or(lacks_entries.then_some(Flaw::NoEntries))
    }

    fn is_of(&self, types: &[u32]) -> bool {
        types.contains(&self.map_type)
    }
}

/// The types whose keys are of any size but none (`htab_map_alloc_check`, `trie_alloc_check`, `sock_hash_alloc`): HASH,
/// PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, HASH_OF_MAPS, SOCKHASH.
const WITH_KEYS: [u32; 7] = [1, 5, 9, 10, LPM_TRIE, HASH_OF_MAPS, 18];
/// The types whose keys are indices of four bytes (`array_map_alloc_check`, `sock_map_alloc`): ARRAY, PROG_ARRAY,
/// PERF_EVENT_ARRAY, PERCPU_ARRAY, CGROUP_ARRAY, ARRAY_OF_MAPS, SOCKMAP.
const INDEXED: [u32; 7] = [ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, 6, 8, ARRAY_OF_MAPS, 15];
/// The types that have values without keys (`queue_stack_map_alloc_check`, `bloom_map_alloc`): QUEUE, STACK,
/// BLOOM_FILTER.
const KEYLESS: [u32; 3] = [22, 23, 30];
/// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`
const PERF_EVENT_ARRAY: u32 = 4;
/// The types whose values belong to sockets, inodes, tasks or cgroups (`bpf_local_storage_map_alloc_check`):
/// SK_STORAGE, INODE_STORAGE, TASK_STORAGE, CGRP_STORAGE.
const LOCAL: [u32; 4] = [24, 28, 29, 32];
/// The types of which the kernel wants 0 entries: those of `LOCAL`, CGROUP_STORAGE and PERCPU_CGROUP_STORAGE.
const SIZELESS: [u32; 6] = [24, 28, 29, 32, 19, 21];
/// The types whose number of entries libbpf fills in (`map_set_def_max_entries`), or that have one: PERF_EVENT_ARRAY,
/// STRUCT_OPS.
const FILLED_IN: [u32; 2] = [PERF_EVENT_ARRAY, 26];
/// `BPF_MAP_TYPE_LPM_TRIE`
const LPM_TRIE: u32 = 11;
/// `BPF_F_NO_PREALLOC`
const F_NO_PREALLOC: u32 = 1;

/// The reason why no kernel creates a map of a definition. It would say EINVAL and no word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
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
    OfInner(Box<Flaw>),
    /// It has a number of entries.
    #[error("maps of its type have no number of entries: leave max_entries out")]
    Entries,
    /// It has no number of entries, which a spec can say.
    #[error("it says no max_entries: __uint(max_entries, ...)")]
    NoEntries,
}
