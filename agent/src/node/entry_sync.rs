//! Keeps the entries of one BpfProgram's maps in sync with its spec, or compares them with it.
//!
//! The keys that the spec listed before are in a map of the agent's own, pinned under `_meta`: the record. It names at
//! least every listed key that may be in the map, after each call that the agent makes: it is written before entries
//! are written, and again once others are deleted. So an agent that was killed in between deletes what is to be
//! deleted, and nothing else.

use std::os::fd::AsFd as _;

use sockeye_crds::{Reason, names::printable};

use super::{
    failure::{Failure, TRIES_AGAIN},
    handles::Handles,
    layout::{self, Home},
    open_home::OpenHome,
    record::{decode, encode},
};
use crate::{
    kernel::{
        Fd, SysError,
        cgroup::Root,
        info,
        map_entries::{MapEntries, trie_spare},
        record,
    },
    model::{
        entries::{AppliedEntries, EntryChanges, EntryCounts, EntryShape, ListedMap, ListedMaps},
        kernel::Machine,
        map_shape::MapShape,
    },
    plan::entry_changes::{Comparison, applied_after, applied_before},
};

/// The kernel's name of a record.
pub(super) const RECORD: &str = "sockeye_record";
/// Changes that others undo while they are made are made again, this many times in all.
const ROUNDS: usize = 3;

/// What to do about entries that differ from the spec's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntriesTask {
    /// Nothing: refuse what would not fit, before anything else is done.
    Check,
    /// Write and delete those that are kept in sync.
    Apply,
}

/// The outcome for one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntriesOutcome {
    /// The map's name in the ELF.
    pub map: String,
    /// The counts before anything was written.
    pub before: EntryCounts,
    /// The counts afterwards, read back from the kernel.
    pub now: EntryCounts,
    /// A key whose entry was to be written or deleted, in hexadecimal.
    pub example: Option<String>,
}

/// The maps of one home whose entries are compared.
pub(super) struct EntrySync<'a> {
    home: OpenHome<'a>,
    machine: Machine,
    handles: &'a mut Handles,
}

impl<'a> EntrySync<'a> {
    /// Opens a home.
    pub(super) fn open(
        home: &'a Home,
        root: &'a Root,
        machine: Machine,
        handles: &'a mut Handles,
    ) -> Result<Self, SysError> {
        Ok(Self { home: OpenHome::open(home, root)?, machine, handles })
    }

    /// Does the task for each map. A map that is not pinned yet is left out.
    pub(super) fn sync(&mut self, maps: &ListedMaps, task: EntriesTask) -> Result<Vec<EntriesOutcome>, Failure> {
        let mut outcomes = Vec::new();
        for (name, listed) in maps {
            let fd = match self.home.dir.get(&layout::map(&listed.pin)) {
                Err(error) if error.is_not_found() => continue,
                fd => fd?,
            };
            outcomes.extend(self.sync_map(name, listed, &fd, task)?);
        }
        Ok(outcomes)
    }

    fn sync_map(
        &mut self,
        name: &str,
        listed: &ListedMap,
        fd: &Fd,
        task: EntriesTask,
    ) -> Result<Option<EntriesOutcome>, Failure> {
        let map = info::map(fd.as_fd())?;
        let Some(shape) = EntryShape::of(&MapShape::of(&map), &self.machine) else { return Ok(None) };
        let fits = |size: usize, entry: &[u8]| entry.len() == size;
        if !listed.entries.iter().all(|entry| fits(shape.key_size, &entry.key) && fits(shape.value_size, &entry.value))
        {
            // Another shape than the object's: the load refuses it or makes the map anew.
            return Ok(None);
        }
        let mut entries = MapEntries::new(fd.as_fd(), shape)?;
        let (mut outcome, mut rounds) = (None::<EntriesOutcome>, 0);
        loop {
            let applied = if listed.sync { self.applied(&listed.pin, map.id)? } else { AppliedEntries::new() };
            let keys = listed.entries.iter().map(|entry| &entry.key).chain(applied.keys());
            let live = entries.read(keys)?;
            let comparison = Comparison { shape, listed, applied: &applied, live: &live };
            let (now, changes) = (comparison.counts(), comparison.changes());
            let outcome = outcome.get_or_insert_with(|| EntriesOutcome {
                map: name.to_owned(),
                before: now,
                now,
                example: example(&changes),
            });
            outcome.now = now;
            if !listed.sync {
                break;
            }
            if !changes.is_empty() {
                if map.frozen {
                    return Err(frozen(name));
                }
                comparison.check_room(name, &changes, trie_spare())?;
            }
            if task == EntriesTask::Check {
                break;
            }
            if changes.is_empty() {
                self.remember(&listed.pin, map.id, &applied, &applied_after(listed))?;
                break;
            }
            if rounds == ROUNDS {
                break;
            }
            self.remember(&listed.pin, map.id, &applied, &applied_before(listed, &applied))?;
            entries.write(&changes).map_err(|error| not_written(name, &error))?;
            rounds += 1;
        }
        Ok(outcome)
    }

