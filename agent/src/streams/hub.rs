//! `Hub`: the buffers that are read now, by the kernel's IDs of their maps.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread::Builder,
};

use sockeye_ebpf::values::RecordShape;

use super::{
    buffer::{Buffer, Subscription},
    pods::Owners,
    reader::read,
    record_writer::RecordWriter,
    source::{self, Source},
};
use crate::{
    kernel::{Fd, SysError},
    model::kernel::MapInfo,
};

/// The buffers that are read at a time. Each has a thread, and up to 4 MiB of records.
const MAX_BUFFERS: usize = 8;

/// The end of a stream whose records are another type's from here on.
pub const RETYPED: &str =
    "the spec or the object was edited, so that records are decoded otherwise from here on: ask again";

/// The buffers that are read now.
#[derive(Debug, Default)]
pub struct Hub {
    buffers: Mutex<BTreeMap<u32, Entry>>,
}

/// A buffer.
#[derive(Debug)]
struct Entry {
    buffer: Arc<Buffer>,
    /// Held by the thread that reads the map: there is one at a time.
    turn: Arc<Mutex<()>>,
}

/// A reader's request.
#[derive(Debug)]
pub struct Request {
    /// The agent's descriptor of the map.
    pub fd: Fd,
    /// The kernel's information on the map.
    pub info: MapInfo,
    /// The type of the records.
    pub shape: RecordShape,
    /// The pods that cgroups belong to.
    pub owners: Owners,
}

/// The reason why a reader gets nothing.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// As many buffers are read as the agent reads at a time.
    #[error("the agent reads {MAX_BUFFERS} buffers, as many as it reads at a time: ask again later")]
    TooMany,
    /// The kernel does not let the agent read the buffer.
    #[error(transparent)]
    Refused(#[from] SysError),
    /// No thread can be started.
    #[error("no thread can be started to read the buffer")]
    NoThread,
}

impl Hub {
    /// Begins to read a buffer, or joins those who read it. One that decodes its records otherwise ends the streams of
    /// the others: the spec was edited meanwhile. Blocks until the buffer is open.
    ///
    /// # Errors
    /// Fails where there is no room, or the buffer can't be opened.
    pub fn subscribe(&self, request: Request) -> Result<Subscription, SubscribeError> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended stays until its thread has.
        buffers.retain(|_, entry| entry.buffer.is_live() || Arc::strong_count(&entry.turn) > 1);
        let known = buffers.get(&request.info.id);
        if let Some(Entry { buffer, .. }) = known {
            match buffer.writer.is_like(&request.shape) {
                true => {
                    if let Some(subscription) = buffer.subscribe() {
                        return Ok(subscription);
                    }
                }
                false => buffer.end(RETYPED),
            }
        } else if buffers.len() >= MAX_BUFFERS {
            return Err(SubscribeError::TooMany);
        }
        let turn = known.map(|entry| Arc::clone(&entry.turn)).unwrap_or_default();
        let Request { fd, info, shape, owners } = request;
        let buffer = Arc::new(Buffer::new(RecordWriter::new(shape, owners)));
        let subscription = buffer.subscribe().ok_or(SubscribeError::NoThread)?;
        start(&buffer, &turn, (fd, info.clone()))?;
        buffers.insert(info.id, Entry { buffer, turn });
        Ok(subscription)
    }
}

/// Starts a thread that reads a buffer, once the one before it has ended; returns once the buffer is open.
fn start(buffer: &Arc<Buffer>, turn: &Arc<Mutex<()>>, (fd, info): (Fd, MapInfo)) -> Result<(), SubscribeError> {
    let (opened, opening) = sync_channel::<Result<(), SysError>>(1);
    let (buffer, turn) = (Arc::clone(buffer), Arc::clone(turn));
    let run = move || {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Not before: a ring's reader begins where the last one ended.
        let mut source: Box<dyn Source> = match source::open(&fd, &info) {
            Ok(source) => source,
            Err(error) => return drop(opened.send(Err(error))),
        };
        drop(opened.send(Ok(())));
        read(&buffer, &mut *source);
    };
    let thread = Builder::new().name("stream".to_owned()).spawn(run);
    thread.map_err(|_| SubscribeError::NoThread)?;
    opening.recv().map_err(|_| SubscribeError::NoThread)??;
    Ok(())
}
