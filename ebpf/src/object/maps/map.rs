//! `Map`: a map of an object, and what the object itself puts into it.

use super::{Definition, MapError};

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
    /// The slots that the object itself fills, by index.
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

/// A slot of a map that the object fills. Numbers are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A map.
    Map(usize),
    /// A program.
    Program(usize),
}
