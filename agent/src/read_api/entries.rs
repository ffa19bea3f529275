//! The entries of a map. Does IO: it reads the map.

use std::sync::Arc;

use sockeye_ebpf::kinds::map_type;
use sockeye_read_api::{
    Failure, FailureReason,
    map::{Entries, Entry},
    route::EntriesQuery,
};

use super::{
    codec::{Codec, Decoded},
    failures,
};
use crate::{
    control::inspection::InspectedMap,
    kernel::pages::{MapPages, PageError},
    model::page::{Cursor, Page, RawEntry},
};

/// Reads a page of a map, or the entry of one key. `object` is what says what the bytes mean, or why it can't be had.
pub(super) fn entries(
    map: &InspectedMap,
    object: Result<Arc<[u8]>, String>,
    query: &EntriesQuery,
) -> Result<Entries, Failure> {
    let InspectedMap { name, info, fd, object: _ } = map;
    let map_type = map_type::name(info.map_type);
    let unread = |error| failures::page(error, name, &map_type);
    let fd = fd.clone().ok_or_else(|| unpinned(name))?;
    let pages = MapPages::new(fd).map_err(unread)?;
    let info = pages.info();
    let object = object.as_deref().map_err(Clone::clone);
    let codec = Codec::new(name, info, object);
    let page = match &query.key {
        Some(key) => one_entry(&pages, &codec, name, key, unread)?,
        None => {
            let from = query.after.as_deref().map(|after| cursor(after, info.key_size)).transpose().map_err(unread)?;
            pages.page(from.as_ref(), query.limit).map_err(unread)?
        }
    };
    let entry = |raw: &RawEntry| {
        let Decoded { value, values } = codec.value(raw, query.cpus);
        Entry { key: codec.key(&raw.key), value, values }
    };
    Ok(Entries {
        map_id: info.id,
        map_type: map_type.into_owned(),
        entries: page.entries.iter().map(entry).collect(),
        next: page.next.map(|next| next.text()),
        restarted: page.restarted,
        undecoded: codec.undecoded(),
    })
}

fn cursor(after: &str, key_size: u32) -> Result<Cursor, PageError> {
    Cursor::parse(after, key_size as usize).ok_or(PageError::Cursor)
}

/// Reads the entry of one key as a page.
fn one_entry(
    pages: &MapPages,
    codec: &Codec<'_>,
    map: &str,
    key: &str,
    unread: impl Fn(PageError) -> Failure,
) -> Result<Page, Failure> {
    let invalid = |why| failures::failure(FailureReason::KeyInvalid, format!("key of map {map}: {why}"));
    let bytes = codec.encode_key(key).map_err(invalid)?;
    let absent = || failures::failure(FailureReason::EntryNotFound, format!("map {map} has no entry with key {key}"));
    let value = pages.get(&bytes).map_err(unread)?.ok_or_else(absent)?;
    Ok(Page { entries: vec![RawEntry { key: bytes, value: Some(value) }], ..Page::default() })
}

fn unpinned(map: &str) -> Failure {
    let message = format!(
        "map {map} is not pinned, so that only the programs that use it have a way to it: pin it by \
         spec.maps[].pinning: ByName"
    );
    failures::failure(FailureReason::NotReadable, message)
}
