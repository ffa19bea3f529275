//! Reads what the kernel knows of a program, a map or a link, through the agent's own descriptor.
//!
//! The sources are `BPF_OBJ_GET_INFO_BY_FD` and `/proc/self/fdinfo`. Opening an object by its ID needs CAP_SYS_ADMIN.
#![expect(unsafe_code, reason = "the kernel fills C structs")]

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use aya_obj::generated::{bpf_link_info, bpf_map_info, bpf_prog_info};
use k8s_openapi::jiff::{self, SignedDuration, Timestamp, Unit};
use rustix::fs::{Mode, OFlags};

use super::{Call as _, SysError, bpf};
use crate::model::kernel::{LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, LinkInfo, MapInfo, ProgramInfo};

/// Reads a program's ID. The descriptor must be a program's.
pub fn program_id(fd: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: plain integers, for which all-zero is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    // SAFETY: the struct's pointers are null with length 0.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(info.id)
}

/// Reads a map's ID. The descriptor must be a map's.
pub fn map_id(fd: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: plain integers.
    let mut info: bpf_map_info = unsafe { mem::zeroed() };
    // SAFETY: the struct holds no pointers.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(info.id)
}

/// Reads a program's info. An error of kind `InvalidData` means that the descriptor is no program.
pub fn program(fd: BorrowedFd<'_>) -> Result<ProgramInfo, SysError> {
    let fd_info = FdInfo::read(fd, "prog_type")?;
    let mut map_ids = [0u32; 64];
    // SAFETY: plain integers, for which all-zero is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    info.map_ids = map_ids.as_mut_ptr() as u64;
    info.nr_map_ids = map_ids.len() as u32;
    // SAFETY: the descriptor is a program (fdinfo shows it), and `map_ids` holds as many as `nr_map_ids` says.
    unsafe { bpf::obj_info(fd, &mut info)? };
    Ok(ProgramInfo {
        id: info.id,
        prog_type: info.type_,
        kernel_name: text(&info.name),
        tag: sockeye_crds::names::hex(&info.tag),
        gpl_compatible: info.gpl_compatible() != 0,
        load_time: load_time(info.load_time)?,
        uid: info.created_by_uid,
        xlated_bytes: info.xlated_prog_len,
        jited_bytes: info.jited_prog_len,
        memlock_bytes: fd_info.memlock,
        map_ids: map_ids.into_iter().take(info.nr_map_ids as usize).collect(),
        btf_id: (info.btf_id != 0).then_some(info.btf_id),
    })
}

/// Reads a map's info. An error of kind `InvalidData` means that the descriptor is no map.
pub fn map(fd: BorrowedFd<'_>) -> Result<MapInfo, SysError> {
    let fd_info = FdInfo::read(fd, "map_type")?;
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
        memlock_bytes: fd_info.memlock,
        frozen: fd_info.frozen,
        btf_id: (info.btf_id != 0).then_some(info.btf_id),
    })
}

/// Reads a link's info. An error of kind `InvalidData` means that the descriptor is no link.
pub fn link(fd: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    check_link(fd)?;
    made_link(fd)
}

/// Reads the info of a descriptor that is known to be a link, because it was made as one.
pub fn made_link(fd: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    // SAFETY: the pointers for a link's strings are null with length 0; everything else that the kernel writes fits the
    // struct.
    unsafe { bpf::obj_info(fd, &mut info)? };
    // SAFETY: integers of a zeroed union; used only if the type says that the kernel wrote them. The bindings lack
    // sockmap links, whose two words (the map's ID and the attach type) have the layout of a netns link's.
    let (cgroup, map) = unsafe { (info.__bindgen_anon_1.cgroup, info.__bindgen_anon_1.netns) };
    let (cgroup_id, map_id, attach_type) = match info.type_ {
        LINK_TYPE_CGROUP => (cgroup.cgroup_id, 0, cgroup.attach_type),
        LINK_TYPE_SOCKMAP => (0, map.netns_ino, map.attach_type),
        _ => (0, 0, 0),
    };
    Ok(LinkInfo { id: info.id, link_type: info.type_, program_id: info.prog_id, cgroup_id, map_id, attach_type })
}

