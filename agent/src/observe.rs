//! Observe: reads what one BpfProgram has on this node from bpffs and the kernel. Reads only; changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey, Names, Site},
    kept::{Kept, KeptLink, KeptProgram},
    kernel::{
        Call as _, SysError, bpf, bpffs,
        cgroup::{self, Cgroup, Root},
        info::{self, LinkInfo},
    },
    kubelet,
    layout::{self, Home, Layout, Origin, STAGING, Trial},
    on_map::{self, OnMap},
    plan::Step,
    pods::PodCgroup,
    wanted::Wanted,
};

/// Why nothing could be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The place for pins is not bpffs: pins there would vanish with this process's mount namespace, or fail.
    #[error("{0} is not on a bpffs: mount one there (mount -t bpf bpf /sys/fs/bpf), which the agent notices")]
    NotBpffs(String),
    /// Nothing can be pinned there or unpinned, and the kernel opens no link.
    #[error("the bpffs at {0} is read-only: mount it writable (mount -o remount,rw {0}), which the agent notices")]
    ReadOnly(String),
    /// The kernel refused.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The bpffs to keep things on, by its device number: a mount anew is another one.
pub fn bpffs(layout: &Layout) -> Result<u64, ObserveError> {
    let directory = layout.directory();
    let root = directory.parent().unwrap_or(directory);
    match bpffs::mount(root)? {
        bpffs::Mount::Bpffs(device) => Ok(device),
        bpffs::Mount::ReadOnly => Err(ObserveError::ReadOnly(root.display().to_string())),
        bpffs::Mount::Other => Err(ObserveError::NotBpffs(root.display().to_string())),
    }
}

/// Why nothing is to be attached on this node, where someone has said so.
pub fn suspension(layout: &Layout) -> Result<Option<String>, SysError> {
    bpffs::read_note(&layout.suspension())
}

/// The directories in which something comes or goes when someone meddles with one home.
pub fn directories(home: &Home, held: &Held) -> Vec<PathBuf> {
    let functions = held.links.keys().map(|key| home.links_of(&key.function));
    [home.meta(), home.maps(), home.programs()].into_iter().chain(functions).collect()
}

/// The names of the BpfPrograms that have a home here.
pub fn homes(layout: &Layout) -> Result<BTreeSet<String>, ObserveError> {
    bpffs(layout)?;
    let names = bpffs::list(layout.directory())?;
    Ok(names.into_iter().filter(|name| sockeye_crds::names::is_dns_label(name)).collect())
}

