//! `Buffer`: a buffer that is read, with what its readers share; and `Subscription`: one reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{
    backlog::{Backlog, Cursor, Read},
    record_writer::RecordWriter,
};

/// The bytes of lines that a reader gets at a time, about.
const CHUNK: usize = 16 << 10;

/// A buffer that is read.
#[derive(Debug)]
pub struct Buffer {
    /// Writes its records.
    pub writer: RecordWriter,
    state: Mutex<State>,
    /// Counts what there is to see.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    backlog: Backlog,
    /// The readers.
    readers: usize,
    /// There was one.
    is_read: bool,
    /// Nobody reads it any more, and nobody may begin to.
    stopped: bool,
    /// Why there is nothing more to come.
    ended: Option<Arc<str>>,
}

/// The next thing that a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Gaps and lines.
    Read(Read),
    /// The end, for this reason.
    End(Arc<str>),
}

impl Buffer {
    /// Returns a buffer without readers.
    pub fn new(writer: RecordWriter) -> Self {
        Self { writer, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a subscription; none if it is no longer read.
    pub fn subscribe(self: &Arc<Self>) -> Option<Subscription> {
        let mut state = self.state();
        if state.stopped || state.ended.is_some() {
            return None;
        }
        let is_first = !std::mem::replace(&mut state.is_read, true);
        state.readers += 1;
        let cursor = state.backlog.end();
        Some(Subscription {
            buffer: Arc::clone(self),
            cursor,
            changed: self.changed.subscribe(),
            ended: false,
            is_first,
        })
    }

    /// Adds records to be read, and gaps.
    pub(super) fn add(&self, add: impl FnOnce(&mut Backlog)) {
        add(&mut self.state().backlog);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends it for all readers, for this reason.
    pub fn end(&self, why: &str) {
        self.state().ended.get_or_insert_with(|| why.into());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Returns whether it is to be read no more: it has ended, or nobody listens. Then nobody can begin to.
    pub(super) fn stop(&self) -> bool {
        let mut state = self.state();
        state.stopped |= state.readers == 0 || state.ended.is_some();
        state.stopped
    }

    /// Returns whether anybody may still read it.
    pub fn is_live(&self) -> bool {
        let state = self.state();
        !state.stopped && state.ended.is_none()
    }
}

/// One reader of a buffer. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    buffer: Arc<Buffer>,
    cursor: Cursor,
    changed: watch::Receiver<u64>,
    ended: bool,
    is_first: bool,
}

impl Subscription {
    /// Returns whether nobody read the buffer before.
    pub const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Returns the buffer.
    pub fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// Waits for what comes next. After the end there is nothing.
    pub async fn next(&mut self) -> Option<Next> {
        loop {
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            let (read, ended) = {
                let state = self.buffer.state();
                (state.backlog.read(&mut self.cursor, CHUNK), state.ended.clone())
            };
            if !read.is_empty() {
                return Some(Next::Read(read));
            }
            if let Some(why) = ended {
                self.ended = true;
                return Some(Next::End(why));
            }
            // The sender is the buffer's own.
            self.changed.changed().await.ok()?;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.buffer.state().readers -= 1;
    }
}
