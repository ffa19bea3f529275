//! `OpenHome`: a BpfProgram's home while the agent observes it or executes a plan for it.

use crate::{
    kernel::{SysError, bpffs::Dir, cgroup::Root},
    node::layout::Home,
};

/// A BpfProgram's home, opened, and the root below which the cgroups are that it is attached to.
///
/// [`Dir`] says why a home is open, and why not for long.
#[derive(Debug)]
pub struct OpenHome<'a> {
    /// The home's paths.
    pub paths: &'a Home,
    /// The opened directory.
    pub dir: Dir,
    /// The node's cgroup root.
    pub root: &'a Root,
}

impl<'a> OpenHome<'a> {
    /// Opens the home's directory, if it exists.
    pub fn open(paths: &'a Home, root: &'a Root) -> Result<Self, SysError> {
        Ok(Self { paths, dir: Dir::at(paths.directory())?, root })
    }
}
