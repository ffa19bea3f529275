//! `Watch`: tells which homes on bpffs something happened in, so that a pin which someone removes is missed at once. Does
//! IO: inotify. What it does not see, a sweep does.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::pending,
    path::PathBuf,
};

use crate::kernel::{
    SysError,
    inotify::{Happened, Inotify},
};

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stirred {
    /// In these homes.
    Homes(BTreeSet<String>),
    /// Anywhere.
    Anything,
}

/// The watched directories.
#[derive(Debug, Default)]
pub struct Watch {
    inotify: Option<Inotify>,
    homes: HashMap<i32, (PathBuf, String)>,
    covered: HashSet<PathBuf>,
    blind: bool,
}

impl Watch {
    /// Watches nothing yet. Where there is no inotify to be had, it never will, and says so once.
    pub fn new() -> Self {
        let said = |error: &SysError| tracing::warn!(%error, "no inotify: drift is found by sweeps alone");
        let inotify = Inotify::new().inspect_err(said).ok();
        Self { blind: inotify.is_none(), inotify, ..Self::default() }
    }

    /// Whether something may happen unseen.
    pub const fn is_blind(&self) -> bool {
        self.blind
    }

    /// Watches directories of homes, each once.
    pub fn cover(&mut self, directories: impl IntoIterator<Item = (PathBuf, String)>) {
        let Some(inotify) = &self.inotify else { return };
        for (directory, home) in directories {
            if self.covered.contains(&directory) {
                continue;
            }
            match inotify.add(&directory) {
                Ok(number) => {
                    self.covered.insert(directory.clone());
                    self.homes.insert(number, (directory, home));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    self.blind = true;
                    tracing::warn!(%error, "drift there is found by sweeps alone");
                }
            }
        }
    }

    /// Waits until something happens.
    pub async fn stirred(&mut self) -> Stirred {
        let Some(inotify) = &self.inotify else { return pending().await };
        loop {
            let Ok(happened) = inotify.happened().await else { return pending().await };
            let mut homes = BTreeSet::new();
            for one in happened {
                match one {
                    Happened::Lost => return Stirred::Anything,
                    Happened::Within(number) => homes.extend(self.homes.get(&number).map(|(_, home)| home.clone())),
                    Happened::Gone(number) => {
                        if let Some((directory, home)) = self.homes.remove(&number) {
                            self.covered.remove(&directory);
                            homes.insert(home);
                        }
                    }
                }
            }
            if !homes.is_empty() {
                return Stirred::Homes(homes);
            }
        }
    }
}
