//! `Probe`: what this kernel has of what sockeye's programs need, found by asking it. Its version would say less:
//! distributions carry features back, and leave some out.
//!
//! Made once, at start. Programs of two instructions are loaded and small maps made, and dropped at once; nothing is attached.
//! What the kernel will not tell, for want of a capability or of memory, is not known, and keeps nothing from being tried.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya_obj::generated::bpf_insn;
use sockeye_ebpf::kinds::{
    map_type,
    section::{SECTIONS, Section, Target},
};

use super::{
    bpf::{self, F_BEFORE, MapAttr, ProgAttr},
    info,
    load::ProgramKind,
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// What the kernel has, by name.
    pub has: BTreeSet<String>,
    /// What it lacks, by name.
    pub lacks: BTreeSet<String>,
    /// What it lacks of what a revision may ask for.
    pub lacking: Lacking,
}

/// What a revision may ask for and the kernel was found to lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Attach types, each with its program type.
    pub programs: BTreeSet<ProgramKind>,
    /// Map types (`enum bpf_map_type`).
    pub maps: BTreeSet<u32>,
    /// An order among programs on one cgroup.
    pub order: bool,
}

/// A map type that not every kernel has, or that a kernel's configuration can leave out.
#[derive(Clone, Copy, Debug)]
pub struct MapRow {
    /// `enum bpf_map_type`
    pub map_type: u32,
    /// The first kernel that has it.
    pub least_kernel: (u16, u16),
    /// A small one.
    small: Small,
}

#[derive(Clone, Copy, Debug)]
enum Small {
    /// Of these sizes of key and value, with so many entries.
    Map(u32, u32, u32),
    /// Of one page.
    Ring,
    /// It would need BTF of its own. One with a value that is too large is refused for that (E2BIG) where the type is known.
    Storage,
}

/// The map types.
#[rustfmt::skip]
pub const MAPS: [MapRow; 9] = {
    const fn row(map_type: u32, least_kernel: (u16, u16), small: Small) -> MapRow {
        MapRow { map_type, least_kernel, small }
    }
    [
        row(15, (4, 14), Small::Map(4, 4, 1)), // Sockmap
        row(18, (4, 18), Small::Map(4, 4, 1)), // Sockhash
        row(19, (4, 19), Small::Map(8, 4, 0)), // CgroupStorage
        row(21, (4, 20), Small::Map(8, 4, 0)), // PercpuCgroupStorage
        row(24, (5, 2),  Small::Storage),      // SkStorage
        row(27, (5, 8),  Small::Ring),         // RingBuf
        row(30, (5, 16), Small::Map(0, 4, 1)), // BloomFilter
        row(31, (6, 1),  Small::Ring),         // UserRingBuf
        row(32, (6, 2),  Small::Storage),      // CgrpStorage
    ]
};

