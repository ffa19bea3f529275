//! Execute: the one interpreter of [`Step`]s. Does IO, in the order given, and stops at the first refusal; what it had
//! made visible by then is undone in reverse, so that a revision that fails leaves what was there before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use crate::{
    failure::{Failure, Obstacle, Place},
    held::LinkKey,
    host::Order,
    kept::Kept,
    kernel::{
        SysError, bpf, bpffs,
        cgroup::{Cgroup, Root},
        facts,
        info::{self, MapInfo},
        load::{self, Loaded, MapSource, Request},
    },
    layout::{Home, Origin},
    observe,
    plan::Step,
};

/// What a plan gave that no pin tells.
#[derive(Debug, Default)]
pub struct Executed {
    /// Maps that were created and are not pinned, by name: what no program uses of these is gone.
    pub unpinned: BTreeMap<String, MapInfo>,
}

/// Executes one plan.
pub struct Executor<'a> {
    /// The BpfProgram's home.
    pub home: &'a Home,
    /// The node's cgroup root.
    pub root: &'a Root,
    /// The plan, and what its steps need.
    pub order: &'a Order<'a>,
}

/// What has been done so far: the descriptors that later steps need, and how to undo it.
struct Progress<'a> {
    kept: &'a mut Kept,
    executed: Executed,
    loaded: Loaded,
    /// Programs whose pins were replaced: what links ran until now.
    replaced: BTreeMap<String, OwnedFd>,
    undo: Vec<Undo>,
}

/// The inverse of a step that was done.
enum Undo {
    Leave,
    UnpinMap(String),
    RepinMap(String, OwnedFd),
    UnpinProgram(String),
    RepinProgram(String, OwnedFd, Option<String>),
    Detach(LinkKey),
    UpdateBack(LinkKey, OwnedFd),
    Release(String),
    Retain(String),
}

