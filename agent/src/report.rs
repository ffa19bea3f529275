//! Report: what is held, as the BpfNode's status. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    BpfNodeStatus, Reason,
    names::{clip, pin_name},
    node::{
        AttachedLink, Details, HeldCounts, HeldProgram, LoadedMap, LoadedProgram, NodeFacts, RetainedMap, State,
        Truncated,
    },
};
use sockeye_ebpf::{map_type, section};

use crate::{
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey},
    kernel::info::{LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, MapInfo},
    layout::{Home, Layout},
    track::Track,
    wanted::Wanted,
};

/// A BpfNode's status may have so many bytes as JSON; details beyond are cut, and counted.
const MAX_BYTES: usize = 240 << 10;

/// The status of a node that holds these.
pub fn report(
    facts: &NodeFacts,
    layout: &Layout,
    tracks: &BTreeMap<String, Track>,
    suspended: Option<&str>,
) -> BpfNodeStatus {
    let suspended = suspended.map(|why| clip(why, 512));
    let mut status = BpfNodeStatus { node: facts.clone(), suspended, ..BpfNodeStatus::default() };
    for (name, track) in tracks {
        let home = layout.home(name);
        let shown = Shown::of(track);
        if track.is_wanted() || !(track.held.is_empty() || track.held.is_retained_only()) {
            status.programs.push(program(name, track, &shown));
            status.details.push(details(name, track, &shown, &home));
        }
        if !track.is_wanted() {
            status.retained.extend(retained(name, &track.held, &home));
        }
    }
    let failed = status.programs.iter().filter(|p| !matches!(p.state, State::Attached | State::Suspended)).count();
    let links = tracks.values().flat_map(|t| t.held.links.values()).filter(|l| l.in_effect).count();
    status.counts = HeldCounts { programs: count(status.programs.len()), failed: count(failed), links: count(links) };
    bound(status)
}

/// What of a track is shown, in the order of names.
struct Shown<'a> {
    functions: Vec<(&'a str, &'a HeldFunction)>,
    /// By the name in the ELF.
    maps: Vec<(String, &'a HeldMap)>,
}

impl<'a> Shown<'a> {
    fn of(track: &'a Track) -> Self {
        let names: BTreeMap<String, &str> = track
            .wanted
            .iter()
            .flat_map(|wanted| wanted.maps.keys().map(|name| (pin_name(name), name.as_str())))
            .collect();
        let name = |pin: &String| names.get(pin).map_or_else(|| pin.clone(), |name| (*name).to_owned());
        let mut maps: Vec<_> = track.held.maps.iter().map(|(pin, map)| (name(pin), map)).collect();
        maps.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self { functions: track.held.functions.iter().map(|(f, held)| (f.as_str(), held)).collect(), maps }
    }
}

fn program(name: &str, track: &Track, shown: &Shown<'_>) -> HeldProgram {
    let Track { held, uid, .. } = track;
    let state = track.state();
    let reason = match state {
        State::Suspended => Some(Reason::Suspended),
        _ => track.failure.as_ref().map(|failure| failure.reason),
    };
    HeldProgram {
        name: name.to_owned(),
        uid: uid.clone().or_else(|| held.uid.clone()).unwrap_or_default(),
        revision: in_effect_revision(held),
        state,
        reason,
        program_ids: shown.functions.iter().map(|(_, f)| f.info.id.into()).collect(),
        map_ids: shown.maps.iter().map(|(_, m)| m.info.id).chain(unpinned_ids(held)).map(i64::from).collect(),
    }
}

/// The maps that a program of ours uses and that are not pinned, or not by us.
fn unpinned_ids(held: &Held) -> BTreeSet<u32> {
    let mut used: BTreeSet<u32> = held.functions.values().flat_map(|f| f.info.map_ids.iter().copied()).collect();
    for map in held.maps.values() {
        used.remove(&map.info.id);
    }
    used
}

/// A revision is in effect while every link it left is.
fn in_effect_revision(held: &Held) -> Option<String> {
    let whole = !held.links.is_empty() && held.links.values().all(|link| link.in_effect);
    held.revision.clone().filter(|_| whole)
}

fn details(name: &str, track: &Track, shown: &Shown<'_>, home: &Home) -> Details {
    let Track { held, wanted, failure, suspended, unpinned, drift, devices, .. } = track;
    let message = failure.as_ref().map(|f| &f.message).or(suspended.as_ref());
    let unpinned_ids = unpinned_ids(held);
    let of_unpinned = unpinned.iter().filter(|(_, info)| unpinned_ids.contains(&info.id));
    let of_unpinned = of_unpinned.map(|(name, info)| map_entry(name, info, wanted.as_ref(), true, None));
    let used: BTreeSet<u32> = held.functions.values().flat_map(|f| f.info.map_ids.iter().copied()).collect();
    Details {
        name: name.to_owned(),
        wanted: track.revision.clone(),
        message: message.map(|message| clip(message, 2048)),
        verifier_log: failure.as_ref().and_then(|f| f.verifier_log.clone()),
        notes: notes(unpinned, &unpinned_ids)
            .iter()
            .chain(&map_notes(track))
            .chain(&device_notes(devices))
            .map(|note| clip(note, 512))
            .take(16)
            .collect(),
        drift: drift.clone(),
        programs: shown.functions.iter().filter_map(|(f, held)| loaded_program(f, held, home)).collect(),
        maps: shown
            .maps
            .iter()
            .map(|(map, held)| loaded_map(map, held, wanted.as_ref(), &used, home))
            .chain(of_unpinned)
            .collect(),
        links: held.links.iter().map(|(key, link)| attached_link(key, link, home)).collect(),
    }
}

