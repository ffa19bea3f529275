//! Kernel objects as values: programs, maps, links and cgroups, this machine, and the features that its kernel lacks.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_ebpf::kinds::map_type::{SOCKHASH, SOCKMAP};

/// `BPF_LINK_TYPE_CGROUP`.
pub const LINK_TYPE_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_SOCKMAP`.
pub const LINK_TYPE_SOCKMAP: u32 = 14;

/// `BPF_PROG_TYPE_SOCK_OPS`.
pub const SOCK_OPS: u32 = 13;
/// `BPF_PROG_TYPE_SK_MSG`.
pub const SK_MSG: u32 = 16;

/// A program in the kernel, as `bpftool prog show` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's ID.
    pub id: u32,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// The first 15 characters of the name.
    pub kernel_name: String,
    /// A hash over the instructions, in hexadecimal.
    pub tag: String,
    /// True if the licence allows GPL-only helpers.
    pub gpl_compatible: bool,
    /// The time of its load, as RFC 3339, in seconds.
    pub load_time: String,
    /// The user who loaded it.
    pub uid: u32,
    /// Bytes of translated instructions.
    pub xlated_bytes: u32,
    /// Bytes of machine code; 0 without a JIT.
    pub jited_bytes: u32,
    /// Bytes of memory that it holds.
    pub memlock_bytes: u64,
    /// The IDs of the maps that it uses.
    pub map_ids: Vec<u32>,
    /// Its BTF, if any.
    pub btf_id: Option<u32>,
}

/// A map in the kernel, as `bpftool map show` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// The kernel's ID.
    pub id: u32,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// The first 15 characters of the name.
    pub kernel_name: String,
    /// The size of a key in bytes.
    pub key_size: u32,
    /// The size of a value in bytes.
    pub value_size: u32,
    /// The highest number of entries; for a ring buffer, its size in bytes.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Bytes of memory that it holds.
    pub memlock_bytes: u64,
    /// True if user space can no longer write it.
    pub frozen: bool,
    /// Its BTF, if any.
    pub btf_id: Option<u32>,
}

impl MapInfo {
    /// Returns whether the map is a sockmap or a sockhash.
    pub const fn holds_sockets(&self) -> bool {
        matches!(self.map_type, SOCKMAP | SOCKHASH)
    }
}

/// A link to a cgroup or a map in the kernel, as `bpftool link show` prints it.
///
/// A kernel without links for maps gives no link: `id` and `link_type` are 0, and the map itself holds the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's ID; 0 without a link.
    pub id: u32,
    /// `enum bpf_link_type`; 0 without a link.
    pub link_type: u32,
    /// The ID of the program that it runs.
    pub program_id: u32,
    /// The ID of the cgroup that it is attached to; 0 once it is detached or the cgroup is gone.
    pub cgroup_id: u64,
    /// The ID of the map that it is attached to; 0 once it is detached.
    pub map_id: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// A cgroup that exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Its ID: the inode number of its directory, as in `bpf_get_current_cgroup_id` and links.
    pub id: u64,
    /// Its path below the cgroup root; "/" for the root itself.
    pub path: String,
}

/// The kind of a program, which decides how the kernel verifies it and where it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramKind {
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// The properties of this machine that decide the size of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The size of a page in bytes.
    pub page: u32,
    /// The number of possible processors.
    pub cpus: u32,
}

/// The features that a revision may use and that probes found this kernel to lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFeatures {
    /// Attach types, each with its program type.
    pub programs: BTreeSet<ProgramKind>,
    /// Map types (`enum bpf_map_type`), each with the first kernel release that has it.
    pub maps: BTreeMap<u32, (u16, u16)>,
    /// True if it keeps no order among the programs on a cgroup (`BPF_F_BEFORE`, Linux 6.17).
    pub order: bool,
}
