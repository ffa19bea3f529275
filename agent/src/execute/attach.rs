//! Attachments and updates: a cgroup's by link, always; a map's by link where the kernel has one. Elsewhere the map holds the
//! program itself, and the program is pinned in the link's place, so that what is attached is known, and can be detached.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{Executor, Progress, undo::Undo};
use crate::{
    failure::{Failure, Obstacle, Place},
    held::{LinkKey, Site},
    kept::{Kept, KeptLink},
    kernel::{Fd, SysError, bpf, cgroup::Cgroup, facts, info, load::ProgramKind},
    layout, observe,
    on_map::{self, OnMap},
    order::Neighbour,
};

impl Executor<'_> {
    pub(super) fn attach(
        &self,
        function: &str,
        site: &Site,
        before: Option<&Neighbour>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let kind = self.kind(function)?;
        let program = match progress.loaded.programs.get(function) {
            Some(fd) => Fd::clone(fd),
            None => self.dir.get(&layout::program(function))?,
        };
        match site {
            Site::Cgroup(cgroup) => self.to_cgroup(function, &program, cgroup, kind.attach_type, before, progress),
            Site::Map(pin) => self.to_map(function, program, pin, kind.attach_type, progress),
        }?;
        progress.made_at.insert(LinkKey::to(function, site));
        progress.attached += 1;
        Ok(())
    }

    fn to_cgroup(
        &self,
        function: &str,
        program: &Fd,
        cgroup: &Cgroup,
        attach_type: u32,
        before: Option<&Neighbour>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let place = Place::Cgroup { function, path: &cgroup.path };
        let link = self.link(program, cgroup, attach_type, before, place)?;
        let key = LinkKey::at(function, cgroup);
        self.note(&layout::cgroup(&key.place), &cgroup.path)?;
        self.dir.make_dir(&layout::links_of(function))?;
        let replaced = self.pin(&link, &layout::link(function, &key.place))?;
        progress.undo.push(match replaced {
            Some(old) => {
                progress.replaced_links.push((key.clone(), Fd::clone(&old)));
                Undo::RepinLink(key.clone(), old)
            }
            None => Undo::Detach(key.clone()),
        });
        let made = KeptLink { fd: link, id: 0, path: Some(cgroup.path.clone()), attached: None };
        progress.made.links.insert(key, made);
        Ok(())
    }

    /// A new link at a cgroup, before another where one is named; `place` is what a refusal is said of.
    fn link(
        &self,
        program: &Fd,
        cgroup: &Cgroup,
        attach_type: u32,
        before: Option<&Neighbour>,
        place: Place<'_>,
    ) -> Result<Fd, Failure> {
        let directory = self.root.open(&cgroup.path)?;
        let before = before.and_then(|before| self.neighbour(before));
        link_before(program, &directory, attach_type, before.as_ref())
            .map(Fd::from)
            .map_err(|error| Failure::attach(place, &error, &self.obstacle(&cgroup.path, attach_type)))
    }

    fn kind(&self, function: &str) -> Result<ProgramKind, Failure> {
        let wanted = self.order.wanted.and_then(|wanted| wanted.functions.get(function));
        Ok(wanted.ok_or_else(|| Failure::internal(format!("program {function} is not wanted")))?.kind)
    }

    /// A link beside which one is to stand. Where its pin is gone it is no place to go by: the next plan has another.
    fn neighbour(&self, Neighbour { program, key, .. }: &Neighbour) -> Option<Fd> {
        let path = layout::beside(program, &layout::link(&key.function, &key.place));
        self.dir.get(&path).inspect_err(|error| tracing::debug!(%error, "no place to go by")).ok()
    }

    /// Gives a link another place at its cgroup: a new one first, so that nothing is missed; for the moment until the old one is
    /// detached the program runs twice.
    pub(super) fn move_link(
        &self,
        key: &LinkKey,
        cgroup: &Cgroup,
        before: Option<&Neighbour>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let attach_type = self.kind(&key.function)?.attach_type;
        let path = layout::link(&key.function, &key.place);
        let (old, program) = (self.dir.get(&path)?, self.dir.get(&layout::program(&key.function))?);
        let link = self.link(&program, cgroup, attach_type, before, Place::of(key)).map_err(|failure| Failure {
            message: format!("it runs, but not in the order of priorities: {}", failure.message),
            ..failure
        })?;
        self.pin_over(&link, &path)?;
        bpf::link_detach(old.as_fd())?;
        progress.attached += 1;
        progress.executed.moved += 1;
        Ok(())
    }

    fn to_map(
        &self,
        function: &str,
        program: Fd,
        pin: &str,
        attach_type: u32,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let refused = |error: &SysError| Failure::attach(Place::Map { function, map: pin }, error, &own_obstacle());
        let key = LinkKey::on_map(function, pin);
        let path = layout::link(function, &key.place);
        let map = self.dir.get(&layout::map(pin))?;
        let link =
            bpf::map_link(program.as_fd(), map.as_fd(), attach_type).map_err(|error| refused(&error))?.map(Fd::from);
        // Without a link first the pin, so that what is attached is never without one.
        let replaced = self.pin(link.as_ref().unwrap_or(&program), &path)?;
        if let (Some(old), Some(before)) = (&replaced, progress.kept.maps.get(pin))
            && info::is_program(old.as_fd())?
            && info::map_id(before.as_fd())? != info::map_id(map.as_fd())?
        {
            progress.replaced_on_maps.push((Fd::clone(old), Fd::clone(before)));
        }
        progress.undo.push(match replaced {
            Some(fd) => Undo::RepinLink(key.clone(), fd),
            None => Undo::Detach(key.clone()),
        });
        if link.is_none() {
            bpf::map_attach(program.as_fd(), map.as_fd(), attach_type).map_err(|error| refused(&error))?;
            let kept = KeptLink { fd: program, id: 0, path: None, attached: Some(attach_type) };
            progress.kept.links.insert(key, kept);
        }
        Ok(())
    }

    /// Why the kernel may have said EPERM.
    fn obstacle(&self, path: &str, attach_type: u32) -> Obstacle {
        match own_obstacle() {
            Obstacle::Unseen => match observe::keeper(self.root, path, attach_type) {
                Ok(Some(keeper)) => Obstacle::Keeper(keeper),
                _ => Obstacle::Unseen,
            },
            lacking => lacking,
        }
    }

    pub(super) fn update(&self, key: &LinkKey, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let link = self.dir.get(&layout::link(&key.function, &key.place))?;
        let program = self.dir.get(&layout::program(&key.function))?;
        if let Some(pin) = key.map()
            && info::is_program(link.as_fd())?
        {
            progress.undo.push(Undo::ReplaceBack(key.clone(), link));
            progress.attached += 1;
            return self.replace_on_map(key, pin, &program, progress.kept);
        }
        let runs = info::link(link.as_fd())?.program_id;
        // Nothing where the pin was replaced by an agent that was killed before it came to this link.
        let expected = progress.replaced.get(&key.function).filter(|before| before.id == runs).map(|before| &before.fd);
        match bpf::link_update(link.as_fd(), program.as_fd(), expected.map(|fd| fd.as_fd())) {
            // Its cgroup died: there is nothing to run on any more, and one that took its place gets a link of its own.
            Err(error) if error.errno() == Some(libc::ENOLINK) => {
                drop(link);
                return Ok(self.detach(key, progress.kept)?);
            }
            updated => updated.map_err(|error| Failure::attach(Place::of(key), &error, &Obstacle::Moved))?,
        }
        if let Some(fd) = expected {
            progress.undo.push(Undo::UpdateBack(key.clone(), Fd::clone(fd)));
        }
        progress.attached += 1;
        Ok(())
    }

    /// Has a map hold another program of the function. First the map, then the pin: a killed agent leaves the pin of the one
    /// before, and finds the new one attached and pinned as the function's own.
    pub(super) fn replace_on_map(
        &self,
        key: &LinkKey,
        pin: &str,
        program: &Fd,
        kept: &mut Kept,
    ) -> Result<(), Failure> {
        let map = self.dir.get(&layout::map(pin))?;
        let own = kept.programs.get(&key.function).map(|own| own.fd.as_fd());
        let known = kept.links.get(key).map(|link| on_map::look(Some(map.as_fd()), link, own)).transpose()?;
        let Some(OnMap { info, .. }) = known.filter(|known| known.in_effect) else {
            // Someone has taken it off: there is nothing to replace, and what is wanted is attached by the next plan.
            return Ok(self.detach(key, kept)?);
        };
        let attach_type = info.attach_type;
        bpf::map_attach(program.as_fd(), map.as_fd(), attach_type)
            .map_err(|error| Failure::attach(Place::of(key), &error, &own_obstacle()))?;
        self.pin(program, &layout::link(&key.function, &key.place))?;
        let fd = Fd::clone(program);
        kept.links.insert(key.clone(), KeptLink { fd, id: 0, path: None, attached: Some(attach_type) });
        Ok(())
    }
}

/// Attaches before another link; at the end, where that one has gone meanwhile: the next plan has another place.
fn link_before(program: &Fd, cgroup: &OwnedFd, attach_type: u32, before: Option<&Fd>) -> Result<OwnedFd, SysError> {
    let create = |before: Option<&Fd>| {
        bpf::link_create(program.as_fd(), cgroup.as_fd(), attach_type, before.map(|fd| fd.as_fd()))
    };
    match create(before) {
        Err(error) if before.is_some() && error.errno() == Some(libc::ENOENT) => create(None),
        made => made,
    }
}

/// What of an EPERM lies with the agent itself.
fn own_obstacle() -> Obstacle {
    match facts::lacking_capabilities() {
        Ok(lacking) if !lacking.is_empty() => Obstacle::Lacking(lacking),
        _ => Obstacle::Unseen,
    }
}
