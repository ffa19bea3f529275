//! Undoes steps, in reverse. A failure to undo is logged; the next observation finds what is left.

use std::{mem, os::fd::AsFd as _};

use super::{
    executor::Executor,
    progress::{Progress, Undo},
};
use crate::{
    kernel::bpf,
    model::kernel::Cgroup,
    node::{failure::Failure, handles::Handles, layout},
};

impl Executor<'_> {
    /// Undoes everything that a run has done.
    pub(super) fn undo(&self, progress: Progress<'_>) {
        let Progress { handles, undo, .. } = progress;
        self.undo_all(undo, handles);
    }

    /// Undoes everything that a run has attached to one cgroup.
    pub(super) fn undo_at(&self, cgroup: &Cgroup, progress: &mut Progress<'_>) {
        let place = cgroup.id.to_string();
        let (at_cgroup, elsewhere): (Vec<Undo>, Vec<Undo>) = mem::take(&mut progress.undo)
            .into_iter()
            .partition(|undo| matches!(undo, Undo::Detach(key) | Undo::RepinLink(key, _) if key.place == place));
        progress.undo = elsewhere;
        progress.attached -= at_cgroup.len();
        progress.pinned.links.retain(|key, _| key.place != place);
        progress.replaced_links.retain(|(key, _)| key.place != place);
        self.undo_all(at_cgroup, progress.handles);
    }

    fn undo_all(&self, undo: Vec<Undo>, handles: &mut Handles) {
        for undo in undo.into_iter().rev() {
            if let Err(error) = self.undo_one(&undo, handles) {
                tracing::error!(%error, "could not undo a step");
            }
        }
    }

    fn undo_one(&self, undo: &Undo, handles: &mut Handles) -> Result<(), Failure> {
        match undo {
            Undo::Leave => self.leave()?,
            Undo::UnpinMap(pin) => self.unpin_map(pin, handles)?,
            Undo::RepinMap(pin, fd) => self.pin_over(fd, &layout::map(pin))?,
            Undo::RestoreRecord(pin, Some(fd)) => self.pin_over(fd, &layout::record(pin))?,
            Undo::RestoreRecord(pin, None) => self.home.dir.remove(&layout::record(pin))?,
            Undo::UnpinProgram(function) => self.unpin_program(function, handles)?,
            Undo::RepinProgram(function, fd) => self.pin_over(fd, &layout::program(function))?,
            Undo::Detach(key) => self.detach(key, handles)?,
            Undo::RepinLink(key, fd) => {
                let path = layout::link(&key.function, &key.place);
                // Detached, not only replaced: the former one led to another map, or was not attached.
                self.detach_fd(key, &self.home.dir.get(&path)?, handles)?;
                self.pin_over(fd, &path)?;
            }
            Undo::ReplaceBack(key, fd) => {
                let pin = key.map().unwrap_or_default();
                self.replace_on_map(key, pin, fd, handles)?;
            }
            Undo::UpdateBack(key, fd) => {
                let link = self.home.dir.get(&layout::link(&key.function, &key.place))?;
                let program = self.home.dir.get(&layout::program(&key.function))?;
                bpf::link_update(link.as_fd(), fd.as_fd(), Some(program.as_fd()))?;
            }
            Undo::RestoreNote(path, Some(note)) => drop(self.note(path, note)?),
            Undo::Unkeep(path) => self.home.dir.remove(path)?,
            Undo::RestoreNote(path, None) => self.home.dir.remove(path)?,
        }
        Ok(())
    }
}
