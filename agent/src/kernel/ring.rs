//! A ring buffer that programs fill, read through its pin. Reading consumes: of two readers each gets a part of the
//! records.

use std::{io, path::Path};

use aya::maps::{Map, MapData, MapError, RingBuf};

use super::{Call as _, SysError};

/// An open ring buffer.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// Opens the ring buffer at a pin.
    pub fn open(pin: &Path) -> Result<Self, SysError> {
        let map = MapData::from_pin(pin).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        map.map(Self).map_err(as_io).call(|| format!("opening of the ring buffer {}", pin.display()))
    }

    /// Consumes the next record, if there is one, and returns what `read` makes of it.
    pub fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.0.next().map(|record| read(&record))
    }
}

/// The kernel's answer, if the error is one of a system call.
fn as_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other.to_string()),
    }
}