/// Fails unless the descriptor is a link. Reads its name in /proc, as bpftool does: fdinfo takes ten times as long and
/// says nothing more of a link.
fn check_link(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    let name = name(fd)?;
    if matches!(name.to_bytes(), b"anon_inode:bpf_link" | b"anon_inode:bpf-link") {
        return Ok(());
    }
    let message = format!("the object is no link but {}", name.to_string_lossy());
    Err(io::Error::new(io::ErrorKind::InvalidData, message)).call(|| format!("readlink of fd/{}", fd.as_raw_fd()))
}

/// Returns whether the descriptor is a program.
pub fn is_program(fd: BorrowedFd<'_>) -> Result<bool, SysError> {
    Ok(name(fd)?.to_bytes() == b"anon_inode:bpf-prog")
}

/// Returns the kernel's name of the kind of a descriptor.
fn name(fd: BorrowedFd<'_>) -> Result<CString, SysError> {
    let path = format!("fd/{}", fd.as_raw_fd());
    rustix::fs::readlinkat(process()?, &*path, Vec::new()).call(|| format!("readlink of {path}"))
}

/// Returns `/proc/self`, opened: the way there from the root takes longer than the rest of a read.
fn process() -> Result<BorrowedFd<'static>, SysError> {
    static PROCESS: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(process) = PROCESS.get() {
        return Ok(process.as_fd());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/proc/self", flags, Mode::empty()).call(|| "open of /proc/self")?;
    Ok(PROCESS.get_or_init(|| opened).as_fd())
}

/// The facts that only fdinfo has.
struct FdInfo {
    memlock: u64,
    frozen: bool,
}

impl FdInfo {
    /// Reads fdinfo, and checks by a line that only descriptors of that kind have that the descriptor is of the
    /// expected kind.
    fn read(fd: BorrowedFd<'_>, kind: &str) -> Result<Self, SysError> {
        let path = format!("fdinfo/{}", fd.as_raw_fd());
        // The kernel makes it in one piece, far smaller than a page: one read returns all of it.
        let mut buffer = [0; 4096];
        let file = rustix::fs::openat(process()?, &*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let read = file.and_then(|file| rustix::io::read(file, &mut buffer)).call(|| format!("read of {path}"))?;
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default());
        let (mut fd_info, mut is_kind) = (Self { memlock: 0, frozen: false }, false);
        for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
            match key {
                "memlock" => fd_info.memlock = value.parse().unwrap_or_default(),
                "frozen" => fd_info.frozen = value == "1",
                key => is_kind |= key == kind,
            }
        }
        match is_kind {
            true => Ok(fd_info),
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

/// The time of day of a load, in seconds, as bpftool shows it. The kernel has nanoseconds since boot
/// (`ktime_get_boottime_ns`).
fn load_time(since_boot: u64) -> Result<String, SysError> {
    let at = time_of_day(since_boot).and_then(|t| t.round(Unit::Second));
    at.map(|t| t.to_string()).map_err(io::Error::other).call(|| "the time of loading")
}

/// Converts nanoseconds since boot into the time of day.
pub fn time_of_day(since_boot: u64) -> Result<Timestamp, jiff::Error> {
    BOOT.checked_add(SignedDuration::try_from(Duration::from_nanos(since_boot))?)
}

/// When the machine booted. Read once: another read would differ by microseconds, and so a load time by a second.
static BOOT: LazyLock<Timestamp> = LazyLock::new(|| {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime = SignedDuration::new(clock.tv_sec, i32::try_from(clock.tv_nsec).unwrap_or_default());
    Timestamp::now().checked_sub(uptime).unwrap_or(Timestamp::UNIX_EPOCH)
});