    /// Returns the keys that the spec listed before. The record of another map, which was pinned here before, says
    /// nothing about this one.
    fn applied(&mut self, pin: &str, map_id: u32) -> Result<AppliedEntries, SysError> {
        let pinned = match self.home.dir.get(&layout::record(pin)) {
            Ok(fd) => Some(fd),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        // Somebody may have removed the pin.
        let Some(fd) = pinned.or_else(|| self.handles.records.get(pin).cloned()) else {
            return Ok(AppliedEntries::new());
        };
        let bytes = record::read(fd.as_fd())?;
        self.handles.records.insert(pin.to_owned(), fd);
        Ok(decode(&bytes, map_id))
    }

    /// Remembers the keys that the spec lists, if they are others than before or the record's pin is gone.
    fn remember(
        &mut self,
        pin: &str,
        map_id: u32,
        before: &AppliedEntries,
        now: &AppliedEntries,
    ) -> Result<(), SysError> {
        let path = layout::record(pin);
        if before == now && (now.is_empty() || self.home.dir.contains(&path)?) {
            return Ok(());
        }
        let (fd, dir) = (record::create(RECORD, &encode(map_id, now))?, &self.home.dir);
        match dir.pin(&path, fd.as_fd()) {
            Err(error) if error.already_exists() => {
                dir.replace(&path, &layout::staging(), |staging| dir.pin(staging, fd.as_fd()))?;
            }
            pinned => pinned?,
        }
        self.handles.records.insert(pin.to_owned(), fd);
        Ok(())
    }
}

fn example(changes: &EntryChanges) -> Option<String> {
    let written = changes.writes.first().map(|write| &write.key);
    written.or_else(|| changes.deletes.first()).map(|key| sockeye_crds::names::hex(key.get(..32).unwrap_or(key)))
}

fn frozen(name: &str) -> Failure {
    let message = format!(
        "map {name}: it is frozen, so that no process can write it any more: leave entriesPolicy out, or have the map \
         made anew (remove its pin)"
    );
    Failure::new(Reason::EntriesNotInStep, message)
}

fn not_written(name: &str, error: &SysError) -> Failure {
    let full = match error.errno() {
        Some(libc::E2BIG | libc::ENOSPC) => {
            ": the map is full, programs or others added entries meanwhile: raise its maxEntries"
        }
        Some(libc::EPERM | libc::EACCES) => {
            ": the map was frozen, or the agent lacks a right: have the map made anew (remove its pin), or install the \
             chart unchanged"
        }
        _ => TRIES_AGAIN,
    };
    Failure::new(Reason::EntriesNotInStep, format!("map {}: {error}{full}", printable(name)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn a_map_that_takes_no_entries_is_named_with_the_remedy() {
        let answer = |errno| {
            let call = "BPF_MAP_UPDATE_ELEM".into();
            not_written("allowed", &SysError { call, source: io::Error::from_raw_os_error(errno) })
        };
        for (failure, remedy) in [
            (frozen("allowed"), "leave entriesPolicy out"),
            (answer(libc::E2BIG), "raise its maxEntries"),
            (answer(libc::EPERM), "remove its pin"),
            (answer(libc::EIO), "dmesg"),
        ] {
            assert_eq!(failure.reason, Reason::EntriesNotInStep, "{failure}");
            assert!(failure.message.contains("allowed") && failure.message.contains(remedy), "{failure}");
            provoked(failure.reason, &failure.message);
        }
    }
}
