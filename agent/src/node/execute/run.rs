//! Takes the steps of a plan, and decides what a failure means.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    attach_map::detach_program,
    execution::{Executed, Execution},
    executor::Executor,
    progress::{Progress, Undo},
};
use crate::{
    model::{
        kernel::Cgroup,
        observed::{AttachSite, LinkKey},
    },
    node::{failure::Failure, handles::Handles, layout},
    plan::Step,
};

impl Executor<'_> {
    /// Executes the steps. Returns the result, and the descriptors of what was created and pinned.
    pub fn execute(&self, handles: &mut Handles) -> Result<(Executed, Handles), Failure> {
        let mut progress = Progress::new(handles);
        let steps = self.execution.steps;
        // The last steps of a plan only remove. When they begin, everything desired is in effect, and it stays even if
        // they fail.
        let removals = steps.iter().rposition(|step| !removes(step)).map_or(0, |last| last + 1);
        let (steps, removals) = steps.split_at(removals);
        let done = steps.iter().try_for_each(|step| self.confined_step(step, &mut progress));
        if let Err(failure) = done.and_then(|()| self.check_attached(&mut progress)) {
            self.undo(progress);
            return Err(failure);
        }
        let replaced = self.detach_replaced(&mut progress);
        let removed = replaced.and_then(|()| removals.iter().try_for_each(|step| self.step(step, &mut progress)));
        if let Err(failure) = removed {
            tracing::warn!(%failure, "could not remove everything that is no longer desired");
            progress.executed.left = Some(Failure { partial: true, ..failure });
        }
        Ok((progress.executed, progress.pinned))
    }

    /// Executes a step. A failure at a pod's cgroup is recorded and undone at that cgroup, and is none of the step's.
    fn confined_step(&self, step: &Step, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let pod = self.pod_cgroup(step);
        if pod.is_some_and(|cgroup| progress.executed.refused.contains_key(&cgroup.path)) {
            return Ok(());
        }
        let Err(failure) = self.step(step, progress) else { return Ok(()) };
        match pod {
            Some(cgroup) if self.is_gone(cgroup) => self.undo_at(cgroup, progress),
            Some(cgroup) => {
                tracing::warn!(?step, %failure, "step refused: undoing this run's changes at the cgroup");
                self.undo_at(cgroup, progress);
                progress.executed.refused.insert(cgroup.path.clone(), failure);
            }
            None => {
                tracing::warn!(?step, %failure, "step refused: undoing this run's changes");
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Fails if a new revision could be attached nowhere: it then replaces no other one, and its load is undone.
    fn check_attached(&self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let Execution { steps, .. } = self.execution;
        let is_new_revision = steps.iter().any(|step| matches!(step, Step::SetRevision(Some(_))));
        let stays = |key: &LinkKey| !steps.iter().any(|step| matches!(step, Step::Detach(other) if other == key));
        let loads = !progress.loaded.programs.is_empty();
        let is_attached = progress.attached > 0 || !loads && progress.handles.links.keys().any(stays);
        if is_attached || !(loads || is_new_revision) {
            return Ok(());
        }
        progress.executed.refused.pop_first().map_or(Ok(()), |(_, failure)| Err(failure))
    }

    /// Detaches what was replaced, now that nothing will be undone any more.
    fn detach_replaced(&self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        for (key, link) in progress.replaced_links.drain(..) {
            self.detach_fd(&key, &link, progress.handles)?;
        }
        Ok(progress.replaced_on_maps.drain(..).try_for_each(|(program, map)| detach_program(&program, &map))?)
    }

    /// The cgroup that a step attaches to, if it is a pod's.
    fn pod_cgroup<'s>(&self, step: &'s Step) -> Option<&'s Cgroup> {
        let (function, cgroup) = match step {
            Step::Attach { function, site: AttachSite::Cgroup(cgroup), .. } => (function, cgroup),
            Step::Move { key, cgroup, .. } => (&key.function, cgroup),
            _ => return None,
        };
        let desired = self.execution.desired?.functions.get(function)?;
        desired.paths.get(&cgroup.path)?.as_ref().map(|_| cgroup)
    }

    fn is_gone(&self, cgroup: &Cgroup) -> bool {
        let now = self.home.root.cgroup(&cgroup.path);
        now.map_or_else(|error| error.is_not_found(), |now| now.id != cgroup.id)
    }

    fn step(&self, step: &Step, progress: &mut Progress<'_>) -> Result<(), Failure> {
        tracing::debug!(home = %self.home.paths.directory().display(), ?step);
        match step {
            Step::RemoveStray => Ok(self.home.dir.remove(&layout::staging())?),
            Step::Claim { uid } => self.claim(uid, progress),
            Step::Load { reuse, shared } => self.load(reuse, shared, progress),
            Step::ForgetLoad(function) => Ok(self.remove_note(layout::origin(function), &mut progress.undo)?),
            Step::KeepPod { pod, path } => {
                Ok(self.set_note(layout::kept_pod(pod), path, &mut progress.undo).map(drop)?)
            }
            Step::ForgetPod(pod) => Ok(self.forget_pod(pod, progress)?),
            Step::Retain(pin) => Ok(self.set_note(layout::retention(pin), "Retain", &mut progress.undo).map(drop)?),
            Step::Release(pin) => Ok(self.remove_note(layout::retention(pin), &mut progress.undo)?),
            Step::ForgetEntries(pin) => Ok(self.forget_entries(pin, progress.handles)?),
            Step::PinMap(pin) => self.pin_map(pin, progress),
            Step::ShareMap { name, from } => self.share_map(name, from, progress),
            Step::BorrowMap { pin, from } => self.borrow_map(pin, from, progress),
            Step::SetForceDetach(force) => self.set_force_detach(*force, progress),
            Step::NoteLossy(pin) => Ok(self.note_lossy(pin)?),
            Step::TakeSocketsOut(pin) => Ok(self.take_sockets_out(pin, progress.handles)?),
            Step::KeepForSockets { pin, fate } => Ok(self.keep_for_sockets(pin, *fate, progress)?),
            Step::PinProgram(function) => self.pin_program(function, progress),
            Step::Attach { function, site, before } => self.attach(function, site, before, progress),
            Step::Move { key, cgroup, before } => self.move_link(key, cgroup, before, progress),
            Step::Update(key) => self.update(key, progress),
            Step::SetRevision(Some(revision)) => self.set_revision(revision, progress),
            Step::SetRevision(None) => Ok(self.forget_revision(progress.handles)?),
            Step::SetTrial(trial) => self.set_trial(trial, progress),
            Step::Restore(function) => self.restore(function, progress.handles),
            Step::RepinProgram(function) => self.repin_program(function, progress.handles),
            Step::RepinMap(pin) => self.repin_map(pin, progress.handles),
            Step::RepinLink(key) => self.repin_link(key, progress.handles),
            Step::SwitchOn => Ok(self.switch_on(progress.handles)?),
            Step::SwitchOff => Ok(self.switch_off(progress.handles)?),
            Step::Detach(key) => Ok(self.detach(key, progress.handles)?),
            Step::UnpinProgram(function) => Ok(self.unpin_program(function, progress.handles)?),
            Step::UnpinMap(pin) => Ok(self.unpin_map(pin, progress.handles)?),
            Step::Leave => Ok(self.leave()?),
        }
    }

    /// Makes the home's directories, and notes whose home it is.
    fn claim(&self, uid: &str, progress: &mut Progress<'_>) -> Result<(), Failure> {
        if self.is_new {
            progress.undo.push(Undo::Leave);
        }
        for dir in [layout::meta(), layout::maps(), layout::programs(), layout::links()] {
            self.home.dir.make_dir(&dir)?;
        }
        self.note(&layout::uid(), uid)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.note(&layout::claimed(), &now.as_micros().to_string())?;
        Ok(())
    }
}

/// Returns whether a step only removes what is no longer desired, or ends a trial.
const fn removes(step: &Step) -> bool {
    match step {
        Step::Detach(_) | Step::ForgetPod(_) | Step::UnpinProgram(_) | Step::UnpinMap(_) => true,
        Step::ForgetEntries(_) | Step::TakeSocketsOut(_) | Step::KeepForSockets { .. } | Step::SwitchOff => true,
        Step::SetTrial(trial) => trial.state.has_passed(),
        _ => false,
    }
}
