//! Reads and writes the entries of a map, in batches where the kernel has them for its type, and singly elsewhere.
//!
//! The kernel has batches of hashes and arrays since 5.6, and those of per-CPU arrays and tries came later. Keys are
//! compared by walking the map: a look-up in a trie finds the longest prefix that matches, not an equal one.
//!
//! A hash uses the memory of a replaced entry again for the next one, at once (`alloc_htab_elem` in
//! kernel/bpf/hashtab.c). A program that was interrupted within a look-up of the former would find the latter in its
//! place. So the writer waits until all look-ups that may hold a replaced entry have ended, before it replaces another;
//! membarrier(2) waits for that (`synchronize_rcu`), some ten milliseconds. For long lists that would take too long.
//!
//! Nothing helps against the kernel's own gap: it adds the new entry in front of the bucket before it removes the old
//! one (`htab_map_update_elem`), so that a look-up within that bucket can miss both, if it has another key too.
//!
//! A look-up in a trie visits prefix after prefix (`trie_lookup_elem` in kernel/bpf/lpm_trie.c). One that is
//! interrupted on its way may find neither the old prefix that it has passed, nor a new one that was written above it
//! meanwhile. So the writer waits in the same way before prefixes are deleted, and again before those within them are.
//!
//! A walk of a map that programs change can see a key twice, or begin anew behind one that was deleted
//! (`htab_map_get_next_key`, `trie_get_next_key`). So keys are counted once, and the steps are bounded.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::OnceLock,
};

use rustix::thread::MembarrierCommand;
use sockeye_ebpf::{
    kinds::map_type::{F_NO_PREALLOC, LPM_TRIE},
    values::settings::clear_host_bits,
};

use super::{
    Call as _, ENOTSUPP, SysError,
    bpf::{self, Batch, MapAttr, More, PROBE_NAME},
    info,
};
use crate::model::entries::{EntryChanges, EntryShape, EntryWrite, LiveEntries, MapForm};

/// The elements of one batch.
const BATCH: usize = 4096;
/// After each of so many replaced entries of a hash the writer waits for the look-ups of programs. It does not if there
/// are more.
const AWAITED: usize = 16;

/// The entries of an opened map.
pub struct MapEntries<'a> {
    fd: BorrowedFd<'a>,
    shape: EntryShape,
    /// False once the kernel has refused a batch.
    batches: bool,
}

impl<'a> MapEntries<'a> {
    /// Returns the entries of a map of this shape. Fails if the map has another one: the kernel reads and writes as
    /// many bytes as its own keys and values have.
    pub fn new(fd: BorrowedFd<'a>, shape: EntryShape) -> Result<Self, SysError> {
        let map = info::map(fd)?;
        let is_same = (map.key_size as usize, map.value_size as usize) == (shape.key_size, shape.value_size)
            && MapForm::of(map.map_type) == Some(shape.form);
        if is_same {
            return Ok(Self { fd, shape, batches: true });
        }
        let found =
            io::Error::new(io::ErrorKind::InvalidInput, "the map has another type, or keys or values of another size");
        Err(found).call(|| "reading of a map's entries")
    }

    /// Returns the same entries, to be read and written singly: for measurements, as on a kernel without batches.
    #[must_use]
    pub const fn singly(self) -> Self {
        Self { batches: false, ..self }
    }

