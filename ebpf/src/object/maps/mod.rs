//! The maps that an object defines: by definitions with BTF, by legacy definitions, and as global data.
//!
//! A definition that can't be read is an error of whoever uses the map.

mod data;
mod error;
mod legacy;
mod slots;
mod typed;

pub(crate) use self::{data::KCONFIG, error::MapError, slots::Slot, typed::entries};
use crate::{
    btf::Btf,
    object::{externs::Extern, functions::Functions, image::Image},
};

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`
pub(crate) const PROG_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`
const ARRAY_OF_MAPS: u32 = 12;
/// `BPF_MAP_TYPE_HASH_OF_MAPS`
const HASH_OF_MAPS: u32 = 13;

/// A map.
#[derive(Clone, Debug)]
pub(crate) struct Map<'a> {
    pub(crate) name: &'a str,
    pub(crate) form: MapForm,
    /// The index of the section; 0 for `.kconfig`, which has none.
    pub(crate) section: usize,
    /// The offset of the definition in its section, in bytes; 0 for data, which is the whole section.
    pub(crate) offset: u64,
    pub(crate) definition: Definition,
    /// The initial content of data. `.bss` has none.
    pub(crate) data: &'a [u8],
    /// What the object itself puts into the map, by index.
    pub(crate) slots: Vec<(u32, Slot)>,
    /// The reason why the map can't be created.
    pub(crate) fault: Option<MapError>,
}

/// The form of a map's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapForm {
    /// A `struct bpf_map_def` of the time before BTF.
    Legacy,
    /// A variable in `.maps`.
    Btf,
    /// `.data`
    Data,
    /// `.rodata`
    Rodata,
    /// `.bss`
    Bss,
    /// The values of the kernel's configuration.
    Kconfig,
}

impl MapForm {
    /// Returns whether the map holds global data.
    pub(crate) const fn is_data(self) -> bool {
        matches!(self, Self::Data | Self::Rodata | Self::Bss | Self::Kconfig)
    }

    /// Returns whether programs only read the map.
    pub(crate) const fn is_constant(self) -> bool {
        matches!(self, Self::Rodata | Self::Kconfig)
    }
}

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

/// Reads all maps, in libbpf's order: those of `.maps`, data by section, `.kconfig`. Legacy maps come first.
pub(crate) fn read<'a>(
    image: &Image<'a>,
    btf: Option<&Btf<'a>>,
    externs: &[Extern<'a>],
    functions: &Functions<'a>,
) -> Vec<Map<'a>> {
    let mut maps = legacy::read(image, btf);
    maps.extend(typed::read(image, btf));
    maps.extend(data::read(image, btf));
    maps.extend(data::kconfig(btf, externs));
    slots::read(image, &mut maps, functions);
    maps
}
