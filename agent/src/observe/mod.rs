//! Observe: reads what there is on this node from bpffs and the kernel. Reads only; changes nothing.
//!
//! | file | what |
//! |---|---|
//! | this one | bpffs, and what is noted on all of the node; the cgroups of targets |
//! | `home` | what one BpfProgram has |
//! | `attached` | what runs at a cgroup or a map, whoever's it is |
//! | `pods` | where the pods' cgroups are |

mod attached;
mod home;
mod pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use crate::{
    kernel::{
        SysError,
        bpffs::{self, Dir, Mount},
        cgroup::{Cgroup, Root},
    },
    layout::{self, DIRECTORY, Layout, Trial},
    wanted::Wanted,
};
pub use attached::{Keeper, Query, attached, attached_to_map, keeper, stranger};
pub use home::{after, directories, home};
pub use pods::{pod_cgroups, pod_directories, pods_root};

/// Why nothing could be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The place for pins is not bpffs: pins there would vanish with this process's mount namespace, or fail.
    #[error("there is no bpffs at {0}: mount one there (mount -t bpf bpf {0}), which the agent notices")]
    NotBpffs(String),
    /// Nothing can be pinned there or unpinned, and the kernel opens no link.
    #[error("the bpffs at {0} is read-only: mount it writable (mount -o remount,rw {0}), which the agent notices")]
    ReadOnly(String),
    /// The kernel refused.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The bpffs to keep things on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bpffs {
    /// Its device number: one that was mounted anew has another.
    pub device: u64,
    /// Why nothing is to be attached on this node, where someone has said so on the node itself.
    pub suspended: Option<String>,
}

/// Looks at the bpffs to keep things on.
pub fn bpffs(layout: &Layout) -> Result<Bpffs, ObserveError> {
    let (device, root) = root(layout)?;
    Ok(Bpffs { device, suspended: root.read_note(&layout::suspension())? })
}

/// The names of the BpfPrograms that have a home here.
pub fn homes(layout: &Layout) -> Result<BTreeSet<String>, ObserveError> {
    let names = root(layout)?.1.list(Path::new(DIRECTORY))?;
    Ok(names.into_iter().filter(|name| sockeye_crds::names::is_dns_label(name)).collect())
}

/// The trials that are noted here, by BpfProgram: nothing else of its home is read. One that can't be read is no reason not to
/// read the others.
pub fn trials(layout: &Layout) -> Result<BTreeMap<String, Trial>, ObserveError> {
    let noted = |name: &String| Dir::at(layout.home(name).directory())?.read_note(&layout::trial());
    let mut trials = BTreeMap::new();
    for name in homes(layout)? {
        match noted(&name) {
            Ok(note) => trials.extend(note.as_deref().and_then(Trial::parse).map(|trial| (name, trial))),
            Err(error) => tracing::warn!(program = name, %error, "whether it is on trial can't be read"),
        }
    }
    Ok(trials)
}

/// The bpffs' device number, and its root.
fn root(layout: &Layout) -> Result<(u64, Dir), ObserveError> {
    let shown = || layout.host_root().display().to_string();
    match bpffs::mount(layout.root()) {
        Ok(Mount::Bpffs(device, root)) => Ok((device, root)),
        Ok(Mount::ReadOnly) => Err(ObserveError::ReadOnly(shown())),
        Ok(Mount::Other) => Err(ObserveError::NotBpffs(shown())),
        Err(error) if error.is_not_found() => Err(ObserveError::NotBpffs(shown())),
        Err(error) => Err(error.into()),
    }
}

/// That a path leads to no cgroup, and can't.
fn names_nothing(error: &SysError) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.source.kind(), NotFound | InvalidInput | NotADirectory | InvalidFilename)
}

/// The wanted cgroups that exist, by path; the others are missing from the answer.
pub fn cgroups(root: &Root, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
    let mut found = BTreeMap::new();
    for path in wanted.paths() {
        match root.cgroup(path) {
            Ok(cgroup) => drop(found.insert(path.to_owned(), cgroup)),
            Err(error) if names_nothing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
