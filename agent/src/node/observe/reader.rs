//! `Reader`: reads single programs, maps and links of a home, by their pins or by the agent's own descriptors.

use std::{io, os::fd::AsFd as _};

use super::attached::QueryCache;
use crate::{
    kernel::{Fd, SysError, bpffs::Dir, cgroup::Root, info, sockets},
    model::{
        kept_pod::KeptPod,
        kernel::LinkInfo,
        observed::{LinkKey, Observed, ObservedKeptPod, ObservedLink, ObservedMap, ObservedProgram},
        pin_names::PinNames,
        switch::SWITCH,
    },
    node::{
        draining,
        handles::{Handles, LinkHandle, PredecessorHandles, ProgramHandle},
        layout::{self, Origin},
        map_attachment::MapAttachment,
        open_home::OpenHome,
        switch::Switch,
    },
    plan::Step,
};

/// Reads what pins name and what only the agent's descriptors hold, and updates these descriptors.
pub(super) struct Reader<'a> {
    dir: &'a Dir,
    root: &'a Root,
    queries: &'a QueryCache,
    /// Descriptors of what was just pinned: their pins need not be opened.
    pinned: Handles,
    handles: &'a mut Handles,
}

impl<'a> Reader<'a> {
    pub(super) fn new(home: &'a OpenHome<'_>, queries: &'a QueryCache, handles: &'a mut Handles) -> Self {
        Self { dir: &home.dir, root: home.root, queries, pinned: Handles::default(), handles }
    }

    pub(super) fn with_pinned(self, pinned: Handles) -> Self {
        Self { pinned, ..self }
    }

    /// Reads the links that steps attach or detach, and the kept pods that they note or forget; all else is as before.
    pub(super) fn reread(&mut self, before: &Observed, steps: &[Step]) -> Result<Observed, SysError> {
        let mut observed = before.clone();
        for step in steps {
            match step {
                Step::Attach { function, site, .. } => {
                    let key = LinkKey::to(function, site);
                    let link = self.pinned_link(&key)?;
                    observed.links.insert(key, link);
                }
                Step::Detach(key) => drop(observed.links.remove(key)),
                Step::KeepPod { pod, .. } => self.read_kept_pod(pod, &mut observed)?,
                Step::ForgetPod(pod) => drop(observed.kept_pods.remove(pod)),
                _ => {}
            }
        }
        Ok(observed)
    }

    /// Reads everything: the pins of these names, and what is orphaned.
    pub(super) fn read(&mut self, names: &PinNames) -> Result<Observed, SysError> {
        let mut observed = Observed {
            uid: names.uid.clone(),
            claimed: self.dir.read_note(&layout::claimed())?.and_then(|note| note.parse().ok()).unwrap_or_default(),
            revision: names.revision.clone(),
            trial: names.trial.clone(),
            previous: self.handles.previous.as_ref().map(PredecessorHandles::observed),
            retained: names.retained.clone(),
            recorded: names.recorded.clone(),
            force_detach: names.force_detach,
            stray: names.stray,
            ..Observed::default()
        };
        for function in &names.functions {
            observed.functions.insert(function.clone(), self.pinned_program(function)?);
        }
        for pin in &names.maps {
            observed.maps.insert(pin.clone(), self.pinned_map(pin)?);
        }
        for key in &names.links {
            observed.links.insert(key.clone(), self.pinned_link(key)?);
        }
        let PinNames { functions, maps, links, .. } = self.handles.orphaned(names);
        for function in functions {
            observed.functions.extend(self.orphaned_program(&function)?.map(|program| (function, program)));
        }
        for pin in maps {
            observed.maps.extend(self.orphaned_map(&pin)?.map(|map| (pin, map)));
        }
        for pin in &names.shared {
            self.read_source(pin, &mut observed)?;
        }
        for key in links {
            observed.links.extend(self.orphaned_link(&key)?.map(|link| (key, link)));
        }
        if let Some(map) = self.handles.maps.get(SWITCH) {
            let switch = Switch::read(self.dir, map)?;
            observed.switch = switch.map(|switch| switch.observed()).transpose()?;
        }
        self.read_kept_pods(names, &mut observed)?;
        self.read_sockets(&mut observed)?;
        Ok(observed)
    }