    /// Reads the values of the listed keys, and counts all entries.
    pub fn read<'k>(&mut self, listed: impl IntoIterator<Item = &'k Vec<u8>>) -> Result<LiveEntries, SysError> {
        let listed: HashSet<&[u8]> = listed.into_iter().map(Vec::as_slice).collect();
        if self.shape.form == MapForm::Array {
            return self.read_keys(&listed);
        }
        if !self.batches {
            return self.walk(&listed);
        }
        match self.read_batches(&listed) {
            Err(error) if lacks_batches(&error) => {
                self.batches = false;
                self.walk(&listed)
            }
            read => read.call(|| "BPF_MAP_LOOKUP_BATCH"),
        }
    }

    /// Reads the values of an array's keys.
    fn read_keys(&self, listed: &HashSet<&[u8]>) -> Result<LiveEntries, SysError> {
        let mut live = LiveEntries { values: HashMap::new(), count: self.shape.max_entries };
        for key in listed {
            if let Some(value) = self.look_up(key)? {
                live.values.insert(key.to_vec(), value);
            }
        }
        Ok(live)
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Vec<u8>>, SysError> {
        let mut value = vec![0; self.shape.value_bytes()];
        let found = bpf::map_lookup(self.fd, key, &mut value).call(|| "BPF_MAP_LOOKUP_ELEM")?;
        Ok(found.then_some(value))
    }

    fn read_batches(&self, listed: &HashSet<&[u8]>) -> io::Result<LiveEntries> {
        let (key_size, value_size) = (self.shape.key_size, self.shape.value_bytes());
        let mut all = Collected::new(&self.shape, listed, true);
        let mut room = BATCH;
        let (mut keys, mut values) = (vec![0; room * key_size], vec![0; room * value_size]);
        let (mut position, mut is_first) = (vec![0; key_size.max(4)], true);
        loop {
            let count = u32::try_from(room).unwrap_or(u32::MAX);
            let into = Batch { keys: &mut keys, values: &mut values, count };
            let (read, more) = match bpf::map_lookup_batch(self.fd, &mut position, is_first, into) {
                // A bucket of the hash has more entries than the batch.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 64 * BATCH => {
                    room *= 2;
                    keys.resize(room * key_size, 0);
                    values.resize(room * value_size, 0);
                    continue;
                }
                read => read?,
            };
            let elements = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size.max(1)));
            for (key, value) in elements.take(read as usize) {
                all.add(key, || Ok(value.to_vec()))?;
            }
            is_first = false;
            if more == More::None {
                return Ok(all.into_live());
            }
        }
    }

    /// Reads the entries one by one.
    fn walk(&self, listed: &HashSet<&[u8]>) -> Result<LiveEntries, SysError> {
        let mut all = Collected::new(&self.shape, listed, false);
        let (mut key, mut next) = (vec![0; self.shape.key_size], vec![0; self.shape.key_size]);
        let mut is_first = true;
        while bpf::map_next_key(self.fd, (!is_first).then_some(&key), &mut next).call(|| "BPF_MAP_GET_NEXT_KEY")? {
            let mut value = vec![0; self.shape.value_bytes()];
            // A key that is there is the longest that matches itself, also in a trie.
            let look_up = || match bpf::map_lookup(self.fd, &next, &mut value)? {
                true => Ok(value),
                false => Err(io::ErrorKind::NotFound.into()),
            };
            match all.add(&next, look_up) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                added => added.call(|| "walk of a map")?,
            }
            std::mem::swap(&mut key, &mut next);
            is_first = false;
        }
        Ok(all.into_live())
    }

    /// Makes changes in their order.
    pub fn write(&mut self, changes: &EntryChanges) -> Result<(), SysError> {
        let is_hash = self.shape.form == MapForm::Hash;
        let awaits = is_hash && changes.writes.iter().filter(|write| write.replaces).count() <= AWAITED;
        let mut run: Vec<&EntryWrite> = Vec::new();
        for write in &changes.writes {
            if write.replaces && awaits {
                self.write_one(write)?;
                await_look_ups();
            } else if write.named.is_none() && self.batches {
                run.push(write);
                if run.len() == BATCH {
                    self.write_run(&mut run)?;
                }
            } else {
                self.write_run(&mut run)?;
                self.write_one(write)?;
            }
        }
        self.write_run(&mut run)?;
        for keys in changes.delete_steps(self.shape.form) {
            if self.shape.form == MapForm::Trie {
                await_look_ups();
            }
            keys.chunks(BATCH).try_for_each(|keys| self.delete(keys))?;
        }
        if self.shape.form != MapForm::Array {
            await_look_ups();
        }
        Ok(())
    }

    /// Writes whole values in one batch.
    fn write_run(&mut self, run: &mut Vec<&EntryWrite>) -> Result<(), SysError> {
        if run.len() > 1 && self.batches {
            let mut keys: Vec<u8> = run.iter().flat_map(|write| write.key.iter().copied()).collect();
            let mut values = Vec::with_capacity(run.len() * self.shape.value_bytes());
            run.iter().for_each(|write| values.extend_from_slice(&self.shape.all_slots(&write.value)));
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            match bpf::map_update_batch(self.fd, Batch { keys: &mut keys, values: &mut values, count }) {
                Err(error) if lacks_batches(&error) => self.batches = false,
                written => {
                    run.clear();
                    return written.call(|| "BPF_MAP_UPDATE_BATCH");
                }
            }
        }
        run.drain(..).try_for_each(|write| self.write_one(write))
    }

    fn write_one(&self, EntryWrite { key, value, named, .. }: &EntryWrite) -> Result<(), SysError> {
        let live = if named.is_some() { self.look_up(key)? } else { None };
        let raw = match (live, named) {
            // Read just now: what programs count meanwhile in the other fields is lost in these microseconds only.
            (Some(mut live), Some(named)) => {
                for slot in live.chunks_mut(self.shape.stride().max(1)) {
                    let bytes = slot.iter_mut().zip(value).zip(named);
                    bytes.for_each(|((is, be), named)| *is = *is & !named | be & named);
                }
                live
            }
            _ => self.shape.all_slots(value).into_owned(),
        };
        bpf::map_update(self.fd, Some(key), &raw)
    }

    fn delete(&mut self, keys: &[&[u8]]) -> Result<(), SysError> {
        if keys.len() > 1 && self.batches {
            let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            let deleted = bpf::map_delete_batch(self.fd, Batch { keys: &mut keys.concat(), values: &mut [], count });
            match deleted {
                // One of them is gone already, and the others are left: they are deleted singly.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if lacks_batches(&error) => self.batches = false,
                deleted => return deleted.call(|| "BPF_MAP_DELETE_BATCH"),
            }
        }
        keys.iter().try_for_each(|key| bpf::map_delete(self.fd, key).map(drop).call(|| "BPF_MAP_DELETE_ELEM"))
    }
}

