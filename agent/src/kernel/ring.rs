//! A ring buffer that programs fill. Reading consumes: of two readers each gets a part of the records.

use std::{io, os::fd::AsRawFd as _, path::Path, time::Duration};

use aya::maps::{Map, MapData, MapError, RingBuf};

use super::{Call as _, Fd, SysError};

/// An open ring buffer.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// Opens the ring buffer at a pin.
    pub fn open(pin: &Path) -> Result<Self, SysError> {
        let map = MapData::from_pin(pin).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        map.map(Self).map_err(as_io).call(|| format!("opening of the ring buffer {}", pin.display()))
    }

    /// Opens the ring buffer of a descriptor.
    pub fn of(fd: &Fd) -> Result<Self, SysError> {
        let fd = fd.try_clone().call(|| "dup of a ring buffer's descriptor")?;
        let map = MapData::from_fd(fd).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        map.map(Self).map_err(as_io).call(|| "mapping of a ring buffer")
    }

    /// Consumes the next record, if there is one, and returns what `read` makes of it.
    pub fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.0.next().map(|record| read(&record))
    }

    /// Waits until there is a record, at most for a time.
    pub fn wait(&self, at_most: Duration) {
        wait(&[self.0.as_raw_fd()], at_most);
    }
}

/// Waits until any of some buffers has a record, at most for a time. Whatever comes in between may end it early.
#[expect(unsafe_code, reason = "rustix has poll(2) behind a feature that nothing else needs")]
pub(super) fn wait(buffers: &[i32], at_most: Duration) {
    let of = |fd: &i32| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    let mut buffers: Vec<libc::pollfd> = buffers.iter().map(of).collect();
    let timeout = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length are those of one vector, which lives until the call returns.
    unsafe { libc::poll(buffers.as_mut_ptr(), buffers.len() as libc::nfds_t, timeout) };
}

/// The kernel's answer, if the error is one of a system call.
pub(super) fn as_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other.to_string()),
    }
}
