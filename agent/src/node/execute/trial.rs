//! Notes the revision in effect and its trial, and keeps what ran before while a trial is open.

use std::{collections::BTreeMap, mem};

use super::{executor::Executor, progress::Progress};
use crate::{
    kernel::SysError,
    model::trial::Trial,
    node::{
        failure::Failure,
        handles::{Handles, PredecessorHandles},
        layout,
    },
};

impl Executor<'_> {
    /// Notes the revision that is now in effect. While it is on trial, the agent keeps what ran before.
    pub(super) fn set_revision(&self, revision: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let former = self.set_note(layout::revision(), revision, &mut progress.undo)?;
        let Progress { handles, loaded, replaced_programs, predecessor_links, created_links, .. } = progress;
        if let (Some(links), Some(_)) = (predecessor_links.take(), &former) {
            handles.previous = Some(PredecessorHandles { revision: former, programs: BTreeMap::new(), links });
        }
        if let Some(previous) = &mut handles.previous {
            previous.record_change(mem::take(replaced_programs), &loaded.programs, created_links);
        }
        Ok(())
    }

    /// Notes that no revision is in effect, and none on trial.
    pub(super) fn forget_revision(&self, handles: &mut Handles) -> Result<(), SysError> {
        handles.previous = None;
        self.home.dir.remove(&layout::trial())?;
        self.home.dir.remove(&layout::revision())
    }

    /// Notes a trial. The agent can go back only to a revision that has passed its own trial, or had none: if one trial
    /// follows another, that is what ran before the first.
    pub(super) fn set_trial(&self, trial: &Trial, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let former = self.set_note(layout::trial(), &trial.note(), &mut progress.undo)?;
        let former = former.as_deref().and_then(Trial::parse);
        let was_open = former.as_ref().is_some_and(|former| former.state.is_open());
        let has_passed = match former {
            None => true,
            Some(former) if former.state.has_passed() => true,
            Some(former) => !was_open && self.home.dir.read_note(&layout::revision())? != Some(former.revision),
        };
        let begins = trial.state.is_open() && has_passed;
        progress.predecessor_links = begins.then(|| progress.handles.links.keys().cloned().collect());
        if !(was_open && trial.state.is_open()) {
            progress.handles.previous = None;
        }
        Ok(())
    }
}
