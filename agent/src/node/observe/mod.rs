//! Observe: reads what this node has from bpffs and the kernel. Reads only; changes nothing.
//!
//! | file | what |
//! |---|---|
//! | this one | the bpffs, the homes and trials on it, and cgroups by their paths |
//! | `home` | everything that one BpfProgram has |
//! | `reader` | single programs, maps and links of a home |
//! | `attached` | what is attached to a cgroup or map, by anybody |
//! | `pods` | the pods' cgroups |

mod attached;
mod home;
mod pods;
mod reader;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
    path::{Path, PathBuf},
};

use sockeye_crds::names;

use crate::{
    kernel::{
        SysError,
        bpffs::{self, Dir, Mount},
        cgroup::Root,
    },
    model::{kernel::Cgroup, trial::Trial},
    node::{
        directory,
        layout::{self, DIRECTORY, Layout},
    },
};
pub use attached::{
    ExclusiveAttachment, Query, QueryCache, attached, attached_to_map, exclusive_attachment, foreign_program,
};
pub use home::{ExecutedPlan, after, directories, home};
pub use pods::{Located, add_outside, locate, pod_cgroups, pod_directories, pod_elsewhere, pods_root};

/// The reason why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The path is on no bpffs: pins would fail, or vanish with this process's mount namespace.
    #[error("there is no bpffs at {0}: mount one there (mount -t bpf bpf {0}), which the agent notices")]
    NotBpffs(String),
    /// The bpffs is read-only: nothing can be pinned or unpinned, and the kernel opens no link.
    #[error("the bpffs at {0} is read-only: mount it writable (mount -o remount,rw {0}), which the agent notices")]
    ReadOnly(String),
    /// Others may have put pins into sockeye's directory.
    #[error("{path} {why}")]
    Untrusted {
        /// The directory.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// The pins are of another version of sockeye, which lays them out differently.
    #[error(
        "the pins of {} in {path} are of another version of sockeye, whose layout this agent does not know, or \
         somebody removed the note _layout there: the agent leaves them alone, and nothing runs here until they are \
         removed. This detaches and removes them, in the agent's container on this node: {command}. If only the note \
         is missing: ln -s {} {path}/_layout",
        names::line(&homes.join(", "), 200),
        layout::VERSION,
    )]
    OlderLayout {
        /// The directory.
        path: String,
        /// The names in it.
        homes: Vec<String>,
        /// The command that removes them.
        command: String,
    },
    /// The kernel refused a call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The bpffs that holds the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bpffs {
    /// Its device number. A bpffs that is mounted anew has another one.
    pub device: u64,
    /// Why nothing is to be attached on this node, if a note on the node says so.
    pub suspended: Option<String>,
}

/// Reads the bpffs that holds the pins.
pub fn bpffs(layout: &Layout) -> Result<Bpffs, ObserveError> {
    let (device, root) = open_current(layout)?;
    Ok(Bpffs { device, suspended: root.read_note(&layout::suspension())? })
}

/// Reads the names of the BpfPrograms that have a home on this node.
pub fn homes(layout: &Layout) -> Result<BTreeSet<String>, ObserveError> {
    let names = open_current(layout)?.1.list(Path::new(DIRECTORY))?;
    Ok(names.into_iter().filter(|name| names::is_dns_label(name)).collect())
}

/// Reads the trials that are noted on this node, by BpfProgram, and nothing else of their homes. One that can't be read
/// is logged and left out.
pub fn trials(layout: &Layout) -> Result<BTreeMap<String, Trial>, ObserveError> {
    let read = |name: &String| Dir::at(layout.home(name).directory())?.read_note(&layout::trial());
    let mut trials = BTreeMap::new();
    for name in homes(layout)? {
        match read(&name) {
            Ok(note) => trials.extend(note.as_deref().and_then(Trial::parse).map(|trial| (name, trial))),
            Err(error) => tracing::warn!(program = name, %error, "can't read whether the program is on trial"),
        }
    }
    Ok(trials)
}

/// Opens the bpffs, whose pins must have this agent's layout.
fn open_current(layout: &Layout) -> Result<(u64, Dir), ObserveError> {
    let (device, root) = open_bpffs(layout)?;
    match directory::older_homes(&root)? {
        homes if homes.is_empty() => Ok((device, root)),
        homes => Err(ObserveError::OlderLayout {
            path: layout.host_directory().display().to_string(),
            homes,
            command: remove_older_pins(layout),
        }),
    }
}

/// Returns the command that removes pins of another layout, as it is to be called where this process runs.
fn remove_older_pins(layout: &Layout) -> String {
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("sockeye-agent"));
    let (root, host) = (layout.root(), layout.host_root());
    let mut command = format!("{} remove-older-pins --bpffs={}", program.display(), root.display());
    if host != root {
        command += &format!(" --host-bpffs={}", host.display());
    }
    command
}

/// Opens the bpffs, whatever the layout of its pins; returns its device number and its root.
pub fn open_bpffs(layout: &Layout) -> Result<(u64, Dir), ObserveError> {
    let path = || layout.host_root().display().to_string();
    match bpffs::mount(layout.root()) {
        Ok(Mount::Bpffs(device, root)) => match directory::distrust(&root)? {
            None => Ok((device, root)),
            Some(why) => Err(ObserveError::Untrusted { path: layout.host_directory().display().to_string(), why }),
        },
        Ok(Mount::ReadOnly) => Err(ObserveError::ReadOnly(path())),
        Ok(Mount::Other) => Err(ObserveError::NotBpffs(path())),
        Err(error) if error.is_not_found() => Err(ObserveError::NotBpffs(path())),
        Err(error) => Err(error.into()),
    }
}

/// Finds the cgroups at these paths that exist, by path.
pub fn cgroups(root: &Root, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, Cgroup>, SysError> {
    let mut found = BTreeMap::new();
    for path in paths {
        match root.cgroup(path) {
            Ok(cgroup) => drop(found.insert((*path).to_owned(), cgroup)),
            Err(error) if is_no_cgroup(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Returns whether an error means that a path is no cgroup's.
fn is_no_cgroup(error: &SysError) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.source.kind(), NotFound | InvalidInput | NotADirectory | InvalidFilename)
}
