//! What runs at a cgroup or a map, by the kernel's own query, whoever's it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    path::Path,
};

use crate::{
    kernel::{
        SysError, bpf, bpffs,
        cgroup::{self, Root},
        info::{self, LinkInfo},
    },
    layout::{self, Home},
};

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

/// What the kernel says is attached, asked once per cgroup and attach type.
pub(super) struct Attached<'a> {
    root: &'a Root,
    queried: BTreeMap<(String, u32), Option<Query>>,
}

impl<'a> Attached<'a> {
    /// Nothing has been asked yet.
    pub(super) const fn new(root: &'a Root) -> Self {
        Self { root, queried: BTreeMap::new() }
    }

    /// Whether the link is alive, its cgroup is still the one at that path, and the cgroup's query lists its program.
    pub(super) fn lists(&mut self, link: &LinkInfo, path: &str) -> Result<bool, SysError> {
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
    let map = match bpffs::ANYWHERE.get(&home.directory().join(layout::map(pin))) {
        Ok(map) => map,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let target = info::map_id(map.as_fd())?.into();
    Ok(bpf::map_query(map.as_fd(), attach_type)?.map(|programs| Query { target, programs }))
}
