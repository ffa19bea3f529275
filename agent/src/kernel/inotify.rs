//! inotify: told when something comes into a directory or goes from it. On bpffs that is pins and notes.
#![expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor of one's own")]

use std::{mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use tokio::io::unix::AsyncFd;

use super::{Call as _, SysError};

/// Something came into a directory, or went.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    fd: AsyncFd<OwnedFd>,
    mask: WatchFlags,
}

/// What has happened to one watched directory, or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Something in it came, went or was replaced.
    Within(i32),
    /// It is no longer watched: it went, or its file system was unmounted.
    Gone(i32),
    /// More happened than the kernel kept: everything may have changed.
    Lost,
}

impl Inotify {
    /// Watches nothing yet. Within a runtime only.
    pub fn new() -> Result<Self, SysError> {
        Self::with(NAMES | WatchFlags::CLOSE_WRITE)
    }

    /// The same, told of names alone: nothing of what is written to files.
    pub fn of_names() -> Result<Self, SysError> {
        Self::with(NAMES)
    }

    fn with(mask: WatchFlags) -> Result<Self, SysError> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).call(|| "inotify_init1")?;
        // SAFETY: the descriptor is ours, and an `OwnedFd` stays the same until it is dropped, which `AsyncFd` does after it has
        // deregistered it.
        let fd = unsafe { AsyncFd::register(fd) }.call(|| "epoll_ctl of inotify")?;
        Ok(Self { fd, mask })
    }

    /// Watches a directory; the same one again gives the same number.
    pub fn add(&self, dir: &Path) -> Result<i32, SysError> {
        inotify::add_watch(self.fd.get_ref(), dir, self.mask).call(|| format!("inotify_add_watch of {}", dir.display()))
    }

    /// Waits until something happens, and tells all that has since the last call.
    pub async fn happened(&self) -> Result<Vec<Happened>, SysError> {
        loop {
            let mut ready = self.fd.readable().await.call(|| "wait for inotify")?;
            let happened = self.read()?;
            ready.clear_ready();
            if !happened.is_empty() {
                return Ok(happened);
            }
        }
    }

    fn read(&self) -> Result<Vec<Happened>, SysError> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
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
}
