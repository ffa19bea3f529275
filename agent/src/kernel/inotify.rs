//! inotify: reports what comes into directories and goes from them. On bpffs that is pins and notes.
//!
//! An instance has two halves, so that one thread may add directories while a task elsewhere awaits what happens in
//! them: [`Inotify`] adds directories and never blocks, [`Events`] waits.
#![expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor of one's own")]

use std::{mem::MaybeUninit, path::Path};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::{Call as _, Fd, SysError};

/// The events of names that come into a directory or go from it.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The half of an inotify instance that adds directories.
#[derive(Debug)]
pub struct Inotify {
    fd: Fd,
    mask: WatchFlags,
}

/// The half of an inotify instance that waits.
#[derive(Debug)]
pub struct Events {
    fd: Fd,
    /// The same descriptor, once a runtime waits for it.
    registered: Option<AsyncFd<Fd>>,
}

/// One event: in a watched directory, or of the instance itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A name in the directory came, went or was replaced.
    Within(i32),
    /// The directory is no longer watched: it was removed, or its file system was unmounted.
    Gone(i32),
    /// The kernel dropped events: anything may have happened in any directory.
    Lost,
}

impl Inotify {
    /// Makes an instance that watches nothing yet.
    pub fn new() -> Result<(Self, Events), SysError> {
        Self::with(NAMES | WatchFlags::CLOSE_WRITE)
    }

    /// Makes an instance that reports names only, and not that a file was written.
    pub fn of_names() -> Result<(Self, Events), SysError> {
        Self::with(NAMES)
    }

    fn with(mask: WatchFlags) -> Result<(Self, Events), SysError> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).call(|| "inotify_init1")?;
        let fd = Fd::new(fd);
        Ok((Self { fd: Fd::clone(&fd), mask }, Events { fd, registered: None }))
    }

    /// Watches a directory, and returns the number by which events name it. A directory that is watched already keeps
    /// its number.
    pub fn add(&self, dir: &Path) -> Result<i32, SysError> {
        inotify::add_watch(&self.fd, dir, self.mask).call(|| format!("inotify_add_watch of {}", dir.display()))
    }
}

impl Events {
    /// Waits until something happens, and returns everything that happened since the last call. Call it within a tokio
    /// runtime. Cancellation loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Happened>, SysError> {
        let registered = match &mut self.registered {
            Some(registered) => registered,
            None => self.registered.insert(register(&self.fd)?),
        };
        loop {
            let mut ready = registered.readable().await.call(|| "wait for inotify")?;
            let happened = read(&self.fd)?;
            ready.clear_ready();
            if !happened.is_empty() {
                return Ok(happened);
            }
        }
    }
}

fn register(fd: &Fd) -> Result<AsyncFd<Fd>, SysError> {
    // SAFETY: `AsyncFd` owns a reference to the descriptor, which therefore stays open and the same until `AsyncFd` has
    // deregistered it.
    unsafe { AsyncFd::register(Fd::clone(fd)) }.call(|| "epoll_ctl of inotify")
}

/// Reads all events that are there.
fn read(fd: &Fd) -> Result<Vec<Happened>, SysError> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(fd, &mut buffer);
    let mut happened = Vec::new();
    loop {
        let event = match events.next() {
            Err(Errno::WOULDBLOCK) => return Ok(happened),
            event => event.call(|| "read of inotify")?,
        };
        let flags = event.events();
        let one = if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            Happened::Lost
        } else if flags.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF) {
            Happened::Gone(event.wd())
        } else {
            Happened::Within(event.wd())
        };
        if happened.last() != Some(&one) {
            happened.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn events_name_the_directory_in_which_something_happened() {
        let made = tempfile::tempdir().unwrap();
        let (inotify, mut events) = Inotify::new().unwrap();
        let number = inotify.add(made.path()).unwrap();
        assert_eq!(inotify.add(made.path()).unwrap(), number);
        fs::create_dir(made.path().join("pin")).unwrap();
        assert_eq!(events.next().await.unwrap(), [Happened::Within(number)]);
        made.close().unwrap();
        let happened = events.next().await.unwrap();
        assert!(happened.contains(&Happened::Gone(number)), "{happened:?}");
    }

    #[tokio::test]
    async fn a_read_error_is_returned() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        // The kernel answers a read with ECONNRESET once the peer is gone and has not read everything.
        let mut writer = ours.try_clone().unwrap();
        writer.write_all(b"unread").unwrap();
        drop(theirs);
        let mut events = Events { fd: Fd::new(ours.into()), registered: None };
        assert_eq!(events.next().await.unwrap_err().errno(), Some(libc::ECONNRESET));
    }
}