/// The wanted cgroups that exist, by path; the others are missing from the answer.
pub fn cgroups(root: &Root, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
    let mut found = BTreeMap::new();
    for path in wanted.paths() {
        match root.cgroup(path) {
            Ok(cgroup) => drop(found.insert(path.to_owned(), cgroup)),
            Err(error) if error.is_not_found() || error.source.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The cgroup that holds all pods: of the paths that the kubelet's cgroup drivers give it, the first that is there.
pub fn pods_root(root: &Root, kubelet_root: &str) -> Result<String, SysError> {
    let [systemd, cgroupfs] = kubelet::pods_cgroups(kubelet_root);
    match root.cgroup(&systemd) {
        Ok(_) => Ok(systemd),
        Err(error) if error.is_not_found() => Ok(cgroupfs),
        Err(error) => Err(error),
    }
}

/// Where the pods' cgroups are, below the cgroup of all pods; their containers' too, where these are asked for: that costs a
/// look into each pod's directory.
pub fn pod_cgroups(root: &Root, pods: &str, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
    let mut found = BTreeMap::new();
    for class in kubelet::classes(pods) {
        for name in root.children(&class)? {
            let Some(uid) = kubelet::pod_uid(&name) else { continue };
            let path = format!("{class}/{name}");
            let inner = if containers { root.children(&path)? } else { Vec::new() };
            let ids = inner
                .iter()
                .filter_map(|name| Some((kubelet::container_id(name)?.to_owned(), format!("{path}/{name}"))));
            let containers = ids.collect();
            found.insert(uid, PodCgroup { path, containers });
        }
    }
    Ok(found)
}

/// The directories in which pods' cgroups come and go, those in which their containers' do where these are asked for, and
/// the one in which the cgroup of all pods does.
pub fn pod_directories(root: &Root, pods: &str, containers: bool) -> Result<Vec<PathBuf>, SysError> {
    let above = Path::new(pods).parent().map(|above| root.join(&above.to_string_lossy()));
    let classes = kubelet::classes(pods).map(|class| root.join(&class));
    let each = if containers { pod_cgroups(root, pods, false)? } else { BTreeMap::new() };
    let each = each.into_values().map(|pod| root.join(&pod.path));
    Ok(above.into_iter().chain(classes).chain(each).collect())
}

/// Who keeps a link away from a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The cgroup at which it is attached: that one, or one above it.
    pub path: String,
    /// The attached programs' IDs.
    pub programs: Vec<u32>,
}

/// The lowest of a cgroup and those above it at which something is attached that lets nothing stand beside or below it.
pub fn keeper(root: &Root, path: &str, attach_type: u32) -> Result<Option<Keeper>, SysError> {
    for above in Path::new(path).ancestors() {
        let path = above.to_string_lossy().into_owned();
        let found = bpf::prog_query(root.open(&path)?.as_fd(), attach_type)?;
        if !found.programs.is_empty() && !found.shared {
            return Ok(Some(Keeper { path, programs: found.programs }));
        }
    }
    Ok(None)
}

/// Reads one home, and what of it the agent alone still holds. What others take away between the list and the read is no
/// error: it is listed again.
pub fn home(home: &Home, root: &Root, kept: &mut Kept) -> Result<Held, SysError> {
    const LISTS: usize = 4;
    let once = |kept: &mut Kept| match list(home)? {
        Some(names) => read(home, root, &names, Notes::read(home)?, kept),
        None if kept.is_empty() => Ok(Held::default()),
        None => read(home, root, &Names::default(), Notes::default(), kept),
    };
    for _ in 1..LISTS {
        match once(kept) {
            Err(error) if error.is_not_found() => {}
            held => return held,
        }
    }
    once(kept)
}

/// Reads one home after steps, without listing any directory: what they touched, the rest being as it was. Whatever else may
/// have come there is found by the next look; where something of it has gone, this is a look at all of it.
pub fn after(home: &Home, root: &Root, before: &Held, steps: &[Step], kept: &mut Kept) -> Result<Held, SysError> {
    let read = match links_alone(steps) {
        Some(touched) => relinked(home, root, before, touched, kept),
        None => read(home, root, &Names::of(before).after(steps), Notes::after(before, steps), kept),
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

/// What there was, with those links as they are now.
fn relinked(
    home: &Home,
    root: &Root,
    before: &Held,
    touched: Vec<(LinkKey, bool)>,
    kept: &mut Kept,
) -> Result<Held, SysError> {
    let mut reader = Reader { home, attached: Attached { root, queried: BTreeMap::new() }, kept };
    let mut held = before.clone();
    for (key, made) in touched {
        if made {
            held.links.insert(key.clone(), reader.pinned_link(&key)?);
        } else {
            held.links.remove(&key);
        }
    }
    Ok(held)
}

/// What there is; nothing where there is no home.
fn list(home: &Home) -> Result<Option<Names>, SysError> {
    let notes = bpffs::list(&home.meta())?;
    if notes.is_empty() && bpffs::list(home.directory())?.is_empty() {
        return Ok(None);
    }
    let mut links = BTreeSet::new();
    for function in bpffs::list(&home.links())? {
        let places = bpffs::list(&home.links_of(&function))?;
        links.extend(places.into_iter().map(|place| LinkKey { function: function.clone(), place }));
    }
    Ok(Some(Names {
        functions: bpffs::list(&home.programs())?.into_iter().collect(),
        maps: bpffs::list(&home.maps())?.into_iter().collect(),
        links,
        retained: notes.iter().filter_map(|note| layout::retained(note)).map(str::to_owned).collect(),
        shared: notes.iter().filter_map(|note| layout::shared(note)).map(str::to_owned).collect(),
        // Only an agent killed at the wrong moment leaves something there.
        stray: notes.iter().any(|name| name == STAGING),
    }))
}

/// The notes on all of a home.
#[derive(Default)]
struct Notes {
    uid: Option<String>,
    revision: Option<String>,
    trial: Option<Trial>,
}

impl Notes {
    fn read(home: &Home) -> Result<Self, SysError> {
        Ok(Self {
            uid: bpffs::read_note(&home.uid())?,
            revision: bpffs::read_note(&home.revision())?,
            trial: bpffs::read_note(&home.trial())?.as_deref().and_then(Trial::parse),
        })
    }

    /// What they are after steps that were executed where there was this before.
    fn after(before: &Held, steps: &[Step]) -> Self {
        let Held { uid, revision, trial, .. } = before;
        let mut notes = Self { uid: uid.clone(), revision: revision.clone(), trial: trial.clone() };
        for step in steps {
            match step {
                Step::Claim { uid } => notes.uid = Some(uid.clone()),
                Step::SetRevision(revision) => notes.revision.clone_from(revision),
                Step::SetTrial(trial) => notes.trial = Some(trial.clone()),
                Step::Leave => notes = Self::default(),
                _ => {}
            }
        }
        notes
    }
}

fn read(home: &Home, root: &Root, names: &Names, notes: Notes, kept: &mut Kept) -> Result<Held, SysError> {
    let Notes { uid, revision, trial } = notes;
    let mut reader = Reader { home, attached: Attached { root, queried: BTreeMap::new() }, kept };
    let mut held = Held {
        uid,
        revision,
        trial,
        previous: reader.kept.previous.as_ref().map(|previous| previous.revision.clone()),
        retained: names.retained.clone(),
        stray: names.stray,
        ..Held::default()
    };
    for function in &names.functions {
        held.functions.insert(function.clone(), reader.pinned_program(function)?);
    }
    for pin in &names.maps {
        held.maps.insert(pin.clone(), reader.pinned_map(pin)?);
    }

    for key in &names.links {
        held.links.insert(key.clone(), reader.pinned_link(key)?);
    }
    let Names { functions, maps, links, .. } = reader.kept.beyond(names);
    for function in functions {
        held.functions.extend(reader.kept_program(&function)?.map(|program| (function, program)));
    }
    for pin in maps {
        held.maps.extend(reader.kept_map(&pin)?.map(|map| (pin, map)));
    }
    for pin in &names.shared {
        reader.source(pin, &mut held)?;
    }
    for key in links {
        held.links.extend(reader.kept_link(&key)?.map(|link| (key, link)));
    }
    Ok(held)
}

/// Reads single objects, by their pins or by the agent's own descriptors.
struct Reader<'a> {
    home: &'a Home,
    attached: Attached<'a>,
    kept: &'a mut Kept,
}

impl Reader<'_> {
    fn pinned_program(&mut self, function: &str) -> Result<HeldFunction, SysError> {
        let fd = bpf::obj_get(&self.home.program(function))?;
        let info = info::program(fd.as_fd())?;
        let origin = bpffs::read_note(&self.home.origin(function))?.as_deref().and_then(Origin::parse);
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
        let fd = bpf::obj_get(&self.home.map(pin))?;
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
            map.from = bpffs::read_note(&self.home.source(pin))?.as_deref().and_then(layout::parse_source);
        }
        Ok(())
    }

    fn pinned_link(&mut self, key: &LinkKey) -> Result<HeldLink, SysError> {
        let fd = bpf::obj_get(&self.home.link(&key.function, &key.place))?;
        if let Some(pin) = key.map() {
            return self.pinned_on_map(key, pin, fd);
        }
        let info = info::link(fd.as_fd())?;
        let noted = bpffs::read_note(&self.home.cgroup(&key.place))?;
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

    fn pinned_on_map(&mut self, key: &LinkKey, pin: &str, fd: OwnedFd) -> Result<HeldLink, SysError> {
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
            kept.fd = own.try_clone().call(|| "dup of a program")?;
            held.pinned = false;
        }
        Ok(held)
    }
}

fn not_kept(key: &LinkKey) -> SysError {
    SysError { call: format!("look at {}/{}", key.function, key.place), source: io::ErrorKind::InvalidInput.into() }
}

/// What the kernel says is attached, asked once per cgroup and attach type.
struct Attached<'a> {
    root: &'a Root,
    queried: BTreeMap<(String, u32), Option<Query>>,
}

