//! `Watch`: tells in which homes on bpffs, or in which cgroups, something happened, so that the agent notices at once
//! that somebody removed a pin or that a pod came. Does IO: inotify.
//!
//! A watch has two halves:
//! - [`Watch`] belongs to the thread that decides. It watches directories ([`cover`](Watch::cover)) and tells which
//!   homes events are about ([`changed`](Watch::changed)). It needs no runtime, and no call waits.
//! - [`Happenings`] belongs to a task, which awaits [`next`](Happenings::next) and forwards each answer to the owner of
//!   the `Watch`. The task ends with the first error.
//!
//! The owner's part:
//! - It gives `cover` the directories of what it has reconciled: directories come and go.
//! - It passes forwarded events to `changed`, and reconciles the homes that it returns.
//! - It passes a forwarded error to [`fail`](Watch::fail).
//! - It [`renew`](Watch::renew)s a watch that [`is_broken`](Watch::is_broken) with each sweep, before it covers all
//!   directories, and starts a task for the new `Happenings`. It also renews a watch when another bpffs is mounted in
//!   the place of the watched one.
//! - It sweeps often while the watch [`is_blind`](Watch::is_blind): sweeps alone find what happens unseen.
//!
//! Events that a renewed watch still gets from the instance before do no harm: a home is reconciled in vain, and its
//! directories are covered again.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::pending,
    mem,
    path::PathBuf,
};

pub use crate::kernel::inotify::Happened;
use crate::kernel::{
    SysError,
    inotify::{Events, Inotify},
};

/// The part of a node in which something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// In these homes; in none, if the events were about directories that are no longer watched.
    Homes(BTreeSet<String>),
    /// Possibly in every home: the kernel dropped events.
    Anything,
}

/// The half of a watch that waits.
#[derive(Debug)]
pub struct Happenings(Option<Events>);

impl Happenings {
    /// Waits until something happens in a watched directory, and returns everything that happened since the last call.
    /// Call it within a tokio runtime. Never returns if there is no inotify instance.
    ///
    /// # Errors
    /// The instance can't be read any more: pass the error to [`Watch::fail`] and drop this half.
    pub async fn next(&mut self) -> Result<Vec<Happened>, SysError> {
        match &mut self.0 {
            Some(events) => events.next().await,
            None => pending().await,
        }
    }
}

/// Makes an inotify instance.
type Open = fn() -> Result<(Inotify, Events), SysError>;

/// The watched directories, and the home that each belongs to.
#[derive(Debug)]
pub struct Watch {
    open: Open,
    /// Absent if the kernel gave none, or after an error.
    inotify: Option<Inotify>,
    /// The directories and homes by the numbers that events name them by.
    directories: HashMap<i32, (PathBuf, String)>,
    /// The directories that are watched.
    covered: HashSet<PathBuf>,
    /// The directories that exist and that inotify refused, and their homes. They are tried again with every `cover`.
    refused: HashMap<PathBuf, String>,
    /// Whether directories that were watched by an instance before are not covered again yet.
    is_stale: bool,
    /// Whether the log says that there is no instance.
    is_warned: bool,
}

impl Watch {
    /// Makes a watch of homes on bpffs, which watches nothing yet. Without inotify it is blind.
    pub fn new() -> (Self, Happenings) {
        Self::with(Inotify::new)
    }

    /// Makes a watch of cgroups, which ignores that files in them are written.
    pub fn of_cgroups() -> (Self, Happenings) {
        Self::with(Inotify::of_names)
    }

    fn with(open: Open) -> (Self, Happenings) {
        let mut watch = Self {
            open,
            inotify: None,
            directories: HashMap::new(),
            covered: HashSet::new(),
            refused: HashMap::new(),
            is_stale: false,
            is_warned: false,
        };
        let happenings = watch.renew();
        // No instance before this one watched anything.
        watch.is_stale = false;
        (watch, happenings)
    }

    /// Makes the inotify instance anew. Until the next [`cover`](Self::cover) nothing is watched.
    pub fn renew(&mut self) -> Happenings {
        self.directories.clear();
        self.covered.clear();
        self.refused.clear();
        self.is_stale = true;
        match (self.open)() {
            Ok((inotify, events)) => {
                if self.is_warned {
                    tracing::info!("inotify works again");
                }
                self.is_warned = false;
                self.inotify = Some(inotify);
                Happenings(Some(events))
            }
            Err(error) => {
                self.fail(&error);
                Happenings(None)
            }
        }
    }

    /// Ends the inotify instance, whose [`Happenings`] returned an error.
    pub fn fail(&mut self, error: &SysError) {
        if !self.is_warned {
            tracing::warn!(%error, "inotify does not work: only periodic sweeps find what others change");
        }
        self.is_warned = true;
        self.inotify = None;
    }

    /// Returns whether there is no inotify instance, so that the watch is to be renewed.
    pub const fn is_broken(&self) -> bool {
        self.inotify.is_none()
    }

    /// Returns whether something can happen unseen in a directory that was to be covered.
    pub fn is_blind(&self) -> bool {
        self.is_broken() || self.is_stale || !self.refused.is_empty()
    }

    /// Watches the directories of some homes; those that do not exist are ignored. Returns whether any is newly
    /// watched: something may have happened in it before. Directories that were refused are tried again, unless they
    /// belong to one of these homes and are not among its directories any more.
    pub fn cover(&mut self, directories: impl IntoIterator<Item = (PathBuf, String)>) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut is_new = false;
        let directories: Vec<(PathBuf, String)> = directories.into_iter().collect();
        let before = mem::take(&mut self.refused);
        let others = before.iter().filter(|(_, home)| !directories.iter().any(|(_, given)| given == *home));
        let others = others.map(|(directory, home)| (directory.clone(), home.clone())).collect::<Vec<_>>();
        for (directory, home) in others.into_iter().chain(directories) {
            if self.covered.contains(&directory) {
                continue;
            }
            match inotify.add(&directory) {
                Ok(number) => {
                    is_new = true;
                    self.covered.insert(directory.clone());
                    self.directories.insert(number, (directory, home));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    if !before.contains_key(&directory) {
                        tracing::warn!(%error, "only periodic sweeps find what others change in this directory");
                    }
                    self.refused.insert(directory, home);
                }
            }
        }
        self.is_stale = false;
        is_new
    }

    /// Tells which homes events are about. A directory that is gone is covered again once it is given to
    /// [`cover`](Self::cover); if the kernel dropped events, all directories are.
    pub fn changed(&mut self, happened: impl IntoIterator<Item = Happened>) -> Change {
        let (mut homes, mut is_lost) = (BTreeSet::new(), false);
        for one in happened {
            match one {
                Happened::Lost => is_lost = true,
                Happened::Within(number) => homes.extend(self.directories.get(&number).map(|(_, home)| home.clone())),
                Happened::Gone(number) => {
                    if let Some((directory, home)) = self.directories.remove(&number) {
                        self.covered.remove(&directory);
                        homes.insert(home);
                    }
                }
            }
        }
        if is_lost {
            // A directory may be gone, and another in its place, without an event.
            self.covered.clear();
            return Change::Anything;
        }
        Change::Homes(homes)
    }
}
