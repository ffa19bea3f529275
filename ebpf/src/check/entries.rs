//! `spec.maps[].entries`, `entriesFrom` and `entriesPolicy`.

use sockeye_crds::{
    MapInfo, ObjectInfo, Reason, Refusal, names,
    program::{EntriesSource, MapSpec},
};

use super::{
    bytecode::{check_digest_text, check_same_digest},
    rules::{invalid, refuse},
};
use crate::values::{list::Lists, settings::SYNCED};

/// The maximum size of all `entries` of a spec as JSON. The copy that `kubectl apply` keeps in an annotation, of which
/// all together have at most 256 KiB, has room for an inline object of 128 KiB beside it.
const MAX_INLINE_ENTRIES: usize = 64 << 10;

/// Checks the lists of entries against their digests.
pub(super) fn check_lists(maps: &[MapSpec], lists: &Lists) -> Result<(), Refusal> {
    for (i, map) in maps.iter().enumerate() {
        let Some(EntriesSource { config_map_ref }) = &map.entries_from else { continue };
        let field = format!("spec.maps[{i}].entriesFrom");
        if !map.entries.is_empty() {
            return Err(invalid(format!("{field}: entries are given too: put all entries into one of them")));
        }
        let field = format!("{field}.configMapRef");
        check_digest_text(&field, config_map_ref)?;
        let Some(bytes) = lists.get(&map.name) else {
            let message = format!("{field}: it has not been read; without a cluster only entries can be used");
            return Err(refuse(Reason::BytecodeUnavailable, message));
        };
        check_same_digest(&field, config_map_ref, &names::digest(bytes))?;
    }
    Ok(())
}

/// Checks that the lists in the spec itself fit where specs are kept.
pub(super) fn check_size(maps: &[MapSpec]) -> Result<(), Refusal> {
    let size = |map: &MapSpec| serde_json::to_vec(&map.entries).map_or(usize::MAX, |json| json.len());
    let listed = maps.iter().filter(|map| !map.entries.is_empty());
    let bytes = listed.map(size).fold(0, usize::saturating_add);
    if bytes <= MAX_INLINE_ENTRIES {
        return Ok(());
    }
    Err(invalid(format!(
        "spec.maps: all entries together have {bytes} bytes as JSON; they may have {MAX_INLINE_ENTRIES}: put the \
         longest list into a ConfigMap, and name it by entriesFrom"
    )))
}

/// Checks that a map's entries can be kept in sync, if they are to be.
pub(super) fn check_policy(field: &str, map: &MapSpec, object: &ObjectInfo) -> Result<(), Refusal> {
    let found = object.maps.iter().find(|found| found.name == map.name);
    let Some(found) = found.filter(|_| map.is_synced()) else { return Ok(()) };
    let MapInfo { name, map_type, .. } = found;
    let field = format!("{field}.entriesPolicy");
    let unsynced = |why: &str| {
        let message = format!("{field}: the entries of {name} can't be kept in step: {why}");
        Err(refuse(Reason::Unsupported, message))
    };
    if found.definition.is_data() {
        return unsynced("it is global data: set spec.globals instead");
    }
    if !map.is_pinned() {
        return unsynced("it has pinning: None, and the agent writes a map by its pin: leave it pinned");
    }
    if found.is_of_load() {
        return unsynced(&format!(
            "it is {} and made anew with every load: leave entriesPolicy out",
            found.of_load_because()
        ));
    }
    let why = match map_type.as_str() {
        kind if SYNCED.contains(&kind) => return Ok(()),
        "LruHash" | "LruPercpuHash" => "the kernel removes entries of it by itself",
        "Queue" | "Stack" | "BloomFilter" => "it has no keys",
        "Sockmap" | "Sockhash" | "ReuseportSockarray" | "Xskmap" => "it holds sockets",
        "ProgArray" => "it holds programs",
        "ArrayOfMaps" | "HashOfMaps" => "it holds maps",
        _ => "no values can be written for it",
    };
    let kinds = SYNCED.join(", ");
    unsynced(&format!("it is of type {map_type}: {why}; leave entriesPolicy out, or make it one of {kinds}"))
}
