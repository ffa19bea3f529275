//! The maps that are kept for the sockets in them, and the notes that say whether sockets can leave a map. Does IO.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::layout::{self, DrainingPin, Layout};
use crate::{
    kernel::{SysError, bpffs::Dir, info, sockets},
    model::{
        draining_map::{DrainingMap, SocketFate},
        map_shape::MapShape,
    },
};

/// So many BpfPrograms hand one map on to the next at most, which bounds a walk along them.
const MAX_OWNERS: usize = 16;

/// Looks at all maps that are kept for their sockets: takes sockets out where that is to be, unpins the maps in which
/// none is left, and returns the others. A map that can't be looked at is logged, and stays.
pub fn look(layout: &Layout) -> Result<Vec<DrainingMap>, SysError> {
    let dir = Dir::at(layout.directory())?;
    let mut found = Vec::new();
    if !dir.exists() {
        return Ok(found);
    }
    let names = dir.list(&layout::draining())?;
    for pin in names.iter().filter_map(|name| DrainingPin::parse(name)) {
        match look_at(&dir, &pin) {
            Ok(None) => {}
            Ok(Some((sockets, shape))) => {
                let DrainingPin { program, id, map, fate: _ } = &pin;
                let pin_path = layout.host_directory().join(pin.path()).display().to_string();
                let (program, name) = (program.clone(), map.clone());
                found.push(DrainingMap { program, name, id: *id, sockets, pin_path, shape });
            }
            Err(error) => tracing::warn!(program = pin.program, map = pin.map, %error, "a draining map can't be read"),
        }
    }
    if !names.is_empty() {
        dir.remove_dir_if_empty(&layout::draining())?;
    }
    Ok(found)
}

/// Looks at one such map; returns the number of sockets in it and its shape, and nothing once it is unpinned.
fn look_at(dir: &Dir, pin: &DrainingPin) -> Result<Option<(u32, MapShape)>, SysError> {
    let map = match dir.get(&pin.path()) {
        Err(error) if error.is_not_found() => return Ok(None),
        map => map?,
    };
    // A plan that pinned it here was undone, or its agent was killed before it unpinned it there.
    let home = dir.get(&Path::new(&pin.program).join(layout::map(&pin.map)));
    let is_at_home = home.is_ok_and(|home| info::map_id(home.as_fd()).is_ok_and(|id| id == pin.id));
    if !is_at_home {
        if pin.fate == SocketFate::TakeOut {
            sockets::take_out(map.as_fd())?;
        }
        let sockets = sockets::count(map.as_fd())?;
        if sockets > 0 {
            return Ok(Some((sockets, MapShape::of(&info::map(map.as_fd())?))));
        }
        tracing::info!(program = pin.program, map = pin.map, id = pin.id, "no socket is left in a draining map");
    }
    dir.remove(&pin.path())?;
    Ok(None)
}

/// Returns the notes that say whether sockets can leave a map, relative to a home: the one there, and those in the
/// homes of the BpfPrograms that it is from.
pub fn notes(home: &Dir, pin: &str) -> Result<Vec<PathBuf>, SysError> {
    let mut notes = vec![layout::lossless(pin)];
    let mut source = home.read_note(&layout::source(pin))?;
    while let Some(from) = source.as_deref().and_then(layout::parse_source).filter(|_| notes.len() < MAX_OWNERS) {
        let there = |note: PathBuf| layout::in_home_of(&from.program, &note);
        notes.push(there(layout::lossless(&from.name)));
        source = home.read_note(&there(layout::source(&from.name)))?;
    }
    Ok(notes)
}

/// Returns whether sockets can leave a map without loss: the note of its owner says so of this very map.
pub fn is_lossless(home: &Dir, pin: &str, id: u32) -> Result<bool, SysError> {
    let Some(owners) = notes(home, pin)?.pop() else { return Ok(false) };
    Ok(home.read_note(&owners)?.is_some_and(|noted| noted == id.to_string()))
}
