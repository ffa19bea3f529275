//! `MapPages`: reads the entries of any map, a page at a time. It writes nothing.
//!
//! A page of a hash is some of its buckets (`BPF_MAP_LOOKUP_BATCH`): the kernel numbers them, so that a walk goes on
//! whatever keys come and go meanwhile (`__htab_map_lookup_and_delete_batch` in kernel/bpf/hashtab.c). In other maps
//! the walk goes from key to key, and begins anew behind one that was deleted (`trie_get_next_key`,
//! `sock_hash_get_next_key`): nothing but the first key tells that. So a walk remembers the last few keys, and goes on
//! behind the last one that is still there.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use sockeye_ebpf::kinds::map_type::{LPM_TRIE, SOCKMAP};

use super::{
    ENOTSUPP, Fd, SysError,
    bpf::{self, Batch, More},
    info,
    map_entries::lacks_batches,
    possible_cpus,
    sockets::Looker,
};
use crate::model::{
    kernel::MapInfo,
    map_access::MapAccess,
    page::{Cursor, Page, RawEntry},
    per_cpu::{PerCpuLayout, is_per_cpu},
};

/// The most bytes of the keys and values of a page, unless one entry has more.
const MAX_PAGE: usize = 256 << 10;
/// The most bytes of an entry.
const MAX_ENTRY: usize = 1 << 20;
/// The most bytes of a bucket.
const MAX_BUCKET: usize = 8 << 20;
/// The most slots that are looked at for a page: most slots of an array of maps or programs may be empty.
const MAX_SLOTS: u32 = 16 << 10;

/// Why entries can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Maps of this type, or of this size, can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// The cursor is none of this map's.
    #[error("it is no cursor of this map")]
    Cursor,
    /// The kernel refuses it.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The entries of an opened map.
pub struct MapPages {
    fd: Fd,
    info: MapInfo,
    access: MapAccess,
    /// The bytes of a value as the kernel gives it.
    value_bytes: usize,
}

impl MapPages {
    /// Returns the entries of a map; fails if they can't be read.
    pub fn new(fd: Fd) -> Result<Self, PageError> {
        let info = info::map(fd.as_fd())?;
        let access = MapAccess::of(info.map_type);
        if let MapAccess::Unreadable(why) = access {
            return Err(PageError::Unreadable(why.to_owned()));
        }
        let value_bytes = value_bytes(&info)?;
        let pages = Self { fd, info, access, value_bytes };
        let entry = pages.entry_bytes();
        if entry > MAX_ENTRY {
            let what = format!("an entry has {entry} bytes, and at most {MAX_ENTRY} are read");
            return Err(PageError::Unreadable(what));
        }
        Ok(pages)
    }

    /// Returns the kernel's information on the map.
    pub const fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Reads a page of at most so many entries.
    pub fn page(&self, from: Option<&Cursor>, limit: u32) -> Result<Page, PageError> {
        let most = MAX_PAGE / self.entry_bytes().max(1);
        let limit = most.clamp(1, limit.max(1) as usize);
        match (self.access, from) {
            (MapAccess::Slots, None) => self.slots(0, limit),
            (MapAccess::Slots, Some(Cursor::Slot(index))) => self.slots(*index, limit),
            (MapAccess::Peek, None) => self.peek(),
            (MapAccess::Buckets, None) => match self.buckets(0, 0, limit) {
                // For instance hashes of maps have no batches before Linux 5.17.
                Err(PageError::Sys(error)) if error.call == BATCH && lacks_batches(&error.source) => {
                    self.walk(&[], limit)
                }
                page => page,
            },
            (MapAccess::Buckets, Some(Cursor::Bucket { position, skip })) => self.buckets(*position, *skip, limit),
            (MapAccess::Keys, None) => self.walk(&[], limit),
            (MapAccess::Keys | MapAccess::Buckets, Some(Cursor::After(keys))) => self.walk(keys, limit),
            _ => Err(PageError::Cursor),
        }
    }

