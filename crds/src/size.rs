//! The size of a value as JSON. No IO.

use std::io;

use serde::Serialize;

/// Returns the number of bytes that a value has as JSON, without writing them down.
pub fn json_len(value: &impl Serialize) -> usize {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_or(0, |()| length.0)
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
