//! The agent's own descriptors, as /proc shows them.

use std::fs;

use super::{Call as _, SysError};

/// Descriptors that are looked at, at most.
const MAX_DESCRIPTORS: usize = 65_536;

/// Counts the descriptors that the agent has of a map.
pub fn of_map(id: u32) -> Result<u32, SysError> {
    const LIST: &str = "/proc/self/fdinfo";
    let line = format!("map_id:\t{id}");
    let mut count = 0;
    for entry in fs::read_dir(LIST).call(|| format!("read of {LIST}"))?.take(MAX_DESCRIPTORS) {
        let path = entry.call(|| format!("read of {LIST}"))?.path();
        // One that was closed meanwhile is gone.
        let Ok(text) = fs::read_to_string(path) else { continue };
        // Programs have no such line, and a link to a map has the map's too.
        let is_map = text.lines().any(|line| line.starts_with("map_type:"));
        count += u32::from(is_map && text.lines().any(|one| one == line));
    }
    Ok(count)
}
