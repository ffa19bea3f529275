//! Writes notes and pins: new ones, ones that atomically replace others, and ones that somebody removed.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::{
    executor::Executor,
    progress::{Progress, Undo},
};
use crate::{
    kernel::{Fd, SysError},
    model::{kept_pod::KeptPod, observed::LinkKey},
    node::{
        failure::Failure,
        handles::{Handles, ProgramHandle},
        layout::{self, Origin},
    },
};

impl Executor<'_> {
    /// Writes a note, atomically over a former one. Returns the former text.
    pub(super) fn note(&self, path: &Path, text: &str) -> Result<Option<String>, SysError> {
        let dir = &self.home.dir;
        match dir.make_note(path, text) {
            Err(error) if error.already_exists() => {
                let former = dir.read_note(path)?;
                dir.replace(path, &layout::staging(), |staging| dir.make_note(staging, text))?;
                Ok(former)
            }
            made => made.map(|()| None),
        }
    }

    /// Writes a note that is undone with the rest. Returns the former text.
    pub(super) fn set_note(&self, path: PathBuf, text: &str, undo: &mut Vec<Undo>) -> Result<Option<String>, SysError> {
        let former = self.note(&path, text)?;
        undo.push(Undo::RestoreNote(path, former.clone()));
        Ok(former)
    }

    /// Removes a note, if there is one; it is restored if the rest is undone.
    pub(super) fn remove_note(&self, path: PathBuf, undo: &mut Vec<Undo>) -> Result<(), SysError> {
        if let Some(former) = self.home.dir.read_note(&path)? {
            self.home.dir.remove(&path)?;
            undo.push(Undo::RestoreNote(path, Some(former)));
        }
        Ok(())
    }

    /// Removes the note of a kept pod; it is noted again if the rest is undone.
    pub(super) fn forget_pod(&self, pod: &KeptPod, progress: &mut Progress<'_>) -> Result<(), SysError> {
        self.remove_note(layout::kept_pod(pod), &mut progress.undo)?;
        progress.handles.kept_pods.remove(pod);
        Ok(())
    }

    /// Pins an object, atomically over a former one, and creates a missing directory. Returns the former object.
    pub(super) fn pin(&self, fd: &Fd, path: &Path) -> Result<Option<Fd>, SysError> {
        let dir = &self.home.dir;
        match dir.pin(path, fd.as_fd()) {
            Err(error) if error.is_not_found() => {
                path.parent().map_or(Ok(false), |parent| dir.make_dir(parent))?;
                dir.pin(path, fd.as_fd()).map(|()| None)
            }
            Err(error) if error.already_exists() => {
                let former = dir.get(path)?;
                self.pin_over(fd, path)?;
                Ok(Some(former))
            }
            pinned => pinned.map(|()| None),
        }
    }

    /// Pins an object atomically over a former one.
    pub(super) fn pin_over(&self, fd: &Fd, path: &Path) -> Result<(), SysError> {
        let dir = &self.home.dir;
        dir.replace(path, &layout::staging(), |staging| dir.pin(staging, fd.as_fd()))
    }

    /// Pins a program again whose pin somebody removed.
    pub(super) fn repin_program(&self, function: &str, handles: &Handles) -> Result<(), Failure> {
        let program = handles.programs.get(function).ok_or_else(|| no_handle("program", function))?;
        self.pin_known_program(function, program)
    }

    /// Pins the program that ran before the one on trial over that one. Updates of the links follow.
    pub(super) fn restore(&self, function: &str, handles: &Handles) -> Result<(), Failure> {
        let former = handles.previous.as_ref().and_then(|previous| previous.programs.get(function));
        self.pin_known_program(function, former.ok_or_else(|| no_handle("program", function))?)
    }

    fn pin_known_program(&self, function: &str, program: &ProgramHandle) -> Result<(), Failure> {
        let ProgramHandle { fd, id, load_key } = program;
        if let Some(load_key) = load_key {
            let origin = Origin { load_key: load_key.clone(), program_id: *id };
            self.note(&layout::origin(function), &origin.note())?;
        }
        Ok(self.pin(fd, &layout::program(function)).map(drop)?)
    }

    /// Pins a map again whose pin somebody removed.
    pub(super) fn repin_map(&self, pin: &str, handles: &Handles) -> Result<(), Failure> {
        let fd = handles.maps.get(pin).ok_or_else(|| no_handle("map", pin))?;
        Ok(self.pin(fd, &layout::map(pin)).map(drop)?)
    }

    /// Pins a link again whose pin somebody removed, and writes the note of its cgroup again.
    pub(super) fn repin_link(&self, key: &LinkKey, handles: &Handles) -> Result<(), Failure> {
        let link = handles.links.get(key).ok_or_else(|| no_handle("link", &key.place))?;
        if let Some(path) = &link.path {
            self.note(&layout::cgroup(&key.place), path)?;
        }
        Ok(self.pin(&link.fd, &layout::link(&key.function, &key.place)).map(drop)?)
    }
}

fn no_handle(kind: &str, name: &str) -> Failure {
    Failure::internal(format!("{kind} {name} was to be pinned again, and the agent has no descriptor of it"))
}
