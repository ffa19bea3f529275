//! What one BpfProgram has: its home on bpffs, and what of it the agent's own descriptors alone still hold.

use std::{collections::BTreeSet, io, os::fd::AsFd as _, path::PathBuf};

use super::attached::Attached;
use crate::{
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey, Names, Site},
    kept::{Kept, KeptLink, KeptProgram, Previous},
    kernel::{
        Fd, SysError,
        bpffs::Dir,
        cgroup::Root,
        info::{self, LinkInfo},
    },
    layout::{self, Home, Origin, STAGING, Trial},
    on_map::{self, OnMap},
    plan::Step,
};

/// Reads one home, and what of it the agent alone still holds. What others take away between the list and the read is no
/// error: it is listed again.
pub fn home(home: &Home, root: &Root, kept: &mut Kept) -> Result<Held, SysError> {
    const LISTS: usize = 4;
    let once = |kept: &mut Kept| {
        let dir = &Dir::at(home.directory())?;
        let names = list(dir)?;
        if names.is_none() && kept.is_empty() {
            return Ok(Held::default());
        }
        let made = Kept::default();
        Reader { dir, attached: Attached::new(root), made, kept }.read(&names.unwrap_or_default())
    };
    for _ in 1..LISTS {
        match once(kept) {
            Err(error) if error.is_not_found() => {}
            held => return held,
        }
    }
    once(kept)
}

/// Reads one home after steps, without listing any directory: what they touched, the rest being as it was, and what they made by
/// the descriptors that it was made with. Whatever else may have come there is found by the next look; where something of it
/// has gone, this is a look at all of it.
pub fn after(
    home: &Home,
    dir: &Dir,
    root: &Root,
    before: &Held,
    steps: &[Step],
    made: Kept,
    kept: &mut Kept,
) -> Result<Held, SysError> {
    let mut reader = Reader { dir, attached: Attached::new(root), made, kept };
    let read = match links_alone(steps) {
        Some(touched) => reader.relinked(before, touched),
        None => reader.read(&Names::of(before).after(steps)),
    };
    match read {
        Err(error) if error.is_not_found() => self::home(home, root, kept),
        held => held,
    }
}

/// The links to cgroups that steps make and remove, and whether each is made; nothing where they do anything else.
fn links_alone(steps: &[Step]) -> Option<Vec<(LinkKey, bool)>> {
    let touched = |step: &Step| match step {
        Step::Attach { function, site: site @ Site::Cgroup(_), .. } => Some((LinkKey::to(function, site), true)),
        Step::Detach(key) if key.map().is_none() => Some((key.clone(), false)),
        _ => None,
    };
    steps.iter().map(touched).collect()
}

/// What there is; nothing where there is no home.
fn list(dir: &Dir) -> Result<Option<Names>, SysError> {
    if !dir.is_there() {
        return Ok(None);
    }
    let notes = dir.list(&layout::meta())?;
    let mut links = BTreeSet::new();
    for function in dir.list(&layout::links())? {
        let places = dir.list(&layout::links_of(&function))?;
        links.extend(places.into_iter().map(|place| LinkKey { function: function.clone(), place }));
    }
    let names = Names {
        uid: dir.read_note(&layout::uid())?,
        revision: dir.read_note(&layout::revision())?,
        trial: dir.read_note(&layout::trial())?.as_deref().and_then(Trial::parse),
        functions: dir.list(&layout::programs())?.into_iter().collect(),
        maps: dir.list(&layout::maps())?.into_iter().collect(),
        links,
        retained: notes.iter().filter_map(|note| layout::retained(note)).map(str::to_owned).collect(),
        shared: notes.iter().filter_map(|note| layout::shared(note)).map(str::to_owned).collect(),
        // Only an agent killed at the wrong moment leaves something there, or a home with nothing in it.
        stray: notes.iter().any(|name| name == STAGING),
    };
    let stray = names.stray || names == Names::default();
    Ok(Some(Names { stray, ..names }))
}

/// Reads single objects, by their pins or by the agent's own descriptors.
struct Reader<'a> {
    /// The home.
    dir: &'a Dir,
    attached: Attached<'a>,
    /// What has just been made and pinned.
    made: Kept,
    kept: &'a mut Kept,
}

