//! bpf(2): one function per command that the agent makes. Each returns the kernel's answer, nothing more.
//!
//! `union bpf_attr` is zeroed before use: the kernel takes bytes it does not know as long as they are zero
//! (`bpf_check_uarg_tail_zero`), so one binary runs on older kernels.
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::LazyLock,
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{Call as _, SysError, fault};

/// `BPF_F_REPLACE`: a link update names the program that it expects to replace.
const F_REPLACE: u32 = 1 << 2;
/// `BPF_F_ALLOW_MULTI`: an attachment that others may stand beside.
const F_ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_BEFORE`: a place in the order in which programs run.
pub const F_BEFORE: u32 = 1 << 3;
/// `BPF_F_LINK`: which is told by a link.
const F_LINK: u32 = 1 << 13;
/// `BPF_F_PATH_FD`: the path of a pin is from a directory.
const F_PATH_FD: u32 = 1 << 14;
/// No descriptor: -1, in the kernel's attribute.
const NO_FD: u32 = u32::MAX;
/// At most so many programs per cgroup and attach type (`BPF_CGROUP_MAX_PROGS`).
pub const MAX_PROGRAMS_PER_CGROUP: usize = 64;

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which all-zero is valid.
    unsafe { mem::zeroed() }
}

/// Makes the call. The attribute's pointers must be valid for what `cmd` reads and writes, which every caller here sees to.
fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    fault::point(|| format!("{cmd:?}"))?;
    // SAFETY: the kernel reads and writes `attr` within the size given, and the memory it points to, which the caller borrows
    // for the duration of the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// For commands that answer with a new descriptor; the kernel opens all of them close-on-exec.
fn bpf_fd(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(cmd, attr)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: a descriptor that the kernel has just opened for us and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    fd.as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// The kernel keeps 15 characters of a name (`BPF_OBJ_NAME_LEN` is 16, with the NUL), letters, digits, `_` and `.`.
fn kernel_name(name: &str) -> [libc::c_char; 16] {
    let mut out = [0; 16];
    for (slot, byte) in out.iter_mut().zip(name.bytes().take(15)) {
        let legal = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        *slot = if legal { byte } else { b'_' } as libc::c_char;
    }
    out
}

/// What `BPF_MAP_CREATE` is given.
#[derive(Clone, Debug)]
pub struct MapAttr<'a> {
    /// The map's name.
    pub name: &'a str,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Per-type extra.
    pub extra: u64,
    /// The object's BTF, and the types of key and value in it.
    pub btf: Option<(BorrowedFd<'a>, u32, u32)>,
    /// For a map of maps: a map of the inner shape.
    pub inner: Option<BorrowedFd<'a>>,
}

/// `BPF_MAP_CREATE`
pub fn map_create(map: &MapAttr<'_>) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    let MapAttr { name, map_type, key_size, value_size, max_entries, flags, extra, btf, inner } = *map;
    // SAFETY: every member of the union is plain integers, zeroed above.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = map_type;
    create.key_size = key_size;
    create.value_size = value_size;
    create.max_entries = max_entries;
    create.map_flags = flags;
    create.map_extra = extra;
    create.map_name = kernel_name(name);
    if let Some((fd, key_type, value_type)) = btf {
        create.btf_fd = raw(fd);
        create.btf_key_type_id = key_type;
        create.btf_value_type_id = value_type;
    }
    if let Some(inner) = inner {
        create.inner_map_fd = raw(inner);
    }
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr).call(|| format!("BPF_MAP_CREATE of map {name}"))
}

/// `BPF_MAP_UPDATE_ELEM`; without a key it pushes. Both must have as many bytes as the kernel reads for this map: see
/// [`super::map`].
pub fn map_update(map: BorrowedFd<'_>, key: Option<&[u8]>, value: &[u8]) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = raw(map);
    elem.key = key.map_or(0, |key| key.as_ptr() as u64);
    elem.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop).call(|| "BPF_MAP_UPDATE_ELEM")
}

/// `BPF_MAP_FREEZE`: user space can no longer write the map, so the verifier can take its content as constant.
pub fn map_freeze(map: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = raw(map);
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop).call(|| "BPF_MAP_FREEZE")
}

/// `BPF_BTF_LOAD`
pub fn btf_load(btf: &[u8]) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = btf.as_ptr() as u64;
    load.btf_size = u32::try_from(btf.len()).unwrap_or(u32::MAX);
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr).call(|| "BPF_BTF_LOAD")
}

/// What `BPF_PROG_LOAD` is given.
pub struct ProgAttr<'a> {
    /// The function's name.
    pub name: &'a str,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// `enum bpf_attach_type` the program is verified for; 0 where its type has none.
    pub expected_attach_type: u32,
    /// The instructions, as bytes, eight each.
    pub instructions: &'a [aya_obj::generated::bpf_insn],
    /// The licence.
    pub license: &'a CStr,
    /// The object's BTF, with function and line information encoded for it.
    pub btf: Option<ProgBtf<'a>>,
}

/// A program's debug information.
pub struct ProgBtf<'a> {
    /// The loaded BTF.
    pub fd: BorrowedFd<'a>,
    /// `struct bpf_func_info`s, and how many.
    pub functions: (&'a [u8], usize),
    /// `struct bpf_line_info`s, and how many.
    pub lines: (&'a [u8], usize),
}

/// `BPF_PROG_LOAD`; with a log buffer, the verifier writes into it. `log` empty means that no log is wanted.
pub fn prog_load(prog: &ProgAttr<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    let ProgAttr { name, prog_type, expected_attach_type, instructions, license, btf } = prog;
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_name = kernel_name(name);
    load.prog_type = *prog_type;
    load.expected_attach_type = *expected_attach_type;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    load.license = license.as_ptr() as u64;
    if let Some(ProgBtf { fd, functions, lines }) = btf {
        load.prog_btf_fd = raw(*fd);
        if functions.1 > 0 {
            load.func_info = functions.0.as_ptr() as u64;
            load.func_info_cnt = u32::try_from(functions.1).unwrap_or(u32::MAX);
            load.func_info_rec_size = size_of::<aya_obj::generated::bpf_func_info>() as u32;
        }
        if lines.1 > 0 {
            load.line_info = lines.0.as_ptr() as u64;
            load.line_info_cnt = u32::try_from(lines.1).unwrap_or(u32::MAX);
            load.line_info_rec_size = size_of::<aya_obj::generated::bpf_line_info>() as u32;
        }
    }
    if !log.is_empty() {
        // 1: the path to the instruction that was refused, as libbpf asks for it.
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// `BPF_OBJ_PIN`; the path is from the directory, where one is given.
pub fn obj_pin(object: BorrowedFd<'_>, from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<()> {
    let c_path = c_path(path)?;
    let mut attr = at(from, &c_path);
    attr.__bindgen_anon_4.bpf_fd = raw(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// `BPF_OBJ_GET`; the path is from the directory, where one is given.
pub fn obj_get(from: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let c_path = c_path(path)?;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut at(from, &c_path))
}

/// Whether [`obj_pin`] and [`obj_get`] take directories: kernels before 6.5 refuse the flag before they look at the path.
pub fn takes_directories() -> bool {
    static TAKES: LazyLock<bool> = LazyLock::new(|| {
        let answer = obj_get(Some(rustix::fs::CWD), Path::new(""));
        answer.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    *TAKES
}

/// The attribute that names a pin, which must not outlive the path.
fn at(from: Option<BorrowedFd<'_>>, path: &CStr) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: as above.
    let at = unsafe { &mut attr.__bindgen_anon_4 };
    at.pathname = path.as_ptr() as u64;
    if let Some(from) = from {
        at.file_flags = F_PATH_FD;
        at.path_fd = from.as_raw_fd();
    }
    attr
}

/// `BPF_LINK_CREATE` on a cgroup or a map. A cgroup link is always "multi": it stands beside other links, after all of them or
/// right before a given one.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
    before: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let create = unsafe { &mut attr.link_create };
    if let Some(link) = before {
        create.flags = F_BEFORE | F_LINK;
        // A cgroup's relative link stands where that of tcx does.
        create.__bindgen_anon_3.tcx.__bindgen_anon_1.relative_fd = raw(link);
    }
    create.__bindgen_anon_1.prog_fd = raw(program);
    create.__bindgen_anon_2.target_fd = raw(target);
    create.attach_type = attach_type;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr).call(|| "BPF_LINK_CREATE")
}

/// The answer to `BPF_LINK_CREATE` that names no cgroup or map: it tells what the kernel knows, and attaches nothing.
pub fn link_create_nowhere(program: BorrowedFd<'_>, attach_type: u32, flags: u32) -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above.
    let create = unsafe { &mut attr.link_create };
    create.__bindgen_anon_1.prog_fd = raw(program);
    create.__bindgen_anon_2.target_fd = NO_FD;
    create.attach_type = attach_type;
    create.flags = flags;
    refusal(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr))
}

/// The answer to `BPF_LINK_UPDATE` that names no link.
pub fn link_update_nothing() -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above.
    let update = unsafe { &mut attr.link_update };
    update.link_fd = NO_FD;
    update.__bindgen_anon_1.new_prog_fd = NO_FD;
    refusal(bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr))
}

/// Why a call was refused that can only be refused.
fn refusal(answer: io::Result<i64>) -> io::Error {
    answer.err().unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// `BPF_LINK_UPDATE`: the link runs `new` from now on, with no moment in between; refused (EPERM) unless it ran `expected`.
pub fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    expected: Option<BorrowedFd<'_>>,
) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let update = unsafe { &mut attr.link_update };
    update.link_fd = raw(link);
    update.__bindgen_anon_1.new_prog_fd = raw(new);
    if let Some(expected) = expected {
        update.flags = F_REPLACE;
        update.__bindgen_anon_2.old_prog_fd = raw(expected);
    }
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop).call(|| "BPF_LINK_UPDATE")
}

/// `BPF_LINK_DETACH`: the link runs nothing any more, whoever else holds it.
pub fn link_detach(link: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = raw(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop).call(|| "BPF_LINK_DETACH")
}

/// `BPF_LINK_CREATE` on a map; nothing where the kernel has no links for maps.
pub fn map_link(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<Option<OwnedFd>, SysError> {
    let made = fault::point(|| "sockmap link").call(|| "BPF_LINK_CREATE");
    known(made.and_then(|()| link_create(program, map, attach_type, None)))
}

/// `BPF_PROG_ATTACH` to a map: in place of what was attached there, with no moment in between. The map's descriptors and pins
/// hold it.
pub fn map_attach(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<(), SysError> {
    on_map(bpf_cmd::BPF_PROG_ATTACH, program, map, attach_type).call(|| "BPF_PROG_ATTACH")
}

/// `BPF_PROG_DETACH` from a map of that very program; says whether it was attached, and without a link.
pub fn map_detach(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<bool, SysError> {
    match on_map(bpf_cmd::BPF_PROG_DETACH, program, map, attach_type) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY)) => Ok(false),
        done => done.map(|()| true).call(|| "BPF_PROG_DETACH"),
    }
}

fn on_map(cmd: bpf_cmd, program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let attach = unsafe { &mut attr.__bindgen_anon_5 };
    attach.__bindgen_anon_1.target_fd = raw(map);
    attach.attach_bpf_fd = raw(program);
    attach.attach_type = attach_type;
    bpf(cmd, &mut attr).map(drop)
}

/// The answer of a call that a kernel which does not know it refuses with EINVAL: then nothing.
fn known<T>(answer: Result<T, SysError>) -> Result<Option<T>, SysError> {
    match answer {
        Err(error) if error.errno() == Some(libc::EINVAL) => Ok(None),
        answer => answer.map(Some),
    }
}

/// What is attached at a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// Program IDs, in the order they run.
    pub programs: Vec<u32>,
    /// Whether they let others stand beside them. Links do; `BPF_PROG_ATTACH` only with `BPF_F_ALLOW_MULTI`.
    pub shared: bool,
}

/// `BPF_PROG_QUERY` of a map: the program that runs for sockets which enter it; nothing known where the kernel does not tell.
pub fn map_query(map: BorrowedFd<'_>, attach_type: u32) -> Result<Option<Vec<u32>>, SysError> {
    let may = fault::point(|| "sockmap query").call(|| "BPF_PROG_QUERY");
    match may.and_then(|()| prog_query(map, attach_type)) {
        // Of both verdicts on what is received a map has one at most: it has the other.
        Err(error) if error.errno() == Some(libc::EBUSY) => Ok(Some(Vec::new())),
        answer => known(answer.map(|found| found.programs)),
    }
}

/// The answer to `BPF_PROG_QUERY` that names no cgroup or map.
pub fn prog_query_nowhere(attach_type: u32) -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above; there is nothing to be written to.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = NO_FD;
    query.attach_type = attach_type;
    refusal(bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr))
}

/// `BPF_PROG_QUERY`: what is attached at that very cgroup.
pub fn prog_query(cgroup: BorrowedFd<'_>, attach_type: u32) -> Result<Attachments, SysError> {
    let mut ids = [0u32; MAX_PROGRAMS_PER_CGROUP];
    let mut attr = zeroed();
    // SAFETY: as above; `ids` outlives the call and holds as many as `count` says.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = raw(cgroup);
    query.attach_type = attach_type;
    query.prog_ids = ids.as_mut_ptr() as u64;
    query.__bindgen_anon_2.count = ids.len() as u32;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr).call(|| "BPF_PROG_QUERY")?;
    // SAFETY: the kernel wrote the member that we gave it.
    let (count, flags) = unsafe { (attr.query.__bindgen_anon_2.count as usize, attr.query.attach_flags) };
    Ok(Attachments { programs: ids.into_iter().take(count).collect(), shared: flags & F_ALLOW_MULTI != 0 })
}

/// `BPF_OBJ_GET_INFO_BY_FD` into a `struct bpf_*_info`. `T` must be the struct of the descriptor's kind.
///
/// # Safety
/// `T` is a plain struct of integers whose pointers, where it has any, point to memory of the size it says.
pub(super) unsafe fn obj_info<T>(object: BorrowedFd<'_>, info: &mut T) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above; the kernel writes at most `info_len` bytes.
    let get = unsafe { &mut attr.info };
    get.bpf_fd = raw(object);
    get.info_len = size_of::<T>() as u32;
    get.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop).call(|| "BPF_OBJ_GET_INFO_BY_FD")
}
