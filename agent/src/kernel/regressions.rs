//! Known regressions, each found by behaviour: distributions backport what brings one and what mends it, so that the
//! kernel's version says neither.
#![expect(unsafe_code, reason = "TCP_REPAIR has no safe form")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, send, socket_with};
use sockeye_crds::Regression;
use sockeye_ebpf::kinds::map_type::SOCKMAP;

use super::{
    Call as _, SysError,
    bpf::{self, MapAttr, PROBE_NAME},
    verifier::{EXIT, MOV, prog_load},
};
use crate::model::{kernel::ProgramKind, regressions::Regressions};

/// `BPF_PROG_TYPE_SK_MSG`, `BPF_SK_MSG_VERDICT`
const SK_MSG: ProgramKind = ProgramKind { prog_type: 16, attach_type: 7 };
/// The bytes that lie unread in the probe.
const UNREAD: [u8; 100] = [0; 100];
/// The port to which the probe's connection seems to lead. Nothing is sent there.
const PORT: u16 = 9;
/// `TCP_REPAIR_ON`, and `TCP_RECV_QUEUE` of `TCP_REPAIR_QUEUE`
const REPAIR_ON: libc::c_int = 1;
const RECV_QUEUE: libc::c_int = 1;

/// Probes whether this kernel has each known regression.
pub fn ask() -> Regressions {
    let mut answers = Regressions::default();
    for regression in Regression::ALL {
        let answer = match regression {
            Regression::SockmapFionread => forgets_unread_bytes(),
        };
        match answer {
            Ok(true) => drop(answers.found.insert(regression)),
            Ok(false) => {}
            Err(error) => drop(answers.unknown.insert(regression, error.to_string())),
        }
    }
    answers
}

/// Returns whether FIONREAD forgets the unread bytes of a socket that enters a sockmap.
///
/// The probe has one socket, no peer, and sends no packet: with `TCP_REPAIR`, `connect` makes a connection of the
/// socket alone, `send` puts bytes into its own receive queue, and `close` resets nobody. The maps go
/// with the probe and have no other socket.
fn forgets_unread_bytes() -> Result<bool, SysError> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).call(|| "socket")?;
    set(socket.as_fd(), libc::TCP_REPAIR, REPAIR_ON).call(|| "setsockopt of TCP_REPAIR")?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)).call(|| "connect of a socket in repair")?;
    set(socket.as_fd(), libc::TCP_REPAIR_QUEUE, RECV_QUEUE).call(|| "setsockopt of TCP_REPAIR_QUEUE")?;
    send(&socket, &UNREAD, SendFlags::empty()).call(|| "send of a socket in repair")?;
    let with_program = probe_map()?;
    let program = prog_load(SK_MSG, &[MOV, EXIT], &mut []).call(|| "BPF_PROG_LOAD")?;
    bpf::map_attach(program.as_fd(), with_program.as_fd(), SK_MSG.attach_type)?;
    let bare = probe_map()?;
    match join(&socket, with_program.as_fd()) {
        // A sockops program on the agent's cgroup had the socket join a map with such a program.
        Err(error) if error.errno() == Some(libc::EBUSY) => join(&socket, bare.as_fd())?,
        joined => joined?,
    }
    Ok(unread(&socket)? != UNREAD.len() as u64)
}

/// Makes a map for one socket.
fn probe_map() -> Result<OwnedFd, SysError> {
    bpf::map_create(&MapAttr {
        name: PROBE_NAME,
        map_type: SOCKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..MapAttr::default()
    })
}

fn join(socket: &OwnedFd, map: BorrowedFd<'_>) -> Result<(), SysError> {
    bpf::map_update(map, Some(&0u32.to_ne_bytes()), &socket.as_raw_fd().to_ne_bytes())
}

fn unread(socket: &OwnedFd) -> Result<u64, SysError> {
    rustix::io::ioctl_fionread(socket).call(|| "FIONREAD")
}

fn set(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads as many bytes of `value` as `size` says.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, std::ptr::from_ref(&value).cast(), size)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
