//! Notes: facts on a BpfProgram on a node that the kernel's information does not show. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{names::clip, program::MapRef};

use super::contents::Contents;
use crate::{
    control::program::{self, ProgramState},
    model::{
        entries::EntryCounts,
        kernel::MapInfo,
        observed::{Observed, ObservedMap},
        trial::TrialState,
    },
};

/// Returns all notes on a BpfProgram.
pub(super) fn notes(
    program: &ProgramState,
    contents: &Contents<'_>,
    programs: &BTreeMap<String, ProgramState>,
) -> Vec<String> {
    let notes = unpinned_notes(&program.unpinned, &contents.unpinned)
        .into_iter()
        .chain(program.load_notes.iter().cloned())
        .chain(trial_note(&program.observed))
        .chain(map_notes(program))
        .chain(entry_notes(program))
        .chain(draining_notes(&program.observed))
        .chain(device_notes(&program.foreign_devices))
        .chain(order_notes(program))
        .chain(shared_notes(&program.observed, programs));
    notes.map(|note| clip(&note, 512)).take(contents.limits.notes).collect()
}

/// Returns the notes on maps that are not pinned.
fn unpinned_notes(unpinned: &BTreeMap<String, MapInfo>, used: &BTreeSet<u32>) -> Vec<String> {
    let gone = unpinned.iter().filter(|(_, info)| !used.contains(&info.id)).map(|(name, _)| {
        format!("map {name} is not pinned, and no program uses it: the kernel freed it after the load")
    });
    let known: BTreeSet<u32> = unpinned.values().map(|info| info.id).collect();
    let unknown: Vec<String> = used.difference(&known).map(u32::to_string).collect();
    let unknown = (!unknown.is_empty()).then(|| {
        format!(
            "maps {} are used and not pinned here: they live as long as the program, and only their IDs are known \
             since the agent was restarted",
            unknown.join(", ")
        )
    });
    gone.chain(unknown).collect()
}

/// Returns the note on a trial that could not watch the kubelet.
fn trial_note(observed: &Observed) -> Option<String> {
    let trial = observed.trial.as_ref().filter(|trial| trial.state == TrialState::PassedWithoutLease)?;
    Some(format!(
        "revision {} passed its connectivity trial by the agent's connection to the API server alone: this node has no \
         Lease in kube-node-lease that the agent may read and the kubelet renews",
        trial.revision
    ))
}

/// Returns the notes on device programs of others, such as container runtimes.
fn device_notes(devices: &BTreeMap<String, (String, u32)>) -> Vec<String> {
    let note = |(path, (at, id)): (&String, &(String, u32))| {
        format!(
            "others have device programs at or below cgroup {path}, as container runtimes do: program {id} at {at}; \
             an access needs the permission of each"
        )
    };
    devices.iter().map(note).collect()
}

/// Returns the notes on shared maps that their owners no longer have.
fn shared_notes(observed: &Observed, programs: &BTreeMap<String, ProgramState>) -> Vec<String> {
    let is_orphaned = |map: &&ObservedMap| program::owned(programs, map).is_none();
    let orphaned = observed.maps.iter().filter(|(_, map)| is_orphaned(map));
    let orphaned = orphaned.filter_map(|(pin, map)| Some((pin, map.from.as_ref()?)));
    let note = |(pin, from): (&String, &MapRef)| {
        format!("map {pin} was {from}, which no longer exists: it is kept unchanged until {from} exists again")
    };
    orphaned.map(note).collect()
}

/// Returns the notes on the attach order.
fn order_notes(ProgramState { desired, moved, .. }: &ProgramState) -> Vec<String> {
    let unordered = desired.as_ref().is_some_and(|desired| desired.unordered).then(|| {
        "this kernel keeps no order among programs on a cgroup (Linux does from 6.17 on): they run in the order in \
         which they were attached, regardless of priority"
            .to_owned()
    });
    let moved = (*moved > 0).then(|| {
        format!(
            "its priority had {moved} of its links attached anew at another position since the agent started: each ran \
             twice for a moment"
        )
    });
    unordered.into_iter().chain(moved).collect()
}

/// Returns the notes on maps whose content differs from the spec's, which fills new maps only.
fn entry_notes(program: &ProgramState) -> Vec<String> {
    let differing = program.entries.counts.iter().filter(|(_, counts)| !counts.sync && !counts.is_current());
    let note = |(map, EntryCounts { listed, in_place, .. }): (&String, &EntryCounts)| {
        format!(
            "map {map}: {} of the {listed} entries that the spec lists differ here: with entriesPolicy: OnCreate they \
             fill a map that is created; Sync keeps them in step",
            listed - in_place
        )
    };
    differing.map(note).collect()
}

/// Returns the notes on sockets that stay in maps while nothing is attached.
fn draining_notes(observed: &Observed) -> Vec<String> {
    let note = |(pin, _, sockets): (&String, &ObservedMap, u32)| {
        format!(
            "{sockets} sockets are still in map {pin} and keep its programs until they are closed: to take them out \
             loses what they have not read (spec.forceDetach)"
        )
    };
    observed.draining().map(note).collect()
}

/// Returns the notes on attachments to maps.
fn map_notes(program: &ProgramState) -> Vec<String> {
    let ProgramState { observed, desired, .. } = program;
    let attaches = desired.as_ref().is_some_and(|desired| desired.attaches_to_maps);
    let on_maps = || observed.links.iter().filter(|(key, _)| key.map().is_some()).map(|(_, link)| link);
    let mut notes = Vec::new();
    if attaches || on_maps().next().is_some() {
        notes.push(
            "sockets that are in a map keep the programs they came in with, also once these are replaced or detached, \
             until they are closed or leave the map"
                .to_owned(),
        );
    }
    if on_maps().any(|link| !link.is_link()) {
        notes.push(
            "this kernel has no links for maps (Linux has from 6.10 on): the pinned map holds the attached program, \
             and anyone who may write the map can replace it"
                .to_owned(),
        );
    }
    if on_maps().any(|link| link.believed) {
        notes.push(
            "this kernel does not say what is attached to a map (Linux does from 5.17 on): the report rests on the \
             agent's own attachments"
                .to_owned(),
        );
    }
    notes
}
