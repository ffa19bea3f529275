//! The entry of one BpfProgram in the BpfNode: which revision is in effect, which should be, and why they differ. Pure.

use std::collections::BTreeSet;

use sockeye_crds::{
    Reason,
    names::clip,
    node::{EntryCounts, NodeProgram, State},
};

use super::{
    contents::Contents,
    counts::{count, entry_counts},
    limits::MAX_MESSAGE,
};
use crate::{
    control::program::ProgramState,
    model::{
        observed::{LinkKey, ObservedLink},
        pods::CgroupOwner,
        trial::Trial,
    },
};

/// Returns the entry of a BpfProgram.
pub(super) fn node_program(name: &str, program: &ProgramState, contents: &Contents<'_>) -> NodeProgram {
    let ProgramState { observed, failure, suspended, drift, .. } = program;
    let state = program.state();
    let reason = match state {
        State::Suspended => Some(Reason::Suspended),
        _ => failure.as_ref().map(|failure| failure.reason),
    };
    let message = failure.as_ref().map(|failure| failure.message.clone()).or_else(|| suspended.clone());
    let message = message.map(|message| match program.known_good_gap() {
        Some(gap) => format!("{}; {gap}", clip(&message, MAX_MESSAGE - gap.len().min(MAX_MESSAGE / 2))),
        None => message,
    });
    let revision = revision_in_effect(program);
    let known_good = if revision.is_none() { program.last_in_effect() } else { revertible(program) };
    let desired_revision = program.revision().filter(|desired| Some(*desired) != revision.as_deref());
    let functions = contents.functions.iter().map(|(_, function)| function.info.id);
    let maps = contents.maps.iter().map(|(_, map)| map.info.id).chain(contents.unpinned.iter().copied());
    NodeProgram {
        name: name.to_owned(),
        uid: program.uid().map(str::to_owned).or_else(|| observed.uid.clone()).unwrap_or_default(),
        desired_revision: desired_revision.map(str::to_owned),
        revision,
        known_good_revision: known_good.map(str::to_owned),
        state,
        reason,
        message: message.map(|message| clip(&message, MAX_MESSAGE)),
        needs_edit: failure.as_ref().is_some_and(|failure| failure.needs_edit && !failure.reason.needs_edit()),
        program_ids: functions.map(i64::from).take(contents.limits.functions).collect(),
        map_ids: maps.map(i64::from).take(contents.limits.maps).collect(),
        links: count(observed.links.values().filter(|link| link.in_effect).count()),
        pods: count(pods(program).len()),
        entries: program.entries.counts.values().map(entry_counts).reduce(EntryCounts::plus),
        refused_connections: program.refused.clone(),
        drift: drift.clone(),
        ..NodeProgram::default()
    }
}

/// Returns the revision that a revert brings back, while the one in effect is on trial. Nobody must delete it before.
fn revertible(program: &ProgramState) -> Option<&str> {
    program.undecided_trial()?;
    program.observed.previous.as_ref()?.revision.as_deref()
}

/// Returns the pods at which a program is in effect that a target selects, or goes on selecting.
fn pods(program: &ProgramState) -> BTreeSet<&str> {
    let Some(desired) = program.desired.as_deref() else { return BTreeSet::new() };
    let pod = |(key, link): (&LinkKey, &ObservedLink)| {
        let CgroupOwner { pod, .. } = desired.functions.get(&key.function)?.paths.get(link.path.as_ref()?)?.as_ref()?;
        pod.as_deref().filter(|_| link.in_effect)
    };
    program.observed.links.iter().filter_map(pod).collect()
}

/// Returns the revision in effect: each link that it left is in effect and runs its program.
///
/// A revision that selects pods leaves no link on a node without such a pod. A reverted revision is not in effect, even
/// if links of another one are.
fn revision_in_effect(program: &ProgramState) -> Option<String> {
    let ProgramState { observed, desired, suspended, converged, .. } = program;
    let has_no_place = || desired.as_ref().is_some_and(|desired| desired.paths().is_empty());
    let is_whole = match observed.links.is_empty() {
        true => *converged && suspended.is_none() && has_no_place(),
        false => observed.links.iter().all(|(key, link)| {
            let function = observed.functions.get(&key.function).map(|function| function.info.id);
            link.in_effect && Some(link.info.program_id) == function
        }),
    };
    let is_reverted =
        |Trial { revision, state }: &Trial| state.is_reverted() && observed.revision.as_ref() == Some(revision);
    observed.revision.clone().filter(|_| is_whole && !observed.trial.as_ref().is_some_and(is_reverted))
}
