//! What the kernel says of a program, a map or a link, through the agent's own descriptor.
//!
//! From `BPF_OBJ_GET_INFO_BY_FD` and `/proc/self/fdinfo`, never by ID: that needs CAP_SYS_ADMIN.
#![expect(unsafe_code, reason = "the kernel fills C structs")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use aya_obj::generated::{bpf_link_info, bpf_map_info, bpf_prog_info};
use k8s_openapi::jiff::{self, SignedDuration, Timestamp, Unit};

use super::{Call as _, SysError, bpf};

/// `BPF_LINK_TYPE_CGROUP`
pub const LINK_TYPE_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_SOCKMAP`
pub const LINK_TYPE_SOCKMAP: u32 = 14;

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
    /// Whether the licence allows GPL-only helpers.
    pub gpl_compatible: bool,
    /// When it was loaded, RFC 3339, in seconds.
    pub loaded_at: String,
    /// Who loaded it.
    pub uid: u32,
    /// Bytes of translated instructions.
    pub xlated_bytes: u32,
    /// Bytes of machine code; 0 without a JIT.
    pub jited_bytes: u32,
    /// Bytes of memory held.
    pub memlock_bytes: u64,
    /// The maps it uses.
    pub map_ids: Vec<u32>,
    /// Its BTF, where it has one.
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
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Bytes of memory held.
    pub memlock_bytes: u64,
    /// Whether user space can no longer write it.
    pub frozen: bool,
    /// Its BTF, where it has one.
    pub btf_id: Option<u32>,
}

/// A link to a cgroup or a map in the kernel, as `bpftool link show` prints it; or a program that a map holds without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's ID; 0 where there is no link.
    pub id: u32,
    /// `enum bpf_link_type`; 0 where there is no link.
    pub link_type: u32,
    /// The program it runs.
    pub program_id: u32,
    /// The cgroup it is attached to; 0 once it is detached, or its cgroup is gone.
    pub cgroup_id: u64,
    /// The map it is attached to; 0 once it is detached.
    pub map_id: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// A program's ID. The descriptor must be a program's.
pub fn program_id(fd: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: plain integers, for which all-zero is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    // SAFETY: the struct asks for nothing to be written elsewhere: its pointers are null with length 0.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(info.id)
}

/// A map's ID. The descriptor must be a map's.
pub fn map_id(fd: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: plain integers.
    let mut info: bpf_map_info = unsafe { mem::zeroed() };
    // SAFETY: the struct holds no pointers.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(info.id)
}

/// A program's info. An error of kind `InvalidData` means that the descriptor is no program.
pub fn program(fd: BorrowedFd<'_>) -> Result<ProgramInfo, SysError> {
    let facts = FdInfo::read(fd, "prog_type")?;
    let mut map_ids = [0u32; 64];
    // SAFETY: plain integers, for which all-zero is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    info.map_ids = map_ids.as_mut_ptr() as u64;
    info.nr_map_ids = map_ids.len() as u32;
    // SAFETY: the descriptor is a program (fdinfo says so), and `map_ids` holds as many as `nr_map_ids` says.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(ProgramInfo {
        id: info.id,
        prog_type: info.type_,
        kernel_name: text(&info.name),
        tag: sockeye_crds::names::hex(&info.tag),
        gpl_compatible: info.gpl_compatible() != 0,
        loaded_at: loaded_at(info.load_time)?,
        uid: info.created_by_uid,
        xlated_bytes: info.xlated_prog_len,
        jited_bytes: info.jited_prog_len,
        memlock_bytes: facts.memlock,
        map_ids: map_ids.into_iter().take(info.nr_map_ids as usize).collect(),
        btf_id: (info.btf_id != 0).then_some(info.btf_id),
    })
}

/// A map's info. An error of kind `InvalidData` means that the descriptor is no map.
pub fn map(fd: BorrowedFd<'_>) -> Result<MapInfo, SysError> {
    let facts = FdInfo::read(fd, "map_type")?;
    // SAFETY: plain integers.
    let mut info: bpf_map_info = unsafe { mem::zeroed() };
    // SAFETY: the descriptor is a map, and the struct holds no pointers.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(MapInfo {
        id: info.id,
        map_type: info.type_,
        kernel_name: text(&info.name),
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        memlock_bytes: facts.memlock,
        frozen: facts.frozen,
        btf_id: (info.btf_id != 0).then_some(info.btf_id),
    })
}

/// A link's info. An error of kind `InvalidData` means that the descriptor is no link.
pub fn link(fd: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    is_link(fd)?;
    made_link(fd)
}

/// The info of a link that is known to be one, because it was made as one.
pub fn made_link(fd: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    // SAFETY: a link's strings' pointers are null with length 0; of anything else the kernel writes no more than fits either.
    unsafe { bpf::obj_info(fd, &mut info)? };
    // SAFETY: integers of a zeroed union; read only where the type says that the kernel wrote them. The bindings have no
    // sockmap link yet, whose members are two words, as a netns link's are: whose it is, and the attach type.
    let (cgroup, map) = unsafe { (info.__bindgen_anon_1.cgroup, info.__bindgen_anon_1.netns) };
    let (cgroup_id, map_id, attach_type) = match info.type_ {
        LINK_TYPE_CGROUP => (cgroup.cgroup_id, 0, cgroup.attach_type),
        LINK_TYPE_SOCKMAP => (0, map.netns_ino, map.attach_type),
        _ => (0, 0, 0),
    };
    Ok(LinkInfo { id: info.id, link_type: info.type_, program_id: info.prog_id, cgroup_id, map_id, attach_type })
}

/// Fails unless the descriptor is a link, by its name in /proc as bpftool tells: fdinfo is ten times the work, and has
/// nothing else to say of a link.
fn is_link(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let name = name(&path)?;
    if matches!(name.to_str(), Some("anon_inode:bpf_link" | "anon_inode:bpf-link")) {
        return Ok(());
    }
    let found = io::Error::new(io::ErrorKind::InvalidData, format!("the object is no link but {}", name.display()));
    Err(found).call(|| path)
}

/// Whether the descriptor is a program.
pub fn is_program(fd: BorrowedFd<'_>) -> Result<bool, SysError> {
    Ok(name(&format!("/proc/self/fd/{}", fd.as_raw_fd()))?.to_str() == Some("anon_inode:bpf-prog"))
}

fn name(path: &str) -> Result<PathBuf, SysError> {
    fs::read_link(path).call(|| format!("readlink of {path}"))
}

/// What only fdinfo tells.
struct FdInfo {
    memlock: u64,
    frozen: bool,
}

impl FdInfo {
    /// Reads it, and checks that the descriptor is of the wanted kind: its fdinfo has the line that only that kind has.
    fn read(fd: BorrowedFd<'_>, kind: &str) -> Result<Self, SysError> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        // It is made in one piece, and far below a page: one read has all of it.
        let mut buffer = [0; 4096];
        let read = File::open(&path).and_then(|mut file| file.read(&mut buffer)).call(|| format!("read of {path}"))?;
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default());
        let (mut facts, mut is_kind) = (Self { memlock: 0, frozen: false }, false);
        for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
            match key {
                "memlock" => facts.memlock = value.parse().unwrap_or_default(),
                "frozen" => facts.frozen = value == "1",
                key => is_kind |= key == kind,
            }
        }
        match is_kind {
            true => Ok(facts),
            false => {
                let found = io::Error::new(io::ErrorKind::InvalidData, format!("the object has no {kind}"));
                Err(found).call(|| path)
            }
        }
    }
}

fn text(name: &[libc::c_char]) -> String {
    name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect()
}

/// The kernel gives nanoseconds since boot (`ktime_get_boottime_ns`); bpftool and we show the time of day, in seconds.
fn loaded_at(since_boot: u64) -> Result<String, SysError> {
    let at = time_of_day(since_boot).and_then(|t| t.round(Unit::Second));
    at.map(|t| t.to_string()).map_err(io::Error::other).call(|| "the time of loading")
}

/// The time of day, from nanoseconds since boot.
pub fn time_of_day(since_boot: u64) -> Result<Timestamp, jiff::Error> {
    BOOT.checked_add(SignedDuration::try_from(Duration::from_nanos(since_boot))?)
}

/// When the machine booted, taken once: read again it would differ by some microseconds, and a time of loading by a second.
static BOOT: LazyLock<Timestamp> = LazyLock::new(|| {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime = SignedDuration::new(clock.tv_sec, i32::try_from(clock.tv_nsec).unwrap_or_default());
    Timestamp::now().checked_sub(uptime).unwrap_or(Timestamp::UNIX_EPOCH)
});
