//! What is taken away: links, pins, at last the home.

use std::os::fd::{AsFd as _, OwnedFd};

use super::Executor;
use crate::{
    held::LinkKey,
    kept::Kept,
    kernel::{SysError, bpf, bpffs, info},
    on_map,
};

impl Executor<'_> {
    /// Detaches now, and whoever else holds the link: one whose last reference was the pin would be detached later, by a
    /// kernel worker, and one that another process holds not at all.
    pub(super) fn detach(&self, key: &LinkKey, kept: &mut Kept) -> Result<(), SysError> {
        let path = self.home.link(&key.function, &key.place);
        let pinned = existing(bpf::obj_get(&path))?;
        let links = [pinned, kept.links.remove(key).map(|kept| kept.fd)];
        for link in links.into_iter().flatten() {
            self.let_go(key, &link, kept)?;
        }
        bpffs::remove(&path)?;
        let links = bpffs::list(&self.home.links_of(&key.function))?;
        if links.is_empty() {
            bpffs::remove_dir(&self.home.links_of(&key.function))?;
        }
        for function in bpffs::list(&self.home.links())? {
            if bpffs::list(&self.home.links_of(&function))?.contains(&key.place) {
                return Ok(());
            }
        }
        bpffs::remove(&self.home.cgroup(&key.place))
    }

    /// Ends what stands at a link's place, or stood there.
    pub(super) fn let_go(&self, key: &LinkKey, link: &OwnedFd, kept: &Kept) -> Result<(), SysError> {
        if let Some(pin) = key.map()
            && info::is_program(link.as_fd())?
        {
            return self.detach_from_map(&key.function, pin, link, kept);
        }
        match bpf::link_detach(link.as_fd()) {
            // Its cgroup is gone, and with it the attachment.
            Err(error) if error.errno() == Some(libc::ENOLINK) => Ok(()),
            detached => detached,
        }
    }

    /// Where a map holds a program without a link. A killed agent may have left another one of the function there than the
    /// pin says: the function's own.
    fn detach_from_map(&self, function: &str, pin: &str, program: &OwnedFd, kept: &Kept) -> Result<(), SysError> {
        let pinned = existing(bpf::obj_get(&self.home.map(pin)))?;
        let maps = [pinned.as_ref(), kept.maps.get(pin)];
        let own = existing(bpf::obj_get(&self.home.program(function)))?;
        for map in maps.into_iter().flatten() {
            for program in [Some(program), own.as_ref()].into_iter().flatten() {
                for attach_type in on_map::attach_types(info::program(program.as_fd())?.prog_type) {
                    bpf::map_detach(program.as_fd(), map.as_fd(), attach_type)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn unpin_program(&self, function: &str, kept: &mut Kept) -> Result<(), SysError> {
        bpffs::remove(&self.home.program(function))?;
        kept.programs.remove(function);
        bpffs::remove(&self.home.origin(function))
    }

    pub(super) fn unpin_map(&self, pin: &str, kept: &mut Kept) -> Result<(), SysError> {
        bpffs::remove(&self.home.map(pin))?;
        kept.maps.remove(pin);
        bpffs::remove(&self.home.source(pin))
    }

    /// The UID goes last: until then the home is known to be ours.
    pub(super) fn leave(&self) -> Result<(), SysError> {
        let home = self.home;
        let uid = home.uid();
        for note in bpffs::list(&home.meta())?.into_iter().map(|name| home.meta().join(name)).filter(|at| *at != uid) {
            bpffs::remove(&note)?;
        }
        for function in bpffs::list(&home.links())? {
            bpffs::remove_dir(&home.links_of(&function))?;
        }
        for dir in [home.links(), home.programs(), home.maps()] {
            bpffs::remove_dir(&dir)?;
        }
        bpffs::remove(&uid)?;
        bpffs::remove_dir(&home.meta())?;
        bpffs::remove_dir(home.directory())
    }
}

fn existing(answer: Result<OwnedFd, SysError>) -> Result<Option<OwnedFd>, SysError> {
    match answer {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
