//! Observe: reads what one BpfProgram has on this node from bpffs and the kernel. Reads only; changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    path::Path,
};

use crate::{
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey, Names},
    kernel::{
        SysError, bpf, bpffs,
        cgroup::{self, Cgroup, Root},
        info,
    },
    kubelet,
    layout::{self, Home, Layout, Origin, STAGING},
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

/// Whether there is a bpffs to keep things on.
pub fn bpffs(layout: &Layout) -> Result<(), ObserveError> {
    let directory = layout.directory();
    let root = directory.parent().unwrap_or(directory);
    match bpffs::mount(root)? {
        bpffs::Mount::Bpffs => Ok(()),
        bpffs::Mount::ReadOnly => Err(ObserveError::ReadOnly(root.display().to_string())),
        bpffs::Mount::Other => Err(ObserveError::NotBpffs(root.display().to_string())),
    }
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
pub fn pods(root: &Root, kubelet_root: &str) -> Result<String, SysError> {
    let [systemd, cgroupfs] = kubelet::pods_cgroups(kubelet_root);
    match root.cgroup(&systemd) {
        Ok(_) => Ok(systemd),
        Err(error) if error.is_not_found() => Ok(cgroupfs),
        Err(error) => Err(error),
    }
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

/// Reads one home.
pub fn home(home: &Home, root: &Root) -> Result<Held, SysError> {
    match list(home)? {
        Some(names) => read(home, root, &names),
        None => Ok(Held::default()),
    }
}

/// Reads one home in which these are known to be, without listing any directory. Whatever else may have come there since
/// they were listed is found by the next look; where one of them has gone, this is a look at all of it.
pub fn known(home: &Home, root: &Root, names: &Names) -> Result<Held, SysError> {
    match read(home, root, names) {
        Err(error) if error.is_not_found() => self::home(home, root),
        held => held,
    }
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
        // Only an agent killed at the wrong moment leaves something there.
        stray: notes.iter().any(|name| name == STAGING),
    }))
}

fn read(home: &Home, root: &Root, names: &Names) -> Result<Held, SysError> {
    let Names { functions, maps, links, retained, stray } = names;
    let mut held = Held {
        uid: bpffs::read_note(&home.uid())?,
        revision: bpffs::read_note(&home.revision())?,
        retained: retained.clone(),
        stray: *stray,
        ..Held::default()
    };
    for function in functions {
        let fd = bpf::obj_get(&home.program(function))?;
        let info = info::program(fd.as_fd())?;
        let origin = bpffs::read_note(&home.origin(function))?.as_deref().and_then(Origin::parse);
        let load_key = origin.filter(|origin| origin.program_id == info.id).map(|origin| origin.load_key);
        held.functions.insert(function.clone(), HeldFunction { info, load_key });
    }
    for pin in maps {
        let fd = bpf::obj_get(&home.map(pin))?;
        held.maps.insert(pin.clone(), HeldMap { info: info::map(fd.as_fd())? });
    }
    let mut attached = Attached { root, queried: BTreeMap::new() };
    for key in links {
        let fd = bpf::obj_get(&home.link(&key.function, &key.place))?;
        let info = info::link(fd.as_fd())?;
        let path = bpffs::read_note(&home.cgroup(&key.place))?;
        let in_effect = match &path {
            Some(path) => attached.lists(&info, path)?,
            None => false,
        };
        held.links.insert(key.clone(), HeldLink { info, path, in_effect });
    }
    Ok(held)
}

/// What the kernel says is attached, asked once per cgroup and attach type.
struct Attached<'a> {
    root: &'a Root,
    queried: BTreeMap<(String, u32), Vec<u32>>,
}

impl Attached<'_> {
    /// Whether the link is alive, its cgroup is still the one at that path, and the cgroup's query lists its program.
    fn lists(&mut self, link: &info::LinkInfo, path: &str) -> Result<bool, SysError> {
        if link.cgroup_id == 0 {
            return Ok(false);
        }
        let key = (path.to_owned(), link.attach_type);
        if !self.queried.contains_key(&key) {
            let ids = match self.root.open(path) {
                Ok(cgroup) if cgroup::id(cgroup.as_fd())? == link.cgroup_id => {
                    bpf::prog_query(cgroup.as_fd(), link.attach_type)?.programs
                }
                Ok(_) => Vec::new(),
                Err(error) if error.is_not_found() => Vec::new(),
                Err(error) => return Err(error),
            };
            self.queried.insert(key.clone(), ids);
        }
        Ok(self.queried.get(&key).is_some_and(|ids| ids.contains(&link.program_id)))
    }
}