impl Executor<'_> {
    /// Executes the steps.
    pub fn execute(&self, kept: &mut Kept) -> Result<Executed, Failure> {
        let (executed, loaded) = (Executed::default(), Loaded::default());
        let mut progress = Progress { kept, executed, loaded, replaced: BTreeMap::new(), undo: Vec::new() };
        for step in self.order.steps {
            if let Err(failure) = self.step(step, &mut progress) {
                tracing::warn!(?step, %failure, "step refused: undoing what this run made");
                self.undo(progress);
                return Err(failure);
            }
        }
        Ok(progress.executed)
    }

    fn step(&self, step: &Step, progress: &mut Progress<'_>) -> Result<(), Failure> {
        tracing::debug!(home = %self.home.directory().display(), ?step);
        match step {
            Step::RemoveStray => Ok(bpffs::remove(&self.home.staging())?),
            Step::Claim { uid } => self.claim(uid, progress),
            Step::Load { reuse } => self.load(reuse, progress),
            Step::Retain(pin) => {
                self.retain(pin)?;
                progress.undo.push(Undo::Release(pin.clone()));
                Ok(())
            }
            Step::Release(pin) => {
                bpffs::remove(&self.home.retention(pin))?;
                progress.undo.push(Undo::Retain(pin.clone()));
                Ok(())
            }
            Step::PinMap(name) => self.pin_map(name, progress),
            Step::PinProgram(function) => self.pin_program(function, progress),
            Step::Attach { function, cgroup } => self.attach(function, cgroup, progress),
            Step::Update(key) => self.update(key, progress),
            Step::SetRevision(Some(revision)) => Ok(self.note(&self.home.revision(), revision).map(drop)?),
            Step::SetRevision(None) => Ok(bpffs::remove(&self.home.revision())?),
            Step::SetTrial(trial) => Ok(self.note(&self.home.trial(), &trial.note()).map(drop)?),
            Step::RepinProgram(function) => self.repin_program(function, progress.kept),
            Step::RepinMap(pin) => self.repin_map(pin, progress.kept),
            Step::RepinLink(key) => self.repin_link(key, progress.kept),
            Step::Detach(key) => Ok(self.detach(key, progress.kept)?),
            Step::UnpinProgram(function) => Ok(self.unpin_program(function, progress.kept)?),
            Step::UnpinMap(pin) => Ok(self.unpin_map(pin, progress.kept)?),
            Step::Leave => Ok(self.leave()?),
        }
    }

    fn claim(&self, uid: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let home = self.home;
        if bpffs::make_dir(home.directory())? {
            progress.undo.push(Undo::Leave);
        }
        for dir in [home.meta(), home.maps(), home.programs(), home.links()] {
            bpffs::make_dir(&dir)?;
        }
        self.note(&home.uid(), uid)?;
        Ok(())
    }

    fn load(&self, reuse: &BTreeSet<String>, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let (Some(wanted), Some(bytes)) = (self.order.wanted, self.order.bytes) else {
            return Err(Failure::internal("a load was planned without an object to load"));
        };
        let mut request = Request::default();
        for (name, map) in &wanted.maps {
            let source = if reuse.contains(&map.pin_name) {
                MapSource::Reuse(bpf::obj_get(&self.home.map(&map.pin_name))?)
            } else {
                MapSource::Create { value_size: map.shape.value_size, max_entries: map.shape.max_entries }
            };
            request.maps.insert(name, source);
        }
        request.programs.extend(wanted.functions.iter().map(|(name, function)| (name.as_str(), function.kind)));
        let loaded = load::load(bytes, request, self.order.kernel_btf)?;
        for (name, fd) in &loaded.maps {
            if wanted.maps.get(name).is_some_and(|map| !map.pin) {
                progress.executed.unpinned.insert(name.clone(), info::map(fd.as_fd())?);
            }
        }
        progress.loaded = loaded;
        Ok(())
    }

    fn pin_map(&self, name: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let fd =
            progress.loaded.maps.get(name).ok_or_else(|| Failure::internal(format!("map {name} was not loaded")))?;
        let pin = sockeye_crds::names::pin_name(name);
        let replaced = self.pin(fd, &self.home.map(&pin))?;
        progress.undo.push(match replaced {
            Some(fd) => Undo::RepinMap(pin, fd),
            None => Undo::UnpinMap(pin),
        });
        Ok(())
    }

    fn pin_program(&self, function: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let missing = || Failure::internal(format!("program {function} was not loaded"));
        let fd = progress.loaded.programs.get(function).ok_or_else(missing)?;
        let load_key = self.order.wanted.map(|wanted| wanted.load_key.clone()).ok_or_else(missing)?;
        // The note first: a pin whose note is of another program counts as one whose load is not known.
        let origin = Origin { load_key, program_id: info::program_id(fd.as_fd())? };
        let origin_before = self.note(&self.home.origin(function), &origin.note())?;
        let replaced = match self.pin(fd, &self.home.program(function)) {
            Ok(replaced) => replaced,
            Err(refused) => {
                self.restore_origin(function, origin_before.as_deref())?;
                return Err(refused.into());
            }
        };
        progress.undo.push(match replaced {
            Some(fd) => {
                progress.replaced.insert(function.to_owned(), fd.try_clone().map_err(Failure::internal)?);
                Undo::RepinProgram(function.to_owned(), fd, origin_before)
            }
            None => Undo::UnpinProgram(function.to_owned()),
        });
        Ok(())
    }

    fn attach(&self, function: &str, cgroup: &Cgroup, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let place = Place { function, path: &cgroup.path };
        let wanted = self.order.wanted.and_then(|wanted| wanted.functions.get(function));
        let kind = wanted.ok_or_else(|| Failure::internal(format!("program {function} is not wanted")))?.kind;
        let pinned;
        let program = match progress.loaded.programs.get(function) {
            Some(fd) => fd,
            None => {
                pinned = bpf::obj_get(&self.home.program(function))?;
                &pinned
            }
        };
        let directory = self.root.open(&cgroup.path)?;
        let link = bpf::link_create(program.as_fd(), directory.as_fd(), kind.attach_type)
            .map_err(|error| Failure::attach(place, &error, &self.obstacle(&cgroup.path, kind.attach_type)))?;
        let key = LinkKey::at(function, cgroup);
        self.note(&self.home.cgroup(&key.place), &cgroup.path)?;
        bpffs::make_dir(&self.home.links_of(function))?;
        bpf::obj_pin(link.as_fd(), &self.home.link(function, &key.place))?;
        progress.undo.push(Undo::Detach(key));
        Ok(())
    }

    /// Why the kernel may have said EPERM.
    fn obstacle(&self, path: &str, attach_type: u32) -> Obstacle {
        match facts::lacking_capabilities() {
            Ok(lacking) if !lacking.is_empty() => Obstacle::Lacking(lacking),
            _ => match observe::keeper(self.root, path, attach_type) {
                Ok(Some(keeper)) => Obstacle::Keeper(keeper),
                _ => Obstacle::Unseen,
            },
        }
    }

    fn update(&self, key: &LinkKey, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let link = bpf::obj_get(&self.home.link(&key.function, &key.place))?;
        let program = bpf::obj_get(&self.home.program(&key.function))?;
        let runs = info::link(link.as_fd())?.program_id;
        let replaced = progress.replaced.get(&key.function);
        let expected = match replaced {
            Some(fd) if info::program(fd.as_fd())?.id == runs => Some(fd),
            // The pin was replaced by an agent that was killed before it came to this link.
            _ => None,
        };
        let place = Place { function: &key.function, path: &key.place };
        match bpf::link_update(link.as_fd(), program.as_fd(), expected.map(|fd| fd.as_fd())) {
            // Its cgroup died: there is nothing to run on any more, and one that took its place gets a link of its own.
            Err(error) if error.errno() == Some(libc::ENOLINK) => {
                drop(link);
                return Ok(self.detach(key, progress.kept)?);
            }
            updated => updated.map_err(|error| Failure::attach(place, &error, &Obstacle::Moved))?,
        }
        if let Some(fd) = expected {
            progress.undo.push(Undo::UpdateBack(key.clone(), fd.try_clone().map_err(Failure::internal)?));
        }
        Ok(())
    }

    fn repin_program(&self, function: &str, kept: &Kept) -> Result<(), Failure> {
        let kept = kept.programs.get(function).ok_or_else(|| not_kept("program", function))?;
        if let Some(load_key) = &kept.load_key {
            let origin = Origin { load_key: load_key.clone(), program_id: info::program_id(kept.fd.as_fd())? };
            self.note(&self.home.origin(function), &origin.note())?;
        }
        Ok(self.pin(&kept.fd, &self.home.program(function)).map(drop)?)
    }

    fn repin_map(&self, pin: &str, kept: &Kept) -> Result<(), Failure> {
        let fd = kept.maps.get(pin).ok_or_else(|| not_kept("map", pin))?;
        Ok(self.pin(fd, &self.home.map(pin)).map(drop)?)
    }

    fn repin_link(&self, key: &LinkKey, kept: &Kept) -> Result<(), Failure> {
        let kept = kept.links.get(key).ok_or_else(|| not_kept("link", &key.place))?;
        if let Some(path) = &kept.path {
            self.note(&self.home.cgroup(&key.place), path)?;
        }
        Ok(self.pin(&kept.fd, &self.home.link(&key.function, &key.place)).map(drop)?)
    }

    /// Detaches now, and whoever else holds the link: one whose last reference was the pin would be detached later, by a
    /// kernel worker, and one that another process holds not at all.
    fn detach(&self, key: &LinkKey, kept: &mut Kept) -> Result<(), SysError> {
        let path = self.home.link(&key.function, &key.place);
        let pinned = existing(bpf::obj_get(&path))?;
        let kept = kept.links.remove(key).map(|kept| kept.fd);
        for link in [pinned, kept].into_iter().flatten() {
            match bpf::link_detach(link.as_fd()) {
                // Its cgroup is gone, and with it the attachment.
                Err(error) if error.errno() != Some(libc::ENOLINK) => return Err(error),
                _ => {}
            }
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

    fn unpin_program(&self, function: &str, kept: &mut Kept) -> Result<(), SysError> {
        bpffs::remove(&self.home.program(function))?;
        kept.programs.remove(function);
        bpffs::remove(&self.home.origin(function))
    }

    fn unpin_map(&self, pin: &str, kept: &mut Kept) -> Result<(), SysError> {
        bpffs::remove(&self.home.map(pin))?;
        kept.maps.remove(pin);
        Ok(())
    }

    fn restore_origin(&self, function: &str, note: Option<&str>) -> Result<(), SysError> {
        match note {
            Some(note) => self.note(&self.home.origin(function), note).map(drop),
            None => bpffs::remove(&self.home.origin(function)),
        }
    }

    fn retain(&self, pin: &str) -> Result<(), SysError> {
        self.note(&self.home.retention(pin), "Retain").map(drop)
    }

    /// Writes a note over what is there, and gives that.
    fn note(&self, path: &Path, text: &str) -> Result<Option<String>, SysError> {
        match bpffs::make_note(path, text) {
            Err(error) if error.is_there() => {
                let replaced = bpffs::read_note(path)?;
                bpffs::replace(path, &self.home.staging(), |at| bpffs::make_note(at, text))?;
                Ok(replaced)
            }
            made => made.map(|()| None),
        }
    }

    /// Pins over what is there, and gives that. Makes the directory where it is not there (any more).
    fn pin(&self, fd: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, SysError> {
        match bpf::obj_pin(fd.as_fd(), path) {
            Err(error) if error.is_not_found() => {
                path.parent().map_or(Ok(false), bpffs::make_dir)?;
                bpf::obj_pin(fd.as_fd(), path).map(|()| None)
            }
            Err(error) if error.is_there() => {
                let replaced = bpf::obj_get(path)?;
                self.pin_over(fd, path)?;
                Ok(Some(replaced))
            }
            pinned => pinned.map(|()| None),
        }
    }

    /// Pins over what is there.
    fn pin_over(&self, fd: &OwnedFd, path: &Path) -> Result<(), SysError> {
        bpffs::replace(path, &self.home.staging(), |at| bpf::obj_pin(fd.as_fd(), at))
    }

    /// The UID goes last: until then the home is known to be ours.
    fn leave(&self) -> Result<(), SysError> {
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

    /// Undoes in reverse. What can't be undone is said, and found by the next observation.
    fn undo(&self, progress: Progress<'_>) {
        let Progress { kept, undo, .. } = progress;
        for undo in undo.into_iter().rev() {
            if let Err(error) = self.undo_one(&undo, kept) {
                tracing::error!(%error, "could not undo a step");
            }
        }
    }

    fn undo_one(&self, undo: &Undo, kept: &mut Kept) -> Result<(), SysError> {
        match undo {
            Undo::Leave => self.leave(),
            Undo::UnpinMap(pin) => self.unpin_map(pin, kept),
            Undo::RepinMap(pin, fd) => self.pin_over(fd, &self.home.map(pin)),
            Undo::UnpinProgram(function) => self.unpin_program(function, kept),
            Undo::RepinProgram(function, fd, origin) => {
                self.pin_over(fd, &self.home.program(function))?;
                self.restore_origin(function, origin.as_deref())
            }
            Undo::Detach(key) => self.detach(key, kept),
            Undo::UpdateBack(key, fd) => {
                let link = bpf::obj_get(&self.home.link(&key.function, &key.place))?;
                bpf::link_update(link.as_fd(), fd.as_fd(), None)
            }
            Undo::Release(pin) => bpffs::remove(&self.home.retention(pin)),
            Undo::Retain(pin) => self.retain(pin),
        }
    }
}

fn not_kept(what: &str, name: &str) -> Failure {
    Failure::internal(format!("{what} {name} was to be pinned again, and nobody holds it"))
}

fn existing(answer: Result<OwnedFd, SysError>) -> Result<Option<OwnedFd>, SysError> {
    match answer {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
