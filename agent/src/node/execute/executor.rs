//! `Executor`: executes one plan on one home. The other files here add its methods.

use super::execution::Execution;
use crate::{
    kernel::{SysError, bpffs::Dir, cgroup::Root},
    node::{directory, layout::Home, open_home::OpenHome},
    plan::Step,
};

/// Executes one plan.
pub struct Executor<'a> {
    pub(super) home: OpenHome<'a>,
    /// Whether the home was created for this plan.
    pub(super) is_new: bool,
    pub(super) execution: &'a Execution<'a>,
}

impl<'a> Executor<'a> {
    /// Opens a BpfProgram's home for a plan. Creates a missing home if the plan claims it; the note of the layout's
    /// version comes first.
    pub fn new(home: &'a Home, root: &'a Root, execution: &'a Execution<'a>) -> Result<Self, SysError> {
        let claims = execution.steps.iter().any(|step| matches!(step, Step::Claim { .. }));
        if !claims {
            return Ok(Self { home: OpenHome::open(home, root)?, is_new: false, execution });
        }
        let bpffs = Dir::at(home.bpffs())?;
        directory::mark(&bpffs)?;
        let name = home.in_bpffs();
        let is_new = bpffs.make_dir(name)?;
        Ok(Self { home: OpenHome { paths: home, dir: bpffs.dir(name)?, root }, is_new, execution })
    }

    /// The opened home.
    pub const fn home(&self) -> &OpenHome<'a> {
        &self.home
    }
}
