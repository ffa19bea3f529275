//! Notes: what is to be known of a BpfProgram on a node beside what the kernel says.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{names::clip, program::MapRef};

use crate::{
    held::{Held, HeldMap},
    kernel::info::MapInfo,
    track::{self, Track},
};

/// All of them; `unpinned_ids` are the maps that its programs use and that are not pinned.
pub(super) fn notes(track: &Track, unpinned_ids: &BTreeSet<u32>, tracks: &BTreeMap<String, Track>) -> Vec<String> {
    let notes = unpinned_notes(&track.unpinned, unpinned_ids)
        .into_iter()
        .chain(map_notes(track))
        .chain(device_notes(&track.devices))
        .chain(order_notes(track))
        .chain(shared_notes(&track.held, tracks));
    notes.map(|note| clip(&note, 512)).take(16).collect()
}

/// What is to be known of maps that are not pinned.
fn unpinned_notes(unpinned: &BTreeMap<String, MapInfo>, used: &BTreeSet<u32>) -> Vec<String> {
    let gone = unpinned.iter().filter(|(_, info)| !used.contains(&info.id)).map(|(name, _)| {
        format!("map {name} is not pinned, and no program uses it: it went when the load was done, as maps do that nobody holds")
    });
    let known: BTreeSet<u32> = unpinned.values().map(|info| info.id).collect();
    let unknown: Vec<String> = used.difference(&known).map(u32::to_string).collect();
    let unknown = (!unknown.is_empty()).then(|| {
        format!(
            "maps {} are used and not pinned here: they live as long as the program, and only their IDs are known since the \
             agent was started anew",
            unknown.join(", ")
        )
    });
    gone.chain(unknown).collect()
}

/// What is to be known of device programs: runtimes have theirs too.
fn device_notes(devices: &BTreeMap<String, (String, u32)>) -> Vec<String> {
    let note = |(path, (at, id)): (&String, &(String, u32))| {
        format!(
            "others have device programs at or below cgroup {path}, as container runtimes do: program {id} at {at}; an access \
             needs the yes of each"
        )
    };
    devices.iter().map(note).collect()
}

/// What is to be known of others' maps.
fn shared_notes(held: &Held, tracks: &BTreeMap<String, Track>) -> Vec<String> {
    let is_left = |map: &&HeldMap| track::owned(tracks, map).is_none();
    let left =
        held.maps.iter().filter(|(_, map)| is_left(map)).filter_map(|(pin, map)| Some((pin, map.from.as_ref()?)));
    let note = |(pin, from): (&String, &MapRef)| {
        format!("map {pin} was {from}, which has it no longer: it is kept as it is until that one is there again")
    };
    left.map(note).collect()
}

/// What is to be known of a place among others.
fn order_notes(Track { wanted, moved, .. }: &Track) -> Vec<String> {
    let unordered = wanted.as_ref().is_some_and(|wanted| wanted.unordered).then(|| {
        "this kernel keeps no order among programs on a cgroup (Linux does from 6.17 on): they run in the order in which they \
         were attached, whatever their priority"
            .to_owned()
    });
    let moved = (*moved > 0).then(|| {
        format!(
            "its priority had {moved} of its links attached anew, elsewhere among others, since the agent started: each ran twice \
             for the moment that took"
        )
    });
    unordered.into_iter().chain(moved).collect()
}

/// What is to be known of programs that are attached to maps, or were.
fn map_notes(track: &Track) -> Vec<String> {
    let Track { held, wanted, .. } = track;
    let attaches = wanted.as_ref().is_some_and(|wanted| wanted.attaches_to_maps);
    let on_maps = || held.links.iter().filter(|(key, _)| key.map().is_some()).map(|(_, link)| link);
    let mut notes = Vec::new();
    if attaches || on_maps().next().is_some() {
        notes.push(
            "sockets that are in a map keep the programs they came in with, also once these are replaced or detached: until \
             they are closed, or leave the map"
                .to_owned(),
        );
    }
    if on_maps().any(|link| !link.is_link()) {
        notes.push(
            "this kernel has no links for maps (Linux has from 6.10 on): the pinned map holds what is attached to it, and whoever \
             may write the map can attach another program in its place"
                .to_owned(),
        );
    }
    if on_maps().any(|link| link.believed) {
        notes.push(
            "this kernel does not say what is attached to a map (Linux does from 5.17 on): in effect is what the agent has \
             attached itself"
                .to_owned(),
        );
    }
    notes
}
