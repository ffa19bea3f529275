//! What runs where: links, attachments without one, and the kernel's answer to who is attached.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_cmd;

use super::{bpf, bpf_fd, raw, zeroed};
use crate::kernel::{Call as _, SysError, fault};

/// `BPF_F_REPLACE`: a link update names the program that it expects to replace.
const F_REPLACE: u32 = 1 << 2;
/// `BPF_F_ALLOW_MULTI`: an attachment that others may stand beside.
const F_ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_BEFORE`: a place in the order in which programs run.
pub const F_BEFORE: u32 = 1 << 3;
/// `BPF_F_LINK`: which is told by a link.
const F_LINK: u32 = 1 << 13;
/// No descriptor: -1, in the kernel's attribute.
const NO_FD: u32 = u32::MAX;
/// At most so many programs per cgroup and attach type (`BPF_CGROUP_MAX_PROGS`).
pub const MAX_PROGRAMS_PER_CGROUP: usize = 64;

/// `BPF_LINK_CREATE` on a cgroup or a map. A cgroup link is always "multi": it stands beside other links, after all of them or
/// right before a given one.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
    before: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
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
