//! `Probe`: the BPF features that this kernel has, found by asking it. Its version would say less: distributions
//! backport features, and leave some out.
//!
//! The agent probes once, at start. The probe loads programs of two instructions and creates small maps, drops them at
//! once, and attaches nothing. A feature stays unknown if the kernel does not tell, for lack of a capability or of
//! memory; the agent then tries to use it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use sockeye_ebpf::kinds::{
    map_type,
    section::{SECTIONS, Section, Target},
};

use super::{
    bpf::{self, F_BEFORE, MapAttr, ProgAttr},
    facts, info,
};
use crate::model::kernel::{MissingFeatures, ProgramKind};

/// The features that were found and missed.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// The features that the kernel has, by name.
    pub has: BTreeSet<String>,
    /// The features that it lacks, by name.
    pub lacks: BTreeSet<String>,
    /// What it denies to all programs and readers, by name: it depends on how the node was booted and set up.
    pub restrictions: BTreeSet<String>,
    /// The features that it lacks and a revision may ask for.
    pub missing_features: MissingFeatures,
}

/// A map type that not every kernel has, or that a kernel's configuration can leave out.
#[derive(Clone, Copy, Debug)]
struct MapProbe {
    /// `enum bpf_map_type`
    map_type: u32,
    /// The first kernel release that has it.
    least_kernel: (u16, u16),
    /// The map that the probe creates.
    sample: Sample,
}

/// A small map of some type.
#[derive(Clone, Copy, Debug)]
enum Sample {
    /// A map with these sizes of key and value and so many entries.
    Map(u32, u32, u32),
    /// A ring buffer of one page.
    Ring,
    /// A local storage with a value that is too large. A valid one needs BTF of its own; a kernel that knows the type
    /// refuses this one for its size (E2BIG).
    Storage,
}

/// The map types to probe.
#[rustfmt::skip]
const MAPS: [MapProbe; 9] = {
    const fn row(map_type: u32, least_kernel: (u16, u16), sample: Sample) -> MapProbe {
        MapProbe { map_type, least_kernel, sample }
    }
    [
        row(15, (4, 14), Sample::Map(4, 4, 1)), // Sockmap
        row(18, (4, 18), Sample::Map(4, 4, 1)), // Sockhash
        row(19, (4, 19), Sample::Map(8, 4, 0)), // CgroupStorage
        row(21, (4, 20), Sample::Map(8, 4, 0)), // PercpuCgroupStorage
        row(24, (5, 2),  Sample::Storage),      // SkStorage
        row(27, (5, 8),  Sample::Ring),         // RingBuf
        row(30, (5, 16), Sample::Map(0, 4, 1)), // BloomFilter
        row(31, (6, 1),  Sample::Ring),         // UserRingBuf
        row(32, (6, 2),  Sample::Storage),      // CgrpStorage
    ]
};