impl Attached<'_> {
    /// Whether the link is alive, its cgroup is still the one at that path, and the cgroup's query lists its program.
    fn lists(&mut self, link: &LinkInfo, path: &str) -> Result<bool, SysError> {
        if link.cgroup_id == 0 {
            return Ok(false);
        }
        let key = (path.to_owned(), link.attach_type);
        if !self.queried.contains_key(&key) {
            let seen = attached(self.root, path, link.attach_type)?;
            self.queried.insert(key.clone(), seen);
        }
        let seen = self.queried.get(&key).and_then(Option::as_ref);
        Ok(seen.is_some_and(|seen| seen.target == link.cgroup_id && seen.programs.contains(&link.program_id)))
    }
}

/// What is attached at a cgroup or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The cgroup's or the map's ID.
    pub target: u64,
    /// The attached programs' IDs, in the order they run.
    pub programs: Vec<u32>,
}

/// What is attached at the cgroup at that path; nothing where there is none.
pub fn attached(root: &Root, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
    let cgroup = match root.open(path) {
        Ok(cgroup) => cgroup,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match bpf::prog_query(cgroup.as_fd(), attach_type) {
        Ok(found) => Ok(Some(Query { target: cgroup::id(cgroup.as_fd())?, programs: found.programs })),
        // It was removed in this very moment.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first program, in the order of paths, that is attached at a cgroup or below it and is none of these; and where.
pub fn stranger(root: &Root, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)> {
    let mut paths = root.below(path);
    paths.sort();
    paths.into_iter().find_map(|path| {
        let found = attached(root, &path, attach_type).ok()??;
        let id = found.programs.into_iter().find(|id| !ours.contains(id))?;
        Some((path, id))
    })
}

/// What runs for sockets that enter the pinned map; nothing where there is none, or the kernel does not tell.
pub fn attached_to_map(home: &Home, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
    let map = match bpf::obj_get(&home.map(pin)) {
        Ok(map) => map,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let target = info::map_id(map.as_fd())?.into();
    Ok(bpf::map_query(map.as_fd(), attach_type)?.map(|programs| Query { target, programs }))
}
