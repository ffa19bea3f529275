//! The changes that bring a map's entries in sync with a spec: a three-way comparison of what the spec listed before,
//! what it lists, and what the map holds. Pure.
//!
//! - Only listed keys, and of their values only named bits, are compared and written. A key that the spec listed before
//!   and lists no longer is deleted. Keys that others added stay. Bits that the spec named before and names no longer
//!   become zero, as they are in a new entry.
//! - While the changes are made one after the other, each look-up of a program finds what the old list says or what the
//!   new one does. In a hash or an array that holds in any order (but see `kernel/map_entries.rs`). In a trie it holds
//!   because prefixes are written from the longest to the shortest, and then deleted from the shortest to the longest:
//!   at any time, of the prefixes that match an address, the longest one is the old list's or the new one's.
//! - Entries are written before others are deleted, so the old and the new ones must fit together.
//!
//! `tests/entries.rs` checks all of this on a model of the kernel's maps.

use std::{borrow::Cow, collections::HashSet};

use sockeye_crds::Reason;
use sockeye_ebpf::values::settings::prefix_length;

use crate::model::{
    entries::{
        AppliedEntries, EntryChanges, EntryCounts, EntryShape, EntryWrite, ListedEntry, ListedMap, LiveEntries, MapForm,
    },
    refusal::Refusal,
};

/// A map's entries to compare.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The shape of the entries.
    pub shape: EntryShape,
    /// The entries that the spec lists.
    pub listed: &'a ListedMap,
    /// The keys that it listed before.
    pub applied: &'a AppliedEntries,
    /// The map's content.
    pub live: &'a LiveEntries,
}

impl Comparison<'_> {
    /// Returns the changes to make.
    pub fn changes(&self) -> EntryChanges {
        let mut changes = EntryChanges::default();
        for entry in &self.listed.entries {
            let live = self.live.values.get(&entry.key);
            let owned = self.owned(entry);
            if live.is_some_and(|live| self.has(live, &entry.value, &owned)) {
                continue;
            }
            let is_whole = live.is_none() || owned.iter().all(|byte| *byte == 0xff);
            let named = (!is_whole).then(|| owned.into_owned());
            changes.writes.push(EntryWrite {
                key: entry.key.clone(),
                value: entry.value.clone(),
                named,
                replaces: live.is_some(),
            });
        }
        for (key, named) in self.stale() {
            match self.shape.form {
                // No element of an array can be deleted: what the spec named of it becomes what a new array has.
                MapForm::Array => {
                    let value = vec![0; self.shape.value_size];
                    changes.writes.push(EntryWrite {
                        key: key.clone(),
                        value,
                        named: Some(named.clone()),
                        replaces: true,
                    });
                }
                MapForm::Hash | MapForm::Trie => changes.deletes.push(key.clone()),
            }
        }
        if self.shape.form == MapForm::Trie {
            changes.writes.sort_by_key(|write| std::cmp::Reverse(prefix_length(&write.key)));
            changes.deletes.sort_by_key(|key| prefix_length(key));
        }
        changes
    }

    /// Returns the counts for a status.
    pub fn counts(&self) -> EntryCounts {
        let is_in_place = |entry: &&ListedEntry| {
            let live = self.live.values.get(&entry.key);
            live.is_some_and(|live| self.has(live, &entry.value, &self.owned(entry)))
        };
        EntryCounts {
            sync: self.listed.sync,
            listed: self.listed.entries.len(),
            in_place: self.listed.entries.iter().filter(is_in_place).count(),
            stale: if self.listed.sync { self.stale().count() } else { 0 },
        }
    }

    /// Refuses changes for which the map has no room. `spare` is the number of entries that must stay free for an entry
    /// of a full map to be replaced: one for a trie before Linux 6.13, which then refuses even its own keys.
    pub fn check_room(&self, name: &str, changes: &EntryChanges, spare: usize) -> Result<(), Refusal> {
        if self.shape.form == MapForm::Array {
            return Ok(());
        }
        let new = changes.writes.iter().filter(|write| !write.replaces).count();
        let replaces = changes.writes.len() > new;
        let spare = if self.shape.form == MapForm::Trie && replaces { spare } else { 0 };
        let (needed, most) = (self.live.count + new + spare, self.shape.max_entries);
        if needed <= most || (new == 0 && spare == 0) {
            return Ok(());
        }
        let spare = if spare > 0 { ", and this kernel needs one more to replace an entry" } else { "" };
        let message = format!(
            "map {name}: it has {} entries, and {new} new ones are written before {} old ones are deleted{spare}: that \
             is more than its {most}. Nothing was written. Raise maxEntries (with onIncompatible: Recreate), or change \
             the list in smaller steps",
            self.live.count,
            changes.deletes.len()
        );
        Err(Refusal { reason: Reason::EntriesNotInStep, message })
    }

    /// Returns the bits of an entry's value that the spec names, or named before. The latter are zero in its value.
    fn owned<'e>(&self, entry: &'e ListedEntry) -> Cow<'e, [u8]> {
        match self.applied.get(&entry.key).filter(|before| **before != entry.named) {
            Some(before) => entry.named.iter().zip(before).map(|(now, before)| now | before).collect(),
            None => Cow::Borrowed(&entry.named),
        }
    }

    /// Returns whether all slots of a value have the named bits.
    fn has(&self, live: &[u8], value: &[u8], named: &[u8]) -> bool {
        let is_same = |slot: &[u8]| {
            slot.len() >= value.len()
                && slot.iter().zip(value).zip(named).all(|((is, be), named)| (is ^ be) & named == 0)
        };
        live.chunks(self.shape.stride().max(1)).all(is_same)
    }

    /// Returns the keys that the spec listed before and lists no longer and that the map still has, in an array with
    /// something in the bits that were named.
    fn stale(&self) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let listed: HashSet<&[u8]> = self.listed.entries.iter().map(|entry| entry.key.as_slice()).collect();
        let unlisted = self.applied.iter().filter(move |(key, _)| !listed.contains(key.as_slice()));
        unlisted.filter(|(key, named)| {
            let live = self.live.values.get(*key);
            live.is_some_and(|live| {
                self.shape.form != MapForm::Array || !self.has(live, &vec![0; self.shape.value_size], named)
            })
        })
    }
}

/// Returns the keys to remember before entries are written: those of both lists. An agent that is killed between two
/// writes then still knows which keys are the spec's.
pub fn applied_before(listed: &ListedMap, applied: &AppliedEntries) -> AppliedEntries {
    let mut all = applied.clone();
    for entry in &listed.entries {
        let named = all.entry(entry.key.clone()).or_insert_with(|| vec![0; entry.named.len()]);
        named.iter_mut().zip(&entry.named).for_each(|(named, more)| *named |= more);
    }
    all
}

/// Returns the keys to remember once all changes are made.
pub fn applied_after(listed: &ListedMap) -> AppliedEntries {
    listed.entries.iter().map(|entry| (entry.key.clone(), entry.named.clone())).collect()
}
