//! Removes links, pins, and at last the home.

use std::os::fd::AsFd as _;

use super::executor::Executor;
use crate::{
    kernel::{Fd, SysError, bpf, bpffs, info},
    model::{observed::LinkKey, switch::SWITCH},
    node::{handles::Handles, layout},
};

impl Executor<'_> {
    /// Detaches and unpins a link.
    ///
    /// The kernel call detaches it at once, even if another process holds the link. Dropping the last reference would
    /// leave the detachment to a kernel worker, at some later time.
    pub(super) fn detach(&self, key: &LinkKey, handles: &mut Handles) -> Result<(), SysError> {
        let dir = &self.home.dir;
        let path = layout::link(&key.function, &key.place);
        let pinned = existing(dir.get(&path))?;
        let known = handles.links.remove(key).map(|handle| handle.fd);
        for link in [pinned, known].into_iter().flatten() {
            self.detach_fd(key, &link, handles)?;
        }
        dir.remove(&path)?;
        // A function can have a thousand links: its directory is not listed for each.
        dir.remove_dir_if_empty(&layout::links_of(&key.function))?;
        for function in dir.list(&layout::links())? {
            if dir.contains(&layout::link(&function, &key.place))? {
                return Ok(());
            }
        }
        // No other function is attached there, and nothing needs the note of the cgroup's path any more.
        dir.remove(&layout::cgroup(&key.place))
    }

    /// Detaches what is or was pinned at a link's place: a link, or the program that a map holds without one.
    pub(super) fn detach_fd(&self, key: &LinkKey, fd: &Fd, handles: &Handles) -> Result<(), SysError> {
        if let Some(pin) = key.map()
            && info::is_program(fd.as_fd())?
        {
            return self.detach_from_map(&key.function, pin, fd, handles);
        }
        match bpf::link_detach(fd.as_fd()) {
            // The cgroup is gone, and with it the attachment.
            Err(error) if error.errno() == Some(libc::ENOLINK) => Ok(()),
            detached => detached,
        }
    }

    /// Unpins a program, and forgets the load that it came from.
    pub(super) fn unpin_program(&self, function: &str, handles: &mut Handles) -> Result<(), SysError> {
        self.home.dir.remove(&layout::program(function))?;
        handles.programs.remove(function);
        self.home.dir.remove(&layout::origin(function))
    }

    /// Unpins a map, and forgets its owner.
    pub(super) fn unpin_map(&self, pin: &str, handles: &mut Handles) -> Result<(), SysError> {
        self.home.dir.remove(&layout::map(pin))?;
        handles.maps.remove(pin);
        self.home.dir.remove(&layout::lossless(pin))?;
        if pin == SWITCH {
            self.home.dir.remove(&layout::switch())?;
        }
        self.home.dir.remove(&layout::source(pin))
    }

    /// Removes the record of a map's entries.
    pub(super) fn forget_entries(&self, pin: &str, handles: &mut Handles) -> Result<(), SysError> {
        handles.records.remove(pin);
        self.home.dir.remove(&layout::record(pin))
    }

    /// Removes the home, in which only notes and empty directories are left. The note of the UID goes last: as long as
    /// it is there, the next agent knows that the home is sockeye's.
    pub(super) fn leave(&self) -> Result<(), SysError> {
        let dir = &self.home.dir;
        let uid = layout::uid();
        let notes = dir.list(&layout::meta())?.into_iter().map(|name| layout::meta().join(name));
        for note in notes.filter(|note| *note != uid) {
            dir.remove(&note)?;
        }
        for function in dir.list(&layout::links())? {
            dir.remove_dir(&layout::links_of(&function))?;
        }
        for directory in [layout::links(), layout::programs(), layout::maps()] {
            dir.remove_dir(&directory)?;
        }
        dir.remove(&uid)?;
        dir.remove_dir(&layout::meta())?;
        bpffs::WHOLE_PATHS.remove_dir(self.home.paths.directory())
    }
}

/// Turns a missing pin into `None`.
pub(super) fn existing(pin: Result<Fd, SysError>) -> Result<Option<Fd>, SysError> {
    match pin {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