/// Waits until every program that runs now has left its look-ups. A kernel that does not offer that, as with isolated
/// processors (`nohz_full`), is not waited for.
fn await_look_ups() {
    if let Err(error) = rustix::thread::membarrier(MembarrierCommand::Global) {
        tracing::debug!(%error, "membarrier");
    }
}

/// Returns whether the kernel has no batches for a map's type, or, before 5.6, none at all.
pub(super) fn lacks_batches(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

/// What a walk has collected.
struct Collected<'a> {
    live: LiveEntries,
    listed: &'a HashSet<&'a [u8]>,
    is_trie: bool,
    /// The keys so far, where the walk can come to one twice. Batches of a hash are buckets, and return each once.
    seen: Option<HashSet<Vec<u8>>>,
    count: usize,
    steps_left: usize,
}

impl<'a> Collected<'a> {
    fn new(shape: &EntryShape, listed: &'a HashSet<&'a [u8]>, in_batches: bool) -> Self {
        let counts_twice = shape.form == MapForm::Trie || !in_batches;
        Self {
            live: LiveEntries::default(),
            listed,
            is_trie: shape.form == MapForm::Trie,
            seen: counts_twice.then(HashSet::new),
            count: 0,
            steps_left: shape.max_entries.saturating_mul(2).saturating_add(BATCH),
        }
    }

    /// Records a key that the walk has come to. `value` is called if the key is listed.
    fn add(&mut self, key: &[u8], value: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        self.steps_left = self
            .steps_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "the map changes faster than it can be read"))?;
        let mut key = key.to_vec();
        if self.is_trie {
            clear_host_bits(&mut key);
        }
        if self.listed.contains(&*key) {
            self.live.values.insert(key.clone(), value()?);
        }
        self.count += usize::from(self.seen.as_mut().is_none_or(|seen| seen.insert(key)));
        Ok(())
    }

    fn into_live(self) -> LiveEntries {
        LiveEntries { count: self.count, ..self.live }
    }
}

/// Returns the number of entries that a trie needs free for one of its own keys to be written again: kernels before
/// 6.13, and their stable releases until December 2024, refuse that to a full trie (`trie_update_elem`).
pub fn trie_spare() -> usize {
    static SPARE: OnceLock<usize> = OnceLock::new();
    *SPARE.get_or_init(|| {
        let attr = MapAttr {
            name: PROBE_NAME,
            map_type: LPM_TRIE,
            key_size: 8,
            value_size: 4,
            max_entries: 1,
            flags: F_NO_PREALLOC,
            ..MapAttr::default()
        };
        let write = |fd: BorrowedFd<'_>| bpf::map_update(fd, Some(&[0; 8]), &[0; 4]);
        let replaced = bpf::map_create(&attr).and_then(|fd| write(fd.as_fd()).and_then(|()| write(fd.as_fd())));
        usize::from(replaced.is_err())
    })
}
