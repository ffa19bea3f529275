//! What is taken away: links, pins, at last the home.

use std::os::fd::AsFd as _;

use super::Executor;
use crate::{
    held::LinkKey,
    kept::Kept,
    kernel::{Fd, SysError, bpf, bpffs, info},
    layout, on_map,
};

impl Executor<'_> {
    /// Detaches now, and whoever else holds the link: one whose last reference was the pin would be detached later, by a
    /// kernel worker, and one that another process holds not at all.
    pub(super) fn detach(&self, key: &LinkKey, kept: &mut Kept) -> Result<(), SysError> {
        let path = layout::link(&key.function, &key.place);
        let pinned = existing(self.dir.get(&path))?;
        let links = [pinned, kept.links.remove(key).map(|kept| kept.fd)];
        for link in links.into_iter().flatten() {
            self.let_go(key, &link, kept)?;
        }
        self.dir.remove(&path)?;
        let links = self.dir.list(&layout::links_of(&key.function))?;
        if links.is_empty() {
            self.dir.remove_dir(&layout::links_of(&key.function))?;
        }
        for function in self.dir.list(&layout::links())? {
            if self.dir.list(&layout::links_of(&function))?.contains(&key.place) {
                return Ok(());
            }
        }
        self.dir.remove(&layout::cgroup(&key.place))
    }

    /// Ends what stands at a link's place, or stood there.
    pub(super) fn let_go(&self, key: &LinkKey, link: &Fd, kept: &Kept) -> Result<(), SysError> {
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
    fn detach_from_map(&self, function: &str, pin: &str, program: &Fd, kept: &Kept) -> Result<(), SysError> {
        let pinned = existing(self.dir.get(&layout::map(pin)))?;
        let maps = [pinned.as_ref(), kept.maps.get(pin)];
        let own = existing(self.dir.get(&layout::program(function)))?;
        for map in maps.into_iter().flatten() {
            for program in [Some(program), own.as_ref()].into_iter().flatten() {
                take_off(program, map)?;
            }
        }
        Ok(())
    }

    pub(super) fn unpin_program(&self, function: &str, kept: &mut Kept) -> Result<(), SysError> {
        self.dir.remove(&layout::program(function))?;
        kept.programs.remove(function);
        self.dir.remove(&layout::origin(function))
    }

    pub(super) fn unpin_map(&self, pin: &str, kept: &mut Kept) -> Result<(), SysError> {
        self.dir.remove(&layout::map(pin))?;
        kept.maps.remove(pin);
        self.dir.remove(&layout::source(pin))
    }

    /// The UID goes last: until then the home is known to be ours.
    pub(super) fn leave(&self) -> Result<(), SysError> {
        let uid = layout::uid();
        for note in
            self.dir.list(&layout::meta())?.into_iter().map(|name| layout::meta().join(name)).filter(|at| *at != uid)
        {
            self.dir.remove(&note)?;
        }
        for function in self.dir.list(&layout::links())? {
            self.dir.remove_dir(&layout::links_of(&function))?;
        }
        for dir in [layout::links(), layout::programs(), layout::maps()] {
            self.dir.remove_dir(&dir)?;
        }
        self.dir.remove(&uid)?;
        self.dir.remove_dir(&layout::meta())?;
        bpffs::ANYWHERE.remove_dir(self.home.directory())
    }
}

/// Detaches a program from a map that holds it without a link, if it does.
pub(super) fn take_off(program: &Fd, map: &Fd) -> Result<(), SysError> {
    for attach_type in on_map::attach_types(info::program(program.as_fd())?.prog_type) {
        bpf::map_detach(program.as_fd(), map.as_fd(), attach_type)?;
    }
    Ok(())
}

fn existing(answer: Result<Fd, SysError>) -> Result<Option<Fd>, SysError> {
    match answer {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
