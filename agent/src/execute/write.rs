//! Notes and pins as they are written: over what is there, in one step, or again where someone removed them.

use std::{os::fd::AsFd as _, path::Path};

use super::Executor;
use crate::{
    failure::Failure,
    held::LinkKey,
    kept::{Kept, KeptProgram},
    kernel::{Fd, SysError},
    layout::{self, Origin},
};

impl Executor<'_> {
    /// Writes a note over what is there, and gives that.
    pub(super) fn note(&self, path: &Path, text: &str) -> Result<Option<String>, SysError> {
        match self.dir.make_note(path, text) {
            Err(error) if error.is_there() => {
                let replaced = self.dir.read_note(path)?;
                self.dir.replace(path, &layout::staging(), |at| self.dir.make_note(at, text))?;
                Ok(replaced)
            }
            made => made.map(|()| None),
        }
    }

    /// Pins over what is there, and gives that. Makes the directory where it is not there (any more).
    pub(super) fn pin(&self, fd: &Fd, path: &Path) -> Result<Option<Fd>, SysError> {
        match self.dir.pin(path, fd.as_fd()) {
            Err(error) if error.is_not_found() => {
                path.parent().map_or(Ok(false), |parent| self.dir.make_dir(parent))?;
                self.dir.pin(path, fd.as_fd()).map(|()| None)
            }
            Err(error) if error.is_there() => {
                let replaced = self.dir.get(path)?;
                self.pin_over(fd, path)?;
                Ok(Some(replaced))
            }
            pinned => pinned.map(|()| None),
        }
    }

    /// Pins over what is there.
    pub(super) fn pin_over(&self, fd: &Fd, path: &Path) -> Result<(), SysError> {
        self.dir.replace(path, &layout::staging(), |at| self.dir.pin(at, fd.as_fd()))
    }

    pub(super) fn repin_program(&self, function: &str, kept: &Kept) -> Result<(), Failure> {
        let kept = kept.programs.get(function).ok_or_else(|| not_kept("program", function))?;
        self.pin_kept(function, kept)
    }

    /// Pins the program that ran before the one on trial over that one; its links follow.
    pub(super) fn restore(&self, function: &str, kept: &Kept) -> Result<(), Failure> {
        let previous = kept.previous.as_ref().and_then(|previous| previous.programs.get(function));
        self.pin_kept(function, previous.ok_or_else(|| not_kept("program", function))?)
    }

    fn pin_kept(&self, function: &str, program: &KeptProgram) -> Result<(), Failure> {
        let KeptProgram { fd, id, load_key } = program;
        if let Some(load_key) = load_key {
            let origin = Origin { load_key: load_key.clone(), program_id: *id };
            self.note(&layout::origin(function), &origin.note())?;
        }
        Ok(self.pin(fd, &layout::program(function)).map(drop)?)
    }

    pub(super) fn repin_map(&self, pin: &str, kept: &Kept) -> Result<(), Failure> {
        let fd = kept.maps.get(pin).ok_or_else(|| not_kept("map", pin))?;
        Ok(self.pin(fd, &layout::map(pin)).map(drop)?)
    }

    pub(super) fn repin_link(&self, key: &LinkKey, kept: &Kept) -> Result<(), Failure> {
        let kept = kept.links.get(key).ok_or_else(|| not_kept("link", &key.place))?;
        if let Some(path) = &kept.path {
            self.note(&layout::cgroup(&key.place), path)?;
        }
        Ok(self.pin(&kept.fd, &layout::link(&key.function, &key.place)).map(drop)?)
    }
}

fn not_kept(what: &str, name: &str) -> Failure {
    Failure::internal(format!("{what} {name} was to be pinned again, and nobody holds it"))
}