    /// Reads whether sockets can leave maps without loss, and counts them once nothing is attached: with programs
    /// attached, sockets come and go all the time, and nobody asks.
    fn read_sockets(&self, observed: &mut Observed) -> Result<(), SysError> {
        let has_links = !observed.links.is_empty();
        for (pin, map) in observed.maps.iter_mut().filter(|(_, map)| map.holds_sockets()) {
            map.lossless = draining::is_lossless(self.dir, pin, map.info.id)?;
            if let Some(fd) = self.handles.maps.get(pin).filter(|_| !has_links && map.from.is_none()) {
                map.sockets = Some(sockets::count(fd.as_fd())?);
            }
        }
        Ok(())
    }

    fn pinned_program(&mut self, function: &str) -> Result<ObservedProgram, SysError> {
        let programs = &mut self.handles.programs;
        if let Some(handle) = self.pinned.programs.remove(function) {
            let (info, load_key) = (info::program(handle.fd.as_fd())?, handle.load_key.clone());
            programs.insert(function.to_owned(), handle);
            return Ok(ObservedProgram { info, load_key, pinned: true });
        }
        let fd = self.dir.get(&layout::program(function))?;
        let info = info::program(fd.as_fd())?;
        let origin = self.dir.read_note(&layout::origin(function))?.as_deref().and_then(Origin::parse);
        let noted = origin.filter(|origin| origin.program_id == info.id).map(|origin| origin.load_key);
        let known = programs.remove(function).filter(|handle| handle.id == info.id).and_then(|handle| handle.load_key);
        let pinned = noted.is_some() || known.is_none();
        let load_key = noted.or(known);
        let handle = ProgramHandle { fd, id: info.id, load_key: load_key.clone() };
        programs.insert(function.to_owned(), handle);
        Ok(ObservedProgram { info, load_key, pinned })
    }

    fn orphaned_program(&self, function: &str) -> Result<Option<ObservedProgram>, SysError> {
        let Some(ProgramHandle { fd, id: _, load_key }) = self.handles.programs.get(function) else { return Ok(None) };
        Ok(Some(ObservedProgram { info: info::program(fd.as_fd())?, load_key: load_key.clone(), pinned: false }))
    }

    fn pinned_map(&mut self, pin: &str) -> Result<ObservedMap, SysError> {
        let fd = match self.pinned.maps.remove(pin) {
            Some(fd) => fd,
            None => self.dir.get(&layout::map(pin))?,
        };
        let info = info::map(fd.as_fd())?;
        self.handles.maps.insert(pin.to_owned(), fd);
        Ok(ObservedMap { info, pinned: true, ..ObservedMap::default() })
    }

    fn orphaned_map(&self, pin: &str) -> Result<Option<ObservedMap>, SysError> {
        let Some(fd) = self.handles.maps.get(pin) else { return Ok(None) };
        Ok(Some(ObservedMap { info: info::map(fd.as_fd())?, ..ObservedMap::default() }))
    }

    /// Reads the note of a map's owner.
    fn read_source(&self, pin: &str, observed: &mut Observed) -> Result<(), SysError> {
        if let Some(map) = observed.maps.get_mut(pin) {
            map.from = self.dir.read_note(&layout::source(pin))?.as_deref().and_then(layout::parse_source);
        }
        Ok(())
    }

    /// Reads the notes of kept pods. A pod whose note somebody removed is kept all the same.
    fn read_kept_pods(&mut self, names: &PinNames, observed: &mut Observed) -> Result<(), SysError> {
        for pod in &names.kept_pods {
            self.read_kept_pod(pod, observed)?;
        }
        for (pod, path) in &self.handles.kept_pods {
            let remembered = || ObservedKeptPod { path: path.clone(), noted: false };
            observed.kept_pods.entry(pod.clone()).or_insert_with(remembered);
        }
        Ok(())
    }

