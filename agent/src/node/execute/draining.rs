//! Notes on the sockets in maps, takes sockets out, and keeps maps for them.

use std::os::fd::AsFd as _;

use super::{
    executor::Executor,
    progress::{Progress, Undo},
    remove::existing,
};
use crate::{
    kernel::{Fd, SysError, info, sockets},
    model::{draining_map::SocketFate, switch::SWITCH},
    node::{
        draining,
        failure::Failure,
        handles::Handles,
        layout::{self, DrainingPin},
        switch::Switch,
    },
};

/// The longest name of a map in the name of its pin among the draining maps, which has 255 bytes at most.
const MAX_MAP_NAME: usize = 128;

impl Executor<'_> {
    /// Notes whether sockets are to be taken out of maps at once.
    pub(super) fn set_force_detach(&self, force: bool, progress: &mut Progress<'_>) -> Result<(), Failure> {
        match force {
            true => self.set_note(layout::force_detach(), "true", &mut progress.undo).map(drop)?,
            false => self.remove_note(layout::force_detach(), &mut progress.undo)?,
        }
        Ok(())
    }

    /// Notes, before a map is pinned, that sockets can leave it without loss.
    pub(super) fn note_lossless(&self, pin: &str, map: &Fd, progress: &mut Progress<'_>) -> Result<(), SysError> {
        let id = info::map_id(map.as_fd())?;
        self.set_note(layout::lossless(pin), &id.to_string(), &mut progress.undo).map(drop)
    }

    /// Removes that note, in the home of the map's owner too. It is not undone: what was attached meanwhile counts.
    pub(super) fn note_lossy(&self, pin: &str) -> Result<(), SysError> {
        for path in draining::notes(&self.home.dir, pin)? {
            self.home.dir.remove(&path)?;
        }
        Ok(())
    }

    /// Takes all sockets out of a map.
    pub(super) fn take_sockets_out(&self, pin: &str, handles: &Handles) -> Result<(), SysError> {
        match self.map(pin, handles)? {
            Some(map) => sockets::take_out(map.as_fd()),
            None => Ok(()),
        }
    }

    /// Pins a map where it stays for the sockets in it. A note of another fate is stale: a plan that was not finished
    /// left it.
    pub(super) fn keep_for_sockets(
        &self,
        pin: &str,
        fate: SocketFate,
        progress: &mut Progress<'_>,
    ) -> Result<(), SysError> {
        let Some(map) = self.map(pin, progress.handles)? else { return Ok(()) };
        let dir = &self.home.dir;
        let entry = DrainingPin {
            program: self.home.paths.program(),
            id: info::map_id(map.as_fd())?,
            // A borrowed map's pin name may be longer than there is room for.
            map: pin.chars().take(MAX_MAP_NAME).collect(),
            fate,
        };
        for other in [SocketFate::TakeOut, SocketFate::Keep].into_iter().filter(|other| *other != fate) {
            dir.remove(&layout::beside_home(&DrainingPin { fate: other, ..entry.clone() }.path()))?;
        }
        let path = layout::beside_home(&entry.path());
        dir.make_dir(&layout::beside_home(&layout::draining()))?;
        match dir.pin(&path, map.as_fd()) {
            Err(error) if error.already_exists() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                progress.undo.push(Undo::Unkeep(path));
                Ok(())
            }
        }
    }

    /// Tells programs that sockets may still run that nothing is attached any more.
    pub(super) fn switch_off(&self, handles: &Handles) -> Result<(), SysError> {
        let map = self.map(SWITCH, handles)?;
        let switch = map.as_ref().map(|map| Switch::read(&self.home.dir, map)).transpose()?;
        switch.flatten().map_or(Ok(()), |switch| switch.turn_off())
    }

    /// Tells programs what the object and the spec say.
    pub(super) fn switch_on(&self, handles: &Handles) -> Result<(), SysError> {
        let map = self.map(SWITCH, handles)?;
        let switch = map.as_ref().map(|map| Switch::read(&self.home.dir, map)).transpose()?;
        switch.flatten().map_or(Ok(()), |switch| switch.turn_on())
    }

    fn map(&self, pin: &str, handles: &Handles) -> Result<Option<Fd>, SysError> {
        let pinned = existing(self.home.dir.get(&layout::map(pin)))?;
        Ok(pinned.or_else(|| handles.maps.get(pin).map(Fd::clone)))
    }
}