fn loaded_program(function: &str, held: &HeldFunction, home: &Home) -> Option<LoadedProgram> {
    let info = &held.info;
    Some(LoadedProgram {
        name: function.to_owned(),
        kernel_name: info.kernel_name.clone(),
        id: info.id.into(),
        program_type: section::program_type(info.prog_type)?,
        tag: info.tag.clone(),
        gpl_compatible: info.gpl_compatible,
        loaded_at: info.loaded_at.clone(),
        uid: info.uid.into(),
        xlated_bytes: info.xlated_bytes.into(),
        jited_bytes: info.jited_bytes.into(),
        memlock_bytes: info.memlock_bytes.cast_signed(),
        map_ids: info.map_ids.iter().map(|&id| id.into()).collect(),
        btf_id: info.btf_id.map(i64::from),
        pin_path: home.host(&home.program(function)),
    })
}

/// What is to be known of maps that are not pinned.
fn notes(unpinned: &BTreeMap<String, MapInfo>, used: &BTreeSet<u32>) -> Vec<String> {
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

fn loaded_map(name: &str, held: &HeldMap, wanted: Option<&Wanted>, used: &BTreeSet<u32>, home: &Home) -> LoadedMap {
    let info = &held.info;
    map_entry(name, info, wanted, used.contains(&info.id), Some(home.host(&home.map(&pin_name(name)))))
}

fn map_entry(name: &str, info: &MapInfo, wanted: Option<&Wanted>, used: bool, pin_path: Option<String>) -> LoadedMap {
    LoadedMap {
        name: name.to_owned(),
        kernel_name: info.kernel_name.clone(),
        id: info.id.into(),
        map_type: map_type::name(info.map_type).into_owned(),
        flags: info.flags.into(),
        key_size: info.key_size.into(),
        value_size: info.value_size.into(),
        max_entries: info.max_entries.into(),
        memlock_bytes: info.memlock_bytes.cast_signed(),
        frozen: info.frozen,
        btf_id: info.btf_id.map(i64::from),
        definition: wanted.and_then(|w| w.maps.get(name)).map(|map| map.definition),
        used,
        pin_path,
    }
}

fn attached_link(key: &LinkKey, link: &HeldLink, home: &Home) -> AttachedLink {
    let info = &link.info;
    AttachedLink {
        program: key.function.clone(),
        id: info.id.into(),
        link_type: link_type(info.link_type).to_owned(),
        program_id: info.program_id.into(),
        attach_type: section::attach_type_name(info.attach_type).into_owned(),
        cgroup_id: key.map().is_none().then(|| info.cgroup_id.cast_signed()),
        cgroup_path: link.path.as_deref().map(|path| clip(path, 1024)),
        map: key.map().map(str::to_owned),
        map_id: key.map().map(|_| info.map_id.into()),
        in_effect: link.in_effect,
        pin_path: home.host(&home.link(&key.function, &key.place)),
    }
}

/// As bpftool names it.
const fn link_type(number: u32) -> &'static str {
    match number {
        LINK_TYPE_CGROUP => "cgroup",
        LINK_TYPE_SOCKMAP => "sockmap",
        _ => "none",
    }
}

fn retained(name: &str, held: &Held, home: &Home) -> Vec<RetainedMap> {
    let kept = held.maps.iter().filter(|(pin, _)| held.retained.contains(*pin));
    let entry = |(pin, map): (&String, &HeldMap)| RetainedMap {
        program: name.to_owned(),
        name: pin.clone(),
        id: map.info.id.into(),
        pin_path: home.host(&home.map(pin)),
    };
    kept.map(entry).collect()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Cuts details until the status fits: links first, then logs, then whole details from the end; the list of programs never.
fn bound(mut status: BpfNodeStatus) -> BpfNodeStatus {
    let size = |status: &BpfNodeStatus| serde_json::to_vec(status).map_or(0, |json| json.len());
    let mut cut = Truncated::default();
    if size(&status) > MAX_BYTES {
        for details in &mut status.details {
            cut.links += count(std::mem::take(&mut details.links).len());
        }
    }
    if size(&status) > MAX_BYTES {
        cut.logs += count(status.details.iter_mut().filter_map(|details| details.verifier_log.take()).count());
    }
    let over = size(&status).saturating_sub(MAX_BYTES);
    let mut freed = 0;
    while freed < over
        && let Some(details) = status.details.pop()
    {
        freed += serde_json::to_vec(&details).map_or(0, |json| json.len());
        cut.details += 1;
    }
    status.truncated = (cut != Truncated::default()).then_some(cut);
    status
}
