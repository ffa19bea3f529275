//! Attachments: links, programs that a map holds without a link, and the kernel's query of what is attached.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_cmd;

use super::call::{bpf, bpf_fd, raw, zeroed};
use crate::kernel::{Call as _, SysError, fault};

/// `BPF_F_REPLACE`: the link update names the program that it expects to replace.
const F_REPLACE: u32 = 1 << 2;
/// `BPF_F_ALLOW_MULTI`: the attachment lets others be attached to the same cgroup.
const F_ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_BEFORE`: the program runs right before a given one.
pub const F_BEFORE: u32 = 1 << 3;
/// `BPF_F_LINK`: the given one is named by its link.
const F_LINK: u32 = 1 << 13;
/// No descriptor: -1 in the kernel's attribute.
const NO_FD: u32 = u32::MAX;
/// The most programs per cgroup and attach type (`BPF_CGROUP_MAX_PROGS`).
pub const MAX_PROGRAMS_PER_CGROUP: usize = 64;

/// The position of a new link among those of a cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position<'a> {
    /// The link right before which it is to run; `None` means after all others.
    pub before: Option<BorrowedFd<'a>>,
    /// The revision of the list that the position was worked out from. If the list has changed since, the kernel
    /// refuses the link (ESTALE, `__cgroup_bpf_attach` in kernel/bpf/cgroup.c). Zero takes any list.
    pub revision: u64,
}

/// `BPF_LINK_CREATE` on a cgroup or a map. A cgroup link always allows others on the cgroup.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
    position: Position<'_>,
) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: every member of the union is plain integers, zeroed above.
    let create = unsafe { &mut attr.link_create };
    // For a cgroup the relative link and the revision have the same places in the attribute as for tcx.
    create.__bindgen_anon_3.tcx.expected_revision = position.revision;
    if let Some(link) = position.before {
        fault::point(|| "ordered link").call(|| "BPF_LINK_CREATE")?;
        create.flags = F_BEFORE | F_LINK;
        create.__bindgen_anon_3.tcx.__bindgen_anon_1.relative_fd = raw(link);
    }
    create.__bindgen_anon_1.prog_fd = raw(program);
    create.__bindgen_anon_2.target_fd = raw(target);
    create.attach_type = attach_type;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr).call(|| "BPF_LINK_CREATE")
}

/// `BPF_LINK_CREATE` without a cgroup or map. It attaches nothing; the error tells whether the kernel knows the attach
/// type.
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

/// `BPF_PROG_ATTACH` without a cgroup or map. It attaches nothing; the error tells whether the kernel knows the attach
/// type.
pub fn prog_attach_nowhere(program: BorrowedFd<'_>, attach_type: u32) -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above.
    let attach = unsafe { &mut attr.__bindgen_anon_5 };
    attach.__bindgen_anon_1.target_fd = NO_FD;
    attach.attach_bpf_fd = raw(program);
    attach.attach_type = attach_type;
    refusal(bpf(bpf_cmd::BPF_PROG_ATTACH, &mut attr))
}

/// `BPF_LINK_UPDATE` without a link. The error tells whether the kernel knows the command.
pub fn link_update_nothing() -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above.
    let update = unsafe { &mut attr.link_update };
    update.link_fd = NO_FD;
    update.__bindgen_anon_1.new_prog_fd = NO_FD;
    refusal(bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr))
}

/// The error of a call that can only fail.
fn refusal(answer: io::Result<i64>) -> io::Error {
    answer.err().unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// `BPF_LINK_UPDATE`: the link atomically switches to `new`. The kernel refuses (EPERM) unless the link ran `expected`.
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

/// `BPF_LINK_DETACH`: the link runs nothing any more, even if others hold it too.
pub fn link_detach(link: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = raw(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop).call(|| "BPF_LINK_DETACH")
}

/// `BPF_LINK_CREATE` on a map; `None` if the kernel has no links for maps.
pub fn map_link(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<Option<OwnedFd>, SysError> {
    let fault = fault::point(|| "sockmap link").call(|| "BPF_LINK_CREATE");
    if_supported(fault.and_then(|()| link_create(program, map, attach_type, Position::default())))
}

/// `BPF_PROG_ATTACH` to a map: atomically replaces what was attached there. The map holds the program.
pub fn map_attach(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<(), SysError> {
    map_command(bpf_cmd::BPF_PROG_ATTACH, program, map, attach_type).call(|| "BPF_PROG_ATTACH")
}

/// `BPF_PROG_DETACH` of that very program from a map; returns whether the map held it without a link. A kernel that
/// does not know the attach type, such as 5.10 `sk_skb_verdict`, says EINVAL: nothing is attached by it.
pub fn map_detach(program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> Result<bool, SysError> {
    match map_command(bpf_cmd::BPF_PROG_DETACH, program, map, attach_type) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY | libc::EINVAL)) => Ok(false),
        done => done.map(|()| true).call(|| "BPF_PROG_DETACH"),
    }
}

fn map_command(cmd: bpf_cmd, program: BorrowedFd<'_>, map: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let attach = unsafe { &mut attr.__bindgen_anon_5 };
    attach.__bindgen_anon_1.target_fd = raw(map);
    attach.attach_bpf_fd = raw(program);
    attach.attach_type = attach_type;
    bpf(cmd, &mut attr).map(drop)
}

/// Turns EINVAL, by which a kernel refuses a call that it does not know, into `None`.
fn if_supported<T>(answer: Result<T, SysError>) -> Result<Option<T>, SysError> {
    match answer {
        Err(error) if error.errno() == Some(libc::EINVAL) => Ok(None),
        answer => answer.map(Some),
    }
}

/// The programs attached to a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// Program IDs, in the order in which they run.
    pub programs: Vec<u32>,
    /// Whether others may be attached to the cgroup too. Links allow it; `BPF_PROG_ATTACH` only with
    /// `BPF_F_ALLOW_MULTI`.
    pub allows_others: bool,
    /// The number of the list, which grows with each change (Linux 6.17); zero if the kernel gives none.
    pub revision: u64,
}

/// `BPF_PROG_QUERY` of a map: the program that runs for sockets that enter it; `None` if the kernel does not tell.
pub fn map_query(map: BorrowedFd<'_>, attach_type: u32) -> Result<Option<Vec<u32>>, SysError> {
    let fault = fault::point(|| "sockmap query").call(|| "BPF_PROG_QUERY");
    match fault.and_then(|()| prog_query(map, attach_type)) {
        // A map has at most one of the two verdicts on received data: this one has the other.
        Err(error) if error.errno() == Some(libc::EBUSY) => Ok(Some(Vec::new())),
        answer => if_supported(answer.map(|found| found.programs)),
    }
}

/// `BPF_PROG_QUERY` without a cgroup or map. The error tells whether the kernel can query that attach type.
pub fn prog_query_nowhere(attach_type: u32) -> io::Error {
    let mut attr = zeroed();
    // SAFETY: as above; the attribute names no memory to write to.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = NO_FD;
    query.attach_type = attach_type;
    refusal(bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr))
}

/// `BPF_PROG_QUERY`: the programs attached to that very cgroup, without those above it.
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
    // SAFETY: the kernel wrote the member of the union that was set above.
    let (query, count) = unsafe { (&attr.query, attr.query.__bindgen_anon_2.count as usize) };
    Ok(Attachments {
        programs: ids.into_iter().take(count).collect(),
        allows_others: query.attach_flags & F_ALLOW_MULTI != 0,
        revision: query.revision,
    })
}
