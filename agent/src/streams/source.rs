//! `Source`: where records come from. Does IO: reads the kernel's buffers.

use std::time::Duration;

use aya_obj::generated::bpf_map_type;

use crate::{
    kernel::{
        Fd, SysError,
        perf::{PerfBuffers, Taken},
        ring::Ring,
    },
    model::kernel::MapInfo,
};

/// The records that one look takes at most, so that readers get them soon and the end is noticed.
const BATCH: usize = 256;
/// The bytes of a ring that go with each record (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// The bytes of the perf buffer of one processor.
const PERF_BYTES: usize = 256 << 10;

/// A buffer of the kernel's.
pub trait Source {
    /// Takes what there is, up to a limit; returns its bytes.
    fn drain(&mut self, take: &mut dyn FnMut(Taken<'_>)) -> Drained;
    /// Waits until there is a record, at most for a time.
    fn wait(&self, at_most: Duration);
    /// Returns the bytes that it can hold.
    fn capacity(&self) -> usize;
}

/// The result of a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// The bytes of the records.
    pub bytes: usize,
    /// There may be more.
    pub more: bool,
}

/// Opens the buffer of a map.
///
/// # Errors
/// Fails where the kernel does not let the agent read it.
pub fn open(fd: &Fd, info: &MapInfo) -> Result<Box<dyn Source>, SysError> {
    if info.map_type == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 {
        return Ok(Box::new(RingSource { ring: Ring::of(fd)?, capacity: info.max_entries as usize }));
    }
    Ok(Box::new(PerfBuffers::open(fd)?))
}

struct RingSource {
    ring: Ring,
    capacity: usize,
}

impl Source for RingSource {
    fn drain(&mut self, take: &mut dyn FnMut(Taken<'_>)) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..BATCH {
            let taken = self.ring.take(|record| {
                take(Taken::Record(record));
                record.len()
            });
            let Some(bytes) = taken else { return drained };
            drained.bytes += bytes + HEADER;
        }
        Drained { more: true, ..drained }
    }

    fn wait(&self, at_most: Duration) {
        self.ring.wait(at_most);
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Source for PerfBuffers {
    fn drain(&mut self, take: &mut dyn FnMut(Taken<'_>)) -> Drained {
        let mut bytes = 0;
        let more = self.drain(BATCH, |taken| {
            if let Taken::Record(record) = &taken {
                bytes += record.len() + HEADER;
            }
            take(taken);
        });
        Drained { bytes, more }
    }

    fn wait(&self, at_most: Duration) {
        self.wait(at_most);
    }

    fn capacity(&self) -> usize {
        PERF_BYTES
    }
}
