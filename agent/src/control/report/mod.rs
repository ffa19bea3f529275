//! Report: the node's observed state as its BpfNode's status. Pure.
//!
//! | file | noun |
//! |---|---|
//! | `contents` | the functions and maps of one BpfProgram, in the order in which they are listed |
//! | `details` | the entry of one BpfProgram under `details` |
//! | `notes` | its notes |
//! | `run_order` | the run orders of cgroups |
//! | [`counts`] | the counts |
//! | `limits` | the longest lists |
//! | [`truncate`] | a status of bounded size |

mod contents;
pub mod counts;
mod details;
mod limits;
mod notes;
mod run_order;
#[cfg(test)]
mod tests;
pub mod truncate;

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfNodeStatus, Reason,
    node::{HeldProgram, NodeFacts, RetainedMap, State, Truncated},
    program::MapRef,
};

use self::{
    contents::Contents,
    counts::{count, counts, excess},
    details::details,
    limits::{MAX_FUNCTIONS, MAX_LINKS, MAX_MAPS},
    run_order::run_orders,
    truncate::truncate,
};
use crate::{
    control::{
        attachments::AttachmentMonitor,
        program::{self, ProgramState},
    },
    model::{
        observed::{Observed, ObservedMap},
        trial::Trial,
    },
    node::layout::{self, Home, Layout},
};

/// The inputs of a status.
pub struct Reported<'a> {
    /// The node and its kernel.
    pub facts: &'a NodeFacts,
    /// The paths of pins.
    pub layout: &'a Layout,
    /// All BpfPrograms on the node.
    pub programs: &'a BTreeMap<String, ProgramState>,
    /// The attach orders.
    pub monitor: &'a AttachmentMonitor,
    /// The reason why everything on the node is suspended.
    pub suspended: Option<&'a str>,
}

/// Returns the node's status.
pub fn report(reported: &Reported<'_>) -> BpfNodeStatus {
    let Reported { facts, layout, programs, monitor, suspended } = *reported;
    let suspended = suspended.map(str::to_owned);
    let mut status = BpfNodeStatus { node: facts.clone(), suspended, ..BpfNodeStatus::default() };
    let mut cut = Truncated::default();
    (status.order, cut.order) = run_orders(programs, || monitor.attach_orders());
    let users = map_users(programs);
    for (name, program) in programs {
        let home = layout.home(name);
        let contents = Contents::of(program, users.get(name.as_str()));
        let observed = &program.observed;
        if program.is_desired() || !(observed.is_empty() || observed.is_retained_only()) {
            status.programs.push(held_program(name, program, &contents));
            status.details.push(details(name, program, programs, &contents, &home));
            cut.functions += excess(contents.functions.len(), MAX_FUNCTIONS);
            cut.maps += excess(contents.maps.len() + contents.unpinned.len(), MAX_MAPS);
        }
        cut.links += excess(observed.links.len(), MAX_LINKS);
        if !program.is_desired() {
            status.retained.extend(retained_maps(name, observed, &home));
        }
    }
    let links = programs.values().flat_map(|program| program.observed.links.values());
    status.counts = counts(&status.programs, count(links.filter(|link| link.in_effect).count()));
    truncate(status, cut)
}

/// Users of maps: by the owner's name and the map's pin name, the names of the other BpfPrograms that use the map.
type MapUsers<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a str>>>;

fn map_users(programs: &BTreeMap<String, ProgramState>) -> MapUsers<'_> {
    let mut users = MapUsers::new();
    for (name, state) in programs {
        for MapRef { program, map } in state.observed.maps.values().filter_map(|map| program::owned(programs, map)) {
            users.entry(program).or_default().entry(map).or_default().push(name);
        }
    }
    users
}

fn held_program(name: &str, program: &ProgramState, contents: &Contents<'_>) -> HeldProgram {
    let observed = &program.observed;
    let state = program.state();
    let reason = match state {
        State::Suspended => Some(Reason::Suspended),
        _ => program.failure.as_ref().map(|failure| failure.reason),
    };
    let functions = contents.functions.iter().map(|(_, function)| function.info.id);
    let maps = contents.maps.iter().map(|(_, map)| map.info.id).chain(contents.unpinned.iter().copied());
    HeldProgram {
        name: name.to_owned(),
        uid: program.uid().map(str::to_owned).or_else(|| observed.uid.clone()).unwrap_or_default(),
        revision: revision_in_effect(program),
        state,
        reason,
        program_ids: functions.map(i64::from).take(MAX_FUNCTIONS).collect(),
        map_ids: maps.map(i64::from).take(MAX_MAPS).collect(),
    }
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

fn retained_maps(name: &str, observed: &Observed, home: &Home) -> Vec<RetainedMap> {
    let retained = observed.maps.iter().filter(|(pin, _)| observed.retained.contains(*pin));
    let entry = |(pin, map): (&String, &ObservedMap)| RetainedMap {
        program: name.to_owned(),
        name: pin.clone(),
        id: map.info.id.into(),
        pin_path: home.host(&layout::map(pin)),
    };
    retained.map(entry).collect()
}
