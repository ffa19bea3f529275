//! `Plan`: an object linked for a kernel: the BTF, maps and programs as bpf(2) takes them. The loader fills in the
//! descriptors.

use std::borrow::Cow;

use super::poisoned::Poisoned;
use crate::{btf::Strings, values::settings::Encoded};

/// An object linked for a kernel.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// The object's types as the kernel takes them (`BPF_BTF_LOAD`). None if there are none or the kernel takes none.
    pub btf: Option<Vec<u8>>,
    /// The maps, in libbpf's order.
    pub maps: Vec<PlannedMap<'a>>,
    /// The programs, in the object's order.
    pub programs: Vec<PlannedProgram<'a>>,
    /// The licence, without NUL.
    pub license: &'a [u8],
    /// The kernel's version, which kernels before 5.0 compare.
    pub kernel_version: u32,
    /// Notes on what the user may not expect.
    pub notes: Vec<String>,
}

/// A map to create (`BPF_MAP_CREATE`).
#[derive(Clone, Debug, Default)]
pub struct PlannedMap<'a> {
    /// The name in the object.
    pub name: &'a str,
    /// The attributes.
    pub attributes: MapAttributes,
    /// For a map of maps: the shape of the maps in it.
    pub inner: Option<MapAttributes>,
    /// The initial value of global data; None if it is zero, or if the map is none of data.
    pub data: Option<Cow<'a, [u8]>>,
    /// The first entries.
    pub entries: &'a [Encoded],
    /// True if processes may not write to the map any more once it is filled (`BPF_MAP_FREEZE`).
    pub is_frozen: bool,
    /// The slots that are filled once everything is loaded, by index.
    pub slots: Vec<(u32, PlannedSlot<'a>)>,
}

/// The attributes of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapAttributes {
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
    /// The node whose memory the map is in, with `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// A number whose meaning depends on the type.
    pub extra: u64,
    /// The types of key and value in the plan's BTF; 0 for none. None if maps of this type take none. A kernel that
    /// refuses the map with them may take it without.
    pub types: Option<(u32, u32)>,
}

/// A slot of a map, which the loader fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedSlot<'a> {
    /// The map of this name.
    Map(&'a str),
    /// The program of this name.
    Program(&'a str),
}

/// A program to load (`BPF_PROG_LOAD`).
#[derive(Clone, Debug, Default)]
pub struct PlannedProgram<'a> {
    /// The name of the function.
    pub name: &'a str,
    /// `enum bpf_prog_type`
    pub prog_type: u32,
    /// `enum bpf_attach_type`
    pub attach_type: u32,
    /// The instructions, eight bytes each.
    pub code: Vec<u8>,
    /// The instructions that take a map's descriptor as immediate: the index of the instruction, and that of the map in
    /// the plan.
    pub maps: Vec<(usize, usize)>,
    /// `struct bpf_func_info`s; none if the object or the kernel has none.
    pub functions: Records,
    /// `struct bpf_line_info`s; none if the object or the kernel has none.
    pub lines: Records,
    /// The maps that the program keeps although it does not refer to them (`BPF_PROG_BIND_MAP`), as indices.
    pub bound: Vec<usize>,
    /// The instructions that the verifier refuses if they can be reached.
    pub poisoned: Poisoned<'a>,
    /// The names in `lines`.
    pub strings: Option<Strings<'a>>,
}

/// Records about instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The size of a record in bytes.
    pub size: usize,
    /// The records.
    pub bytes: Vec<u8>,
}

impl Records {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.size).unwrap_or_default()
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
