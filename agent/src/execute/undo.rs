//! Undo: the inverse of what was done, in reverse. What can't be undone is said, and found by the next observation.

use std::{mem, os::fd::AsFd as _, path::PathBuf};

use super::{Executor, Progress};
use crate::{
    failure::Failure,
    held::LinkKey,
    kept::Kept,
    kernel::{Fd, bpf, cgroup::Cgroup},
    layout,
};

/// The inverse of a step that was done.
pub(super) enum Undo {
    Leave,
    UnpinMap(String),
    RepinMap(String, Fd),
    UnpinProgram(String),
    RepinProgram(String, Fd),
    Detach(LinkKey),
    RepinLink(LinkKey, Fd),
    UpdateBack(LinkKey, Fd),
    ReplaceBack(LinkKey, Fd),
    RestoreNote(PathBuf, Option<String>),
}

impl Executor<'_> {
    /// Undoes all of it.
    pub(super) fn undo(&self, progress: Progress<'_>) {
        let Progress { kept, undo, .. } = progress;
        self.undo_all(undo, kept);
    }

    /// Undoes what was attached at one cgroup.
    pub(super) fn undo_at(&self, cgroup: &Cgroup, progress: &mut Progress<'_>) {
        let place = cgroup.id.to_string();
        let (there, elsewhere): (Vec<Undo>, Vec<Undo>) = mem::take(&mut progress.undo)
            .into_iter()
            .partition(|undo| matches!(undo, Undo::Detach(key) | Undo::RepinLink(key, _) if key.place == place));
        progress.undo = elsewhere;
        progress.attached -= there.len();
        progress.made.links.retain(|key, _| key.place != place);
        progress.replaced_links.retain(|(key, _)| key.place != place);
        self.undo_all(there, progress.kept);
    }

    fn undo_all(&self, undo: Vec<Undo>, kept: &mut Kept) {
        for undo in undo.into_iter().rev() {
            if let Err(error) = self.undo_one(&undo, kept) {
                tracing::error!(%error, "could not undo a step");
            }
        }
    }

    fn undo_one(&self, undo: &Undo, kept: &mut Kept) -> Result<(), Failure> {
        match undo {
            Undo::Leave => self.leave()?,
            Undo::UnpinMap(pin) => self.unpin_map(pin, kept)?,
            Undo::RepinMap(pin, fd) => self.pin_over(fd, &layout::map(pin))?,
            Undo::UnpinProgram(function) => self.unpin_program(function, kept)?,
            Undo::RepinProgram(function, fd) => self.pin_over(fd, &layout::program(function))?,
            Undo::Detach(key) => self.detach(key, kept)?,
            // What it led to before is not the map that is pinned now, or was not attached.
            Undo::RepinLink(key, fd) => {
                let path = layout::link(&key.function, &key.place);
                self.let_go(key, &self.dir.get(&path)?, kept)?;
                self.pin_over(fd, &path)?;
            }
            Undo::ReplaceBack(key, fd) => {
                let pin = key.map().unwrap_or_default();
                self.replace_on_map(key, pin, fd, kept)?;
            }
            Undo::UpdateBack(key, fd) => {
                let link = self.dir.get(&layout::link(&key.function, &key.place))?;
                let program = self.dir.get(&layout::program(&key.function))?;
                bpf::link_update(link.as_fd(), fd.as_fd(), Some(program.as_fd()))?;
            }
            Undo::RestoreNote(path, Some(note)) => drop(self.note(path, note)?),
            Undo::RestoreNote(path, None) => self.dir.remove(path)?,
        }
        Ok(())
    }
}