/// `BPF_PROG_TYPE_SOCK_OPS`, `BPF_CGROUP_SOCK_OPS`
const SOCK_OPS: ProgramKind = ProgramKind { prog_type: 13, attach_type: 3 };
/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_NO_PREALLOC`
const F_NO_PREALLOC: u32 = 1;

/// What the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Has,
    Lacks,
    /// It would not tell.
    Unknown,
}

impl Answer {
    const fn is(has: bool) -> Self {
        if has { Self::Has } else { Self::Lacks }
    }

    /// EINVAL is what the kernel says of all that it does not know.
    const fn refused(errno: Option<i32>) -> Self {
        match errno {
            Some(libc::EINVAL) => Self::Lacks,
            _ => Self::Unknown,
        }
    }

    /// Of a call that names no descriptor: a kernel that knows it misses the descriptor.
    fn missed(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EBADF) => Self::Has,
            errno => Self::refused(errno),
        }
    }
}

impl Probe {
    /// Asks the kernel.
    pub fn ask() -> Self {
        let mut probe = Self::default();
        probe.note("KernelBtf", Answer::is(fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)));
        let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
        probe.note("Jit", jit.map_or(Answer::Unknown, |enabled| Answer::is(enabled.trim() != "0")));
        probe.note("LinkUpdate", Answer::missed(&bpf::link_update_nothing()));
        probe.note("VerifierLogEnd", verifier_log_end());
        probe.note("MapMemory", map_memory());
        for section in SECTIONS {
            probe.section(section);
        }
        for row in &MAPS {
            let answer = map(row);
            if answer == Answer::Lacks {
                probe.lacking.maps.insert(row.map_type);
            }
            probe.note(&format!("Map{}", map_type::name(row.map_type)), answer);
        }
        probe
    }

    fn note(&mut self, name: &str, answer: Answer) {
        match answer {
            Answer::Has => drop(self.has.insert(name.to_owned())),
            Answer::Lacks => drop(self.lacks.insert(name.to_owned())),
            Answer::Unknown => {}
        }
    }

    /// Whether a section's programs load and, where they attach to a cgroup, whether the kernel knows links of their type.
    fn section(&mut self, section: &Section) {
        let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
        let answer = match load(kind) {
            Err(refusal) => refusal,
            Ok(program) => {
                let link = |flags| Answer::missed(&bpf::link_create_nowhere(program.as_fd(), kind.attach_type, flags));
                match section.name {
                    "sockops" => {
                        self.note("CgroupLink", link(0));
                        let order = link(F_BEFORE);
                        self.lacking.order = order == Answer::Lacks;
                        self.note("CgroupLinkOrder", order);
                    }
                    "sk_msg" => {
                        self.note("SockmapLink", link(0));
                        self.note("SockmapQuery", Answer::missed(&bpf::prog_query_nowhere(kind.attach_type)));
                    }
                    _ => {}
                }
                if section.target == Target::Cgroup { link(0) } else { Answer::Has }
            }
        };
        if answer == Answer::Lacks {
            self.lacking.programs.insert(kind);
        }
        self.note(&camel(section.attach_name), answer);
    }
}

/// Loads a program that does nothing.
fn load(kind: ProgramKind) -> Result<OwnedFd, Answer> {
    prog_load(kind, &[MOV, EXIT], &mut []).map_err(|error| Answer::refused(error.raw_os_error()))
}

/// `r0 = 1`: the one answer that every type's programs may give.
const MOV: (u8, u8, i32) = (0xb7, 0, 1);
/// `r0 = r2`, which holds nothing at a program's start
const MOV_UNSET: (u8, u8, i32) = (0xbf, 2, 0);
/// `exit`
const EXIT: (u8, u8, i32) = (0x95, 0, 0);

/// Loads instructions, each an operation, a source register and a constant.
fn prog_load(kind: ProgramKind, code: &[(u8, u8, i32)], log: &mut [u8]) -> io::Result<OwnedFd> {
    let instruction = |&(code, source, imm): &(u8, u8, i32)| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, source),
        off: 0,
        imm,
    };
    let instructions: Vec<bpf_insn> = code.iter().map(instruction).collect();
    let ProgramKind { prog_type, attach_type } = kind;
    let attr = ProgAttr {
        name: "sockeye_probe",
        prog_type,
        expected_attach_type: attach_type,
        instructions: &instructions,
        license: c"Apache-2.0",
        btf: None,
    };
    bpf::prog_load(&attr, log)
}

/// Whether a verifier's log that is too long for its buffer keeps its end, where the refusal is.
pub(super) fn verifier_log_end() -> Answer {
    let mut log = [0; 128];
    let code = [MOV, MOV, MOV, MOV, MOV, MOV, MOV, MOV, MOV_UNSET, EXIT];
    match prog_load(SOCK_OPS, &code, &mut log) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
            Answer::is(String::from_utf8_lossy(&log).contains("!read_ok"))
        }
        _ => Answer::Unknown,
    }
}

/// Whether the kernel says what memory a map holds; before, it said whole pages, worked out from sizes.
fn map_memory() -> Answer {
    let made = bpf::map_create(&attr(ARRAY, 4, 4, 1));
    let page = rustix::param::page_size() as u64;
    match made.and_then(|fd| info::map(fd.as_fd())) {
        Ok(map) => Answer::is(map.memlock_bytes % page != 0),
        Err(_) => Answer::Unknown,
    }
}

fn map(row: &MapRow) -> Answer {
    let any = io::stdin();
    let page = u32::try_from(rustix::param::page_size()).unwrap_or_default();
    let attr = match row.small {
        Small::Map(key, value, entries) => attr(row.map_type, key, value, entries),
        Small::Ring => attr(row.map_type, 0, 0, page),
        Small::Storage => MapAttr {
            flags: F_NO_PREALLOC,
            // Types there must be; in which BTF is asked later.
            btf: Some((any.as_fd(), 1, 1)),
            ..attr(row.map_type, 4, u32::MAX, 0)
        },
    };
    match bpf::map_create(&attr).map_err(|error| error.errno()) {
        Ok(_) => Answer::Has,
        Err(Some(libc::E2BIG)) => Answer::Has,
        Err(errno) => Answer::refused(errno),
    }
}

const fn attr<'a>(map_type: u32, key_size: u32, value_size: u32, max_entries: u32) -> MapAttr<'a> {
    MapAttr {
        name: "sockeye_probe",
        map_type,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        extra: 0,
        btf: None,
        inner: None,
    }
}

/// A name of bpftool's as the API writes names: `cgroup_inet4_bind` is `CgroupInet4Bind`.
fn camel(name: &str) -> String {
    let word = |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
    name.split('_').map(word).collect()
}