    /// Reads the note of a kept pod.
    fn read_kept_pod(&mut self, pod: &KeptPod, observed: &mut Observed) -> Result<(), SysError> {
        if let Some(path) = self.dir.read_note(&layout::kept_pod(pod))? {
            self.handles.kept_pods.insert(pod.clone(), path.clone());
            observed.kept_pods.insert(pod.clone(), ObservedKeptPod { path, noted: true });
        }
        Ok(())
    }

    fn pinned_link(&mut self, key: &LinkKey) -> Result<ObservedLink, SysError> {
        if let Some(handle) = self.pinned.links.remove(key) {
            let (info, path) = (info::made_link(handle.fd.as_fd())?, handle.path.clone());
            self.handles.links.insert(key.clone(), LinkHandle { id: info.id, ..handle });
            return self.cgroup_link(info, path, true);
        }
        let fd = self.dir.get(&layout::link(&key.function, &key.place))?;
        if let Some(pin) = key.map() {
            return self.pinned_map_link(key, pin, fd);
        }
        let info = info::link(fd.as_fd())?;
        let noted = self.dir.read_note(&layout::cgroup(&key.place))?;
        let known = self.handles.links.remove(key).filter(|handle| handle.id == info.id);
        let known = known.and_then(|handle| handle.path);
        let pinned = noted.is_some() || known.is_none();
        let path = noted.or(known);
        self.handles.links.insert(key.clone(), LinkHandle::to_cgroup(fd, info.id, path.clone()));
        self.cgroup_link(info, path, pinned)
    }

    fn orphaned_link(&mut self, key: &LinkKey) -> Result<Option<ObservedLink>, SysError> {
        let Some(LinkHandle { fd, path, .. }) = self.handles.links.get(key) else { return Ok(None) };
        if let Some(pin) = key.map() {
            return self.map_link(key, pin, false).map(Some);
        }
        let (info, path) = (info::link(fd.as_fd())?, path.clone());
        self.cgroup_link(info, path, false).map(Some)
    }

    fn cgroup_link(&mut self, info: LinkInfo, path: Option<String>, pinned: bool) -> Result<ObservedLink, SysError> {
        let in_effect = match &path {
            Some(path) => self.queries.lists(self.root, &info, path)?,
            None => false,
        };
        Ok(ObservedLink { info, path, in_effect, believed: false, pinned })
    }

    fn pinned_map_link(&mut self, key: &LinkKey, pin: &str, fd: Fd) -> Result<ObservedLink, SysError> {
        // The attach type is known only of the very program that this agent attached.
        let known = match self.handles.links.remove(key) {
            Some(LinkHandle { fd: known, map_attach_type: Some(attach_type), .. })
                if info::is_program(fd.as_fd())?
                    && info::program_id(fd.as_fd())? == info::program_id(known.as_fd())? =>
            {
                Some(attach_type)
            }
            _ => None,
        };
        self.handles.links.insert(key.clone(), LinkHandle::to_map(fd, known));
        self.map_link(key, pin, true)
    }

    /// Reads a function's attachment to a map, by the descriptor of the link or of the program in its place.
    fn map_link(&mut self, key: &LinkKey, pin: &str, pinned: bool) -> Result<ObservedLink, SysError> {
        let Handles { programs, maps, links, .. } = &mut *self.handles;
        let handle = links.get_mut(key).ok_or_else(|| no_handle(key))?;
        let own = programs.get(&key.function).map(|program| &program.fd);
        let map = maps.get(pin).map(|map| map.as_fd());
        let MapAttachment { info, in_effect, believed } = MapAttachment::read(map, handle, own.map(|fd| fd.as_fd()))?;
        let mut observed = ObservedLink { info, path: None, in_effect, believed, pinned };
        if in_effect && !observed.is_link() && info::program_id(handle.fd.as_fd())? != observed.info.program_id {
            // The pin is of the function's former program: the attached one is still to be pinned.
            let own = own.ok_or_else(|| no_handle(key))?;
            handle.fd = Fd::clone(own);
            observed.pinned = false;
        }
        Ok(observed)
    }
}

fn no_handle(key: &LinkKey) -> SysError {
    SysError { call: format!("read of {}/{}", key.function, key.place), source: io::ErrorKind::InvalidInput.into() }
}