    /// Reads the value of a key; `None` if the map has no such key. A trie's key is a prefix that it has, and not one
    /// that lies within another.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PageError> {
        if self.access == MapAccess::Peek {
            return Err(PageError::Unreadable("it has no keys".to_owned()));
        }
        if key.len() != self.info.key_size as usize {
            let (is, must) = (key.len(), self.info.key_size);
            return Err(PageError::Unreadable(format!("the key has {is} bytes, and the map's keys have {must}")));
        }
        if self.info.map_type == LPM_TRIE && !self.has_prefix(key)? {
            return Ok(None);
        }
        self.look_up(key)
    }

    /// Returns whether a trie has that very prefix: what follows it is then not the first one.
    fn has_prefix(&self, key: &[u8]) -> Result<bool, PageError> {
        let Some(first) = self.next(None)? else { return Ok(false) };
        Ok(first == key || self.next(Some(key))? != Some(first))
    }

    fn entry_bytes(&self) -> usize {
        self.info.key_size as usize + self.value_bytes
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PageError> {
        let mut value = vec![0; self.value_bytes];
        match bpf::map_lookup(self.fd(), key, &mut value) {
            Ok(true) => Ok(Some(value)),
            Ok(false) => Ok(None),
            Err(error) => Err(self.refused(error, "BPF_MAP_LOOKUP_ELEM")),
        }
    }

    fn next(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, PageError> {
        let mut next = vec![0; self.info.key_size as usize];
        match bpf::map_next_key(self.fd(), key, &mut next) {
            Ok(true) => Ok(Some(next)),
            Ok(false) => Ok(None),
            Err(error) => Err(self.refused(error, "BPF_MAP_GET_NEXT_KEY")),
        }
    }

    /// Says why the kernel does not read.
    fn refused(&self, error: io::Error, call: &str) -> PageError {
        let why = match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | ENOTSUPP) => "the kernel does not read maps of this type".to_owned(),
            // `sock_map_lookup_sys` in net/core/sock_map.c.
            Some(libc::ENOSPC) => format!(
                "the kernel tells sockets by their cookies, where values have 8 bytes; this map's have {}",
                self.info.value_size
            ),
            // `bpf_map_new_fd`: a map of BPF_F_WRONLY.
            Some(libc::EPERM) => "the map was made for writing only".to_owned(),
            _ => return PageError::Sys(SysError { call: call.to_owned(), source: error }),
        };
        PageError::Unreadable(why)
    }

    fn slots(&self, from: u32, limit: usize) -> Result<Page, PageError> {
        let mut page = Page::default();
        // The kernel tells cookies only as values of 8 bytes (`sock_map_lookup_sys` in net/core/sock_map.c).
        let hides = self.info.map_type == SOCKMAP && self.info.value_size != 8;
        let looker = hides.then(|| Looker::new(self.fd())).transpose()?;
        let end = self.info.max_entries.min(from.saturating_add(MAX_SLOTS));
        let mut index = from;
        while index < end && page.entries.len() < limit {
            let key = index.to_ne_bytes().to_vec();
            let value = match &looker {
                Some(looker) => looker.looks_up(&key)?.then_some(None),
                None => self.look_up(&key)?.map(Some),
            };
            page.entries.extend(value.map(|value| RawEntry { key, value }));
            index += 1;
        }
        page.next = (index < self.info.max_entries).then_some(Cursor::Slot(index));
        Ok(page)
    }

    fn peek(&self) -> Result<Page, PageError> {
        let value = self.look_up(&[])?;
        let entries = value.map(|value| RawEntry { key: Vec::new(), value: Some(value) }).into_iter().collect();
        Ok(Page { entries, ..Page::default() })
    }

    fn buckets(&self, from: u32, skip: u32, limit: usize) -> Result<Page, PageError> {
        let (key_size, value_size) = (self.info.key_size as usize, self.value_bytes);
        let mut room = limit;
        let (keys, values, position, more) = loop {
            let (mut keys, mut values) = (vec![0; room * key_size], vec![0; room * value_size]);
            let mut position = vec![0; key_size.max(4)];
            position.iter_mut().zip(from.to_ne_bytes()).for_each(|(to, byte)| *to = byte);
            let count = u32::try_from(room).unwrap_or(u32::MAX);
            let into = Batch { keys: &mut keys, values: &mut values, count };
            match bpf::map_lookup_batch(self.fd(), &mut position, false, into) {
                Ok((read, more)) => {
                    keys.truncate(read as usize * key_size);
                    break (keys, values, position, more);
                }
                // A bucket has more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room * self.entry_bytes() < MAX_BUCKET => {
                    room *= 2;
                }
                Err(error) => return Err(SysError { call: BATCH.to_owned(), source: error }.into()),
            }
        };
        let entries = keys.chunks_exact(key_size.max(1)).zip(values.chunks_exact(value_size.max(1)));
        let mut entries = entries.skip(skip as usize);
        let entry = |(key, value): (&[u8], &[u8])| RawEntry { key: key.to_vec(), value: Some(value.to_vec()) };
        let page: Vec<RawEntry> = entries.by_ref().take(limit).map(entry).collect();
        let position = position.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let next = match (entries.next(), more) {
            (Some(_), _) => Some(Cursor::Bucket { position: from, skip: skip.saturating_add(limit as u32) }),
            (None, More::Maybe) => Some(Cursor::Bucket { position, skip: 0 }),
            (None, More::None) => None,
        };
        Ok(Page { entries: page, next, restarted: false })
    }

    /// Walks from key to key, behind the last of these keys that the map still has.
    fn walk(&self, after: &[Vec<u8>], limit: usize) -> Result<Page, PageError> {
        let Some(first) = self.next(None)? else { return Ok(Page::default()) };
        let mut seen = after.to_vec();
        let mut page = Page::default();
        let mut key = match seen.is_empty() {
            true => Some(first.clone()),
            false => self.behind(&seen, &first, &mut page.restarted)?,
        };
        // Keys that are deleted before they are looked up make no entries.
        for _ in 0..limit.saturating_mul(2) {
            if page.entries.len() == limit {
                break;
            }
            let Some(here) = key.take() else { break };
            let value = self.value(&here)?;
            if value != Found::Deleted {
                page.entries.push(RawEntry { key: here.clone(), value: value.bytes() });
            }
            seen.push(here);
            key = self.behind(&seen, &first, &mut page.restarted)?;
        }
        page.next = key.is_some().then(|| Cursor::after(&seen));
        Ok(page)
    }

    /// Returns the key behind the last of these keys that the map still has; or, if it has none, the first one.
    fn behind(&self, seen: &[Vec<u8>], first: &[u8], restarted: &mut bool) -> Result<Option<Vec<u8>>, PageError> {
        for key in seen.iter().rev().take(8) {
            match self.next(Some(key))? {
                Some(next) if next == first => {}
                next => return Ok(next),
            }
        }
        *restarted = true;
        Ok(Some(first.to_vec()))
    }

    /// Returns the value of a key that the walk came to.
    fn value(&self, key: &[u8]) -> Result<Found, PageError> {
        match self.look_up(key) {
            Ok(value) => Ok(value.map_or(Found::Deleted, Found::Value)),
            // The key of a socket says something without its cookie.
            Err(PageError::Unreadable(_)) if self.info.holds_sockets() => Ok(Found::Hidden),
            Err(error) => Err(error),
        }
    }
}

/// The value of a key that a walk came to.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The key was deleted.
    Deleted,
    /// The kernel does not tell the value.
    Hidden,
    Value(Vec<u8>),
}

impl Found {
    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Value(bytes) => Some(bytes),
            Self::Deleted | Self::Hidden => None,
        }
    }
}

/// The name of a call.
const BATCH: &str = "BPF_MAP_LOOKUP_BATCH";

/// Returns the number of bytes that the kernel writes for a value.
fn value_bytes(info: &MapInfo) -> Result<usize, SysError> {
    let value_size = info.value_size as usize;
    if !is_per_cpu(info.map_type) {
        return Ok(value_size);
    }
    Ok(PerCpuLayout { value_size, cpus: possible_cpus()? }.bytes())
}
