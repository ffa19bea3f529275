//! The programs attached to a cgroup or map, by the kernel's own query, whoever attached them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    os::fd::AsFd as _,
    path::Path,
};

use crate::{
    kernel::{
        SysError, bpf, bpffs,
        cgroup::{self, Root},
        info,
    },
    model::kernel::LinkInfo,
    node::layout::{self, Home},
};

/// The programs attached to a cgroup or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The cgroup's or the map's ID.
    pub target: u64,
    /// The attached programs' IDs, in the order in which they run.
    pub programs: Vec<u32>,
}

/// Queries the cgroup at a path; `None` if there is no such cgroup.
pub fn attached(root: &Root, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
    let cgroup = match root.open(path) {
        Ok(cgroup) => cgroup,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match bpf::prog_query(cgroup.as_fd(), attach_type) {
        Ok(found) => Ok(Some(Query { target: cgroup::id(cgroup.as_fd())?, programs: found.programs })),
        // The cgroup was removed after it was opened.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Queries a pinned map for the program that runs for sockets that enter it; `None` if there is no such map, or the
/// kernel does not tell.
pub fn attached_to_map(home: &Home, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
    let map = match bpffs::WHOLE_PATHS.get(&home.directory().join(layout::map(pin))) {
        Ok(map) => map,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let target = info::map_id(map.as_fd())?.into();
    Ok(bpf::map_query(map.as_fd(), attach_type)?.map(|programs| Query { target, programs }))
}

/// Finds the first program, in the order of paths, that is attached to a cgroup or one below it and is not one of
/// `ours`. Returns the cgroup's path and the program's ID.
pub fn foreign_program(root: &Root, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)> {
    let mut paths = root.below(path);
    paths.sort();
    paths.into_iter().find_map(|path| {
        let found = attached(root, &path, attach_type).ok()??;
        let id = found.programs.into_iter().find(|id| !ours.contains(id))?;
        Some((path, id))
    })
}

/// An attachment without `BPF_F_ALLOW_MULTI`, which excludes all others from its cgroup and those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExclusiveAttachment {
    /// The path of the cgroup that it is attached to.
    pub path: String,
    /// The attached programs' IDs.
    pub programs: Vec<u32>,
}

/// Finds the exclusive attachment that a cgroup has or is below of; the lowest, if there are several.
pub fn exclusive_attachment(
    root: &Root,
    path: &str,
    attach_type: u32,
) -> Result<Option<ExclusiveAttachment>, SysError> {
    for cgroup in Path::new(path).ancestors() {
        let path = cgroup.to_string_lossy().into_owned();
        let found = bpf::prog_query(root.open(&path)?.as_fd(), attach_type)?;
        if !found.programs.is_empty() && !found.allows_others {
            return Ok(Some(ExclusiveAttachment { path, programs: found.programs }));
        }
    }
    Ok(None)
}

/// Queries of cgroups, each made at most once per cgroup and attach type until the cache is cleared. BpfPrograms that
/// are observed one after the other share them: what one query lists is true for all of them.
#[derive(Debug, Default)]
pub struct QueryCache(RefCell<BTreeMap<(String, u32), Option<Query>>>);

impl QueryCache {
    /// Forgets all queries: something may have been attached or detached since.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Returns whether a link is in effect: it is alive, its cgroup is still the one at that path, and the query of the
    /// cgroup lists the link's program.
    pub(super) fn lists(&self, root: &Root, link: &LinkInfo, path: &str) -> Result<bool, SysError> {
        if link.cgroup_id == 0 {
            return Ok(false);
        }
        let key = (path.to_owned(), link.attach_type);
        let mut queries = self.0.borrow_mut();
        let query = match queries.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(attached(root, path, link.attach_type)?),
        };
        let query = query.as_ref();
        Ok(query.is_some_and(|query| query.target == link.cgroup_id && query.programs.contains(&link.program_id)))
    }
}