impl Reader<'_> {
    /// What there was, with those links as they are now.
    fn relinked(&mut self, before: &Held, touched: Vec<(LinkKey, bool)>) -> Result<Held, SysError> {
        let mut held = before.clone();
        for (key, made) in touched {
            if made {
                held.links.insert(key.clone(), self.pinned_link(&key)?);
            } else {
                held.links.remove(&key);
            }
        }
        Ok(held)
    }

    fn read(&mut self, names: &Names) -> Result<Held, SysError> {
        let mut held = Held {
            uid: names.uid.clone(),
            revision: names.revision.clone(),
            trial: names.trial.clone(),
            previous: self.kept.previous.as_ref().map(Previous::held),
            retained: names.retained.clone(),
            stray: names.stray,
            ..Held::default()
        };
        for function in &names.functions {
            held.functions.insert(function.clone(), self.pinned_program(function)?);
        }
        for pin in &names.maps {
            held.maps.insert(pin.clone(), self.pinned_map(pin)?);
        }
        for key in &names.links {
            held.links.insert(key.clone(), self.pinned_link(key)?);
        }
        let Names { functions, maps, links, .. } = self.kept.beyond(names);
        for function in functions {
            held.functions.extend(self.kept_program(&function)?.map(|program| (function, program)));
        }
        for pin in maps {
            held.maps.extend(self.kept_map(&pin)?.map(|map| (pin, map)));
        }
        for pin in &names.shared {
            self.source(pin, &mut held)?;
        }
        for key in links {
            held.links.extend(self.kept_link(&key)?.map(|link| (key, link)));
        }
        Ok(held)
    }

    fn pinned_program(&mut self, function: &str) -> Result<HeldFunction, SysError> {
        if let Some(made) = self.made.programs.remove(function) {
            let (info, load_key) = (info::program(made.fd.as_fd())?, made.load_key.clone());
            self.kept.programs.insert(function.to_owned(), made);
            return Ok(HeldFunction { info, load_key, pinned: true });
        }
        let fd = self.dir.get(&layout::program(function))?;
        let info = info::program(fd.as_fd())?;
        let origin = self.dir.read_note(&layout::origin(function))?.as_deref().and_then(Origin::parse);
        let noted = origin.filter(|origin| origin.program_id == info.id).map(|origin| origin.load_key);
        let known =
            self.kept.programs.remove(function).filter(|kept| kept.id == info.id).and_then(|kept| kept.load_key);
        let pinned = noted.is_some() || known.is_none();
        let load_key = noted.or(known);
        self.kept.programs.insert(function.to_owned(), KeptProgram { fd, id: info.id, load_key: load_key.clone() });
        Ok(HeldFunction { info, load_key, pinned })
    }

    fn kept_program(&self, function: &str) -> Result<Option<HeldFunction>, SysError> {
        let Some(KeptProgram { fd, id: _, load_key }) = self.kept.programs.get(function) else { return Ok(None) };
        Ok(Some(HeldFunction { info: info::program(fd.as_fd())?, load_key: load_key.clone(), pinned: false }))
    }

    fn pinned_map(&mut self, pin: &str) -> Result<HeldMap, SysError> {
        let fd = match self.made.maps.remove(pin) {
            Some(made) => made,
            None => self.dir.get(&layout::map(pin))?,
        };
        let info = info::map(fd.as_fd())?;
        self.kept.maps.insert(pin.to_owned(), fd);
        Ok(HeldMap { info, pinned: true, from: None })
    }

    fn kept_map(&self, pin: &str) -> Result<Option<HeldMap>, SysError> {
        let Some(fd) = self.kept.maps.get(pin) else { return Ok(None) };
        Ok(Some(HeldMap { info: info::map(fd.as_fd())?, pinned: false, from: None }))
    }

    /// Notes whose a map is.
    fn source(&self, pin: &str, held: &mut Held) -> Result<(), SysError> {
        if let Some(map) = held.maps.get_mut(pin) {
            map.from = self.dir.read_note(&layout::source(pin))?.as_deref().and_then(layout::parse_source);
        }
        Ok(())
    }

    fn pinned_link(&mut self, key: &LinkKey) -> Result<HeldLink, SysError> {
        if let Some(KeptLink { fd, id: _, path, attached }) = self.made.links.remove(key) {
            let info = info::made_link(fd.as_fd())?;
            self.kept.links.insert(key.clone(), KeptLink { fd, id: info.id, path: path.clone(), attached });
            return self.link(info, path, true);
        }
        let fd = self.dir.get(&layout::link(&key.function, &key.place))?;
        if let Some(pin) = key.map() {
            return self.pinned_on_map(key, pin, fd);
        }
        let info = info::link(fd.as_fd())?;
        let noted = self.dir.read_note(&layout::cgroup(&key.place))?;
        let known = self.kept.links.remove(key).filter(|kept| kept.id == info.id).and_then(|kept| kept.path);
        let pinned = noted.is_some() || known.is_none();
        let path = noted.or(known);
        self.kept.links.insert(key.clone(), KeptLink { fd, id: info.id, path: path.clone(), attached: None });
        self.link(info, path, pinned)
    }

    fn kept_link(&mut self, key: &LinkKey) -> Result<Option<HeldLink>, SysError> {
        let Some(KeptLink { fd, id: _, path, attached: _ }) = self.kept.links.get(key) else { return Ok(None) };
        if let Some(pin) = key.map() {
            return self.on_map(key, pin, false).map(Some);
        }
        let (info, path) = (info::link(fd.as_fd())?, path.clone());
        self.link(info, path, false).map(Some)
    }

    fn link(&mut self, info: LinkInfo, path: Option<String>, pinned: bool) -> Result<HeldLink, SysError> {
        let in_effect = match &path {
            Some(path) => self.attached.lists(&info, path)?,
            None => false,
        };
        Ok(HeldLink { info, path, in_effect, believed: false, pinned })
    }

    fn pinned_on_map(&mut self, key: &LinkKey, pin: &str, fd: Fd) -> Result<HeldLink, SysError> {
        let attached = match self.kept.links.remove(key) {
            Some(KeptLink { fd: kept, attached: Some(attach_type), .. })
                if info::is_program(fd.as_fd())?
                    && info::program_id(fd.as_fd())? == info::program_id(kept.as_fd())? =>
            {
                Some(attach_type)
            }
            _ => None,
        };
        self.kept.links.insert(key.clone(), KeptLink { fd, id: 0, path: None, attached });
        self.on_map(key, pin, true)
    }

    /// What is kept in a link's place, and whether it is attached to the map.
    fn on_map(&mut self, key: &LinkKey, pin: &str, pinned: bool) -> Result<HeldLink, SysError> {
        let Kept { programs, maps, links, .. } = &mut *self.kept;
        let kept = links.get_mut(key).ok_or_else(|| not_kept(key))?;
        let own = programs.get(&key.function).map(|program| &program.fd);
        let map = maps.get(pin).map(|map| map.as_fd());
        let OnMap { info, in_effect, believed } = on_map::look(map, kept, own.map(|fd| fd.as_fd()))?;
        let mut held = HeldLink { info, path: None, in_effect, believed, pinned };
        if in_effect && !held.is_link() && info::program_id(kept.fd.as_fd())? != held.info.program_id {
            // The pin is of the program before: what is attached has to be pinned in its place.
            let own = own.ok_or_else(|| not_kept(key))?;
            kept.fd = Fd::clone(own);
            held.pinned = false;
        }
        Ok(held)
    }
}

fn not_kept(key: &LinkKey) -> SysError {
    SysError { call: format!("look at {}/{}", key.function, key.place), source: io::ErrorKind::InvalidInput.into() }
}

/// The directories in which something comes or goes when someone meddles with one home.
pub fn directories(home: &Home, held: &Held) -> Vec<PathBuf> {
    let functions = held.links.keys().map(|key| layout::links_of(&key.function));
    let all = [layout::meta(), layout::maps(), layout::programs()].into_iter().chain(functions);
    all.map(|directory| home.directory().join(directory)).collect()
}