/// `BPF_PROG_TYPE_SOCK_OPS`, `BPF_CGROUP_SOCK_OPS`
const SOCK_OPS: ProgramKind = ProgramKind { prog_type: 13, attach_type: 3 };
/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_NO_PREALLOC`
const F_NO_PREALLOC: u32 = 1;

/// The kernel's answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Has,
    Lacks,
    /// The kernel does not tell.
    Unknown,
}

impl Answer {
    const fn is(has: bool) -> Self {
        if has { Self::Has } else { Self::Lacks }
    }

    /// The answer by an errno: the kernel refuses by EINVAL whatever it does not know.
    const fn refused(errno: Option<i32>) -> Self {
        match errno {
            Some(libc::EINVAL) => Self::Lacks,
            _ => Self::Unknown,
        }
    }

    /// The answer by the error of a call without a valid descriptor: a kernel that knows the call says EBADF.
    fn by_bad_fd(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EBADF) => Self::Has,
            errno => Self::refused(errno),
        }
    }
}

impl Probe {
    /// Asks the kernel for each feature.
    pub fn ask() -> Self {
        let mut probe = Self::default();
        probe.note("KernelBTF", Answer::is(fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)));
        let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
        probe.note("JIT", jit.map_or(Answer::Unknown, |enabled| Answer::is(enabled.trim() != "0")));
        probe.note("LinkUpdate", Answer::by_bad_fd(&bpf::link_update_nothing()));
        probe.note("MemoryCgroups", memory_cgroups());
        probe.note("AtomicFetch", knows(FETCH));
        probe.note("InstructionsV4", knows(BSWAP));
        probe.note("NetnsCookie", calls(SOCK_OPS, GET_NETNS_COOKIE).map_or(Answer::Unknown, Answer::is));
        probe.note("VerifierLogEnd", verifier_log_end());
        probe.note("MapMemory", map_memory());
        if is_locked_down() {
            probe.restrictions.insert("LockdownConfidentiality".to_owned());
        }
        if perf_event_paranoid() == Answer::Has {
            probe.restrictions.insert("PerfEventParanoid".to_owned());
        }
        for section in SECTIONS {
            probe.section(section);
        }
        for row in &MAPS {
            let answer = map(row);
            if answer == Answer::Lacks {
                probe.missing_features.maps.insert(row.map_type, row.least_kernel);
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

    /// Probes whether programs of a section load and, if they attach to a cgroup, whether the kernel has links of their
    /// type.
    fn section(&mut self, section: &Section) {
        let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
        let answer = match load(kind) {
            Ok(program) => self.link(section, program.as_fd()),
            Err(refusal) => refusal,
        };
        if answer == Answer::Lacks {
            self.missing_features.programs.insert(kind);
        }
        self.note(&camel(section.attach_name), answer);
    }

    /// Probes whether the kernel has links for a section's program, and notes the features of links that some sections
    /// stand for.
    fn link(&mut self, section: &Section, program: BorrowedFd<'_>) -> Answer {
        let attach_type = section.attach_type;
        let link = |flags| Answer::by_bad_fd(&bpf::link_create_nowhere(program, attach_type, flags));
        match section.name {
            "sockops" => {
                self.note("CgroupLink", link(0));
                let order = link(F_BEFORE);
                self.missing_features.order = order == Answer::Lacks;
                self.note("CgroupLinkOrder", order);
            }
            "sk_msg" => {
                self.note("SockmapLink", link(0));
                self.note("SockmapQuery", Answer::by_bad_fd(&bpf::prog_query_nowhere(attach_type)));
            }
            _ => {}
        }
        match section.target {
            Target::Cgroup => link(0),
            // Kernels without links for maps load a program for an attach type that they do not know.
            Target::Map => Answer::by_bad_fd(&bpf::prog_attach_nowhere(program, attach_type)),
        }
    }
}

/// Loads a program that only returns.
fn load(kind: ProgramKind) -> Result<OwnedFd, Answer> {
    prog_load(kind, &[MOV, EXIT], &mut []).map_err(|error| Answer::refused(error.raw_os_error()))
}

/// `r0 = 1`: a return value that programs of every type may have.
const MOV: (u8, u8, i32) = (0xb7, 0, 1);
/// `r0 = r2`, which is uninitialized at a program's start
const MOV_UNSET: (u8, u8, i32) = (0xbf, 2, 0);
/// `exit`
const EXIT: (u8, u8, i32) = (0x95, 0, 0);
/// `r0 = atomic_fetch_add((u64 *)(r0 + 0), r0)`
const FETCH: (u8, u8, i32) = (0xdb, 0, 1);
/// `r0 = bswap64 r0`
const BSWAP: (u8, u8, i32) = (0xd7, 0, 64);
/// `bpf_probe_read_kernel`
const PROBE_READ_KERNEL: i32 = 113;
/// `bpf_get_netns_cookie`
const GET_NETNS_COOKIE: i32 = 122;
/// `bpf_ktime_get_coarse_ns`
const KTIME_GET_COARSE_NS: i32 = 160;

/// The call of a helper.
const fn call(helper: i32) -> (u8, u8, i32) {
    (0x85, 0, helper)
}

/// Loads a program from instructions: operation, source register and constant.
fn prog_load(kind: ProgramKind, code: &[(u8, u8, i32)], log: &mut [u8]) -> io::Result<OwnedFd> {
    let instruction = |&(code, source, imm): &(u8, u8, i32)| {
        let mut bytes = vec![code, source << 4, 0, 0];
        bytes.extend(imm.to_le_bytes());
        bytes
    };
    let code: Vec<u8> = code.iter().flat_map(instruction).collect();
    let ProgramKind { prog_type, attach_type } = kind;
    let attr = ProgAttr {
        name: "sockeye_probe",
        prog_type,
        expected_attach_type: attach_type,
        code: &code,
        license: c"Apache-2.0",
        kernel_version: 0,
        btf: None,
    };
    bpf::prog_load(&attr, log)
}

/// Probes whether a verifier log that is too long for its buffer keeps its end, where the refusal is.
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

/// Probes whether the kernel charges the memory of maps and programs to memory cgroups, as it does since 5.11, and not
/// to users. libbpf (`probe_memcg_account`) asks for the same helper, which came with that release.
pub(super) fn memory_cgroups() -> Answer {
    match prog_load(SOCK_OPS, &[call(KTIME_GET_COARSE_NS), MOV, EXIT], &mut []).map_err(|error| error.raw_os_error()) {
        Ok(_) => Answer::Has,
        // A kernel that charges users does so before it verifies the program, and says EPERM beyond the limit.
        Err(Some(libc::EPERM)) if is_capable() && Answer::by_bad_fd(&bpf::link_update_nothing()) == Answer::Has => {
            Answer::Lacks
        }
        Err(errno) => Answer::refused(errno),
    }
}

/// Tells whether the kernel is locked down so that programs can't read its memory, as far as it tells:
/// `lockdown=confidentiality`. The file that says so (`/sys/kernel/security/lockdown`) is not in containers.
pub fn is_locked_down() -> bool {
    is_capable() && calls(SOCK_OPS, PROBE_READ_KERNEL) == Some(false)
}

/// Tells whether the kernel lets programs of a kind call a helper (`enum bpf_func_id`). `None` if it does not tell.
pub fn calls(kind: ProgramKind, helper: i32) -> Option<bool> {
    let mut log = [0; 4096];
    let Err(refused) = prog_load(kind, &[call(helper), MOV, EXIT], &mut log) else { return Some(true) };
    let log = String::from_utf8_lossy(&log);
    let words = ["unknown func", "invalid func", "cannot use helper"];
    match refused.raw_os_error() {
        Some(libc::EINVAL) if words.into_iter().any(|words| log.contains(words)) => Some(false),
        // The helper's arguments are not there.
        Some(libc::EACCES | libc::EINVAL) if log.contains("call ") => Some(true),
        _ => None,
    }
}

/// Probes whether the verifier knows an instruction, which reads r0 and may take it for an address.
fn knows(instruction: (u8, u8, i32)) -> Answer {
    match prog_load(SOCK_OPS, &[MOV, instruction, MOV, EXIT], &mut []).map_err(|error| error.raw_os_error()) {
        Ok(_) | Err(Some(libc::EACCES)) => Answer::Has,
        Err(errno) => Answer::refused(errno),
    }
}

/// Tells whether the verifier lacks atomic operations that give the value of before (Linux 5.12).
pub fn lacks_atomic_fetch() -> bool {
    knows(FETCH) == Answer::Lacks
}

/// Tells whether the verifier lacks the fourth version of the instruction set (Linux 6.6).
pub fn lacks_instructions_v4() -> bool {
    knows(BSWAP) == Answer::Lacks
}

/// Tells whether perf events, so the readers of perf event arrays, need CAP_SYS_ADMIN: `kernel.perf_event_paranoid`
/// above 2, which only distributions' patches know.
fn perf_event_paranoid() -> Answer {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    match level.ok().and_then(|level| level.trim().parse::<i32>().ok()) {
        Some(level) => Answer::is(level > 2),
        None => Answer::Unknown,
    }
}

fn is_capable() -> bool {
    facts::lacking_capabilities().is_ok_and(|lacking| lacking.is_empty())
}

/// Probes whether the kernel reports the memory that a map uses. Older ones report whole pages, computed from its
/// sizes.
fn map_memory() -> Answer {
    let made = bpf::map_create(&attr(ARRAY, 4, 4, 1));
    let page = rustix::param::page_size() as u64;
    match made.and_then(|fd| info::map(fd.as_fd())) {
        Ok(map) => Answer::is(map.memlock_bytes % page != 0),
        Err(_) => Answer::Unknown,
    }
}

/// Probes whether the kernel creates maps of a type.
fn map(row: &MapProbe) -> Answer {
    let no_btf = io::stdin();
    let page = u32::try_from(rustix::param::page_size()).unwrap_or_default();
    let attr = match row.sample {
        Sample::Map(key, value, entries) => attr(row.map_type, key, value, entries),
        Sample::Ring => attr(row.map_type, 0, 0, page),
        Sample::Storage => MapAttr {
            flags: F_NO_PREALLOC,
            // The kernel asks for type IDs before it looks for their BTF.
            btf: Some((no_btf.as_fd(), 1, 1)),
            ..attr(row.map_type, 4, u32::MAX, 0)
        },
    };
    match bpf::map_create(&attr).map_err(|error| error.errno()) {
        Ok(_) | Err(Some(libc::E2BIG)) => Answer::Has,
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
        numa_node: 0,
        extra: 0,
        btf: None,
        inner: None,
    }
}

/// Converts a name of bpftool's into the API's style: `cgroup_inet4_bind` becomes `CgroupInet4Bind`.
fn camel(name: &str) -> String {
    let word = |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
    name.split('_').map(word).collect()
}
