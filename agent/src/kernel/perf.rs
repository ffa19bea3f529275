//! A perf buffer: one buffer for each processor, which exist while somebody reads them.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::maps::{
    Map, MapData, PerfEventArray,
    perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer},
};

use super::{
    Call as _, Fd, SysError, bpf,
    ring::{as_io, wait},
};

/// The pages of each processor's buffer: 256 KiB where pages have 4.
const PAGES: usize = 64;

/// The buffers of all processors.
pub struct PerfBuffers {
    fd: Fd,
    buffers: Vec<(u32, PerfEventArrayBuffer<MapData>)>,
}

/// One thing that was in a buffer.
pub enum Taken<'a> {
    /// A record, and the padding that the kernel puts after it.
    Record(&'a [u8]),
    /// The kernel had no room for so many records.
    Dropped(u64),
}

impl PerfBuffers {
    /// Opens a buffer for each processor that is online.
    ///
    /// # Errors
    /// EACCES where kernel.perf_event_paranoid is 3, as on Debian, which then asks for CAP_SYS_ADMIN.
    pub fn open(fd: &Fd) -> Result<Self, SysError> {
        let own = fd.try_clone().call(|| "dup of a perf buffer's descriptor")?;
        let map = MapData::from_fd(own).and_then(Map::from_map_data).and_then(PerfEventArray::try_from);
        let mut map = map.map_err(as_io).call(|| "opening of a perf buffer")?;
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error).call(|| "list of processors")?;
        let mut opened = Self { fd: fd.clone(), buffers: Vec::new() };
        for cpu in cpus {
            let buffer = map.open(cpu, Some(PAGES)).map_err(of_buffer).call(|| "perf_event_open")?;
            opened.buffers.push((cpu, buffer));
        }
        Ok(opened)
    }

    /// Consumes what is in the buffers, at most so many records of each processor's; returns whether there may be more.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(Taken<'_>)) -> bool {
        let mut more = false;
        for (_, buffer) in &mut self.buffers {
            let taken = buffer.try_fold(0, |taken, event| {
                match event {
                    PerfEvent::Sample { head, tail: [] } => take(Taken::Record(head)),
                    PerfEvent::Sample { head, tail } => take(Taken::Record(&[head, tail].concat())),
                    PerfEvent::Lost { count } => take(Taken::Dropped(count)),
                }
                // An event at which the walk ends is consumed, too.
                if taken + 1 < most { ControlFlow::Continue(taken + 1) } else { ControlFlow::Break(()) }
            });
            more |= taken.is_break();
        }
        more
    }

    /// Waits until there is a record, at most for a time.
    pub fn wait(&self, at_most: Duration) {
        let fds: Vec<i32> = self.buffers.iter().map(|(_, buffer)| buffer.as_raw_fd()).collect();
        wait(&fds, at_most);
    }
}

impl Drop for PerfBuffers {
    fn drop(&mut self) {
        // The map would hold the events for as long as the agent has it open (`perf_event_fd_array_release`).
        for (cpu, _) in &self.buffers {
            if let Err(error) = bpf::map_delete(self.fd.as_fd(), &cpu.to_ne_bytes()) {
                tracing::debug!(%error, cpu, "a perf event stays in its map");
            }
        }
    }
}

fn of_buffer(error: PerfBufferError) -> io::Error {
    match error {
        PerfBufferError::OpenError { io_error } | PerfBufferError::MMapError { io_error } => io_error,
        other => io::Error::other(other.to_string()),
    }
}
