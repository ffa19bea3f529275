//! Report: the node's observed state as the statuses of its BpfNode and its BpfNodeDetail. Pure.
//!
//! | file | noun |
//! |---|---|
//! | `contents` | the functions and maps of one BpfProgram, in the order in which they are listed |
//! | `node_program` | the entry of one BpfProgram in the BpfNode |
//! | `warnings`, `rivals` | the warnings in it |
//! | `detail`, `notes` | its entry in the BpfNodeDetail, and the notes in it |
//! | [`full`] | the same entries for those who ask the agent itself: nothing is left out |
//! | `attach_order` | the attach orders of cgroups |
//! | [`counts`], [`conditions`] | the counts and the conditions of a BpfNode |
//! | `limits` | the longest lists |
//! | [`fit_node`], [`fit_detail`] | statuses of bounded size |

mod attach_order;
pub mod conditions;
mod contents;
pub mod counts;
mod detail;
pub mod fit_detail;
pub mod fit_node;
pub mod full;
mod limits;
mod node_program;
mod notes;
mod rivals;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfNodeDetailStatus, BpfNodeStatus,
    node::{self, NodeFacts, NodeProgram, OmittedDetail, RetainedMap},
    program::MapRef,
};

use self::{
    attach_order::attach_orders,
    contents::Contents,
    counts::{counts, excess},
    detail::program_detail,
    limits::{Limits, MAX_FUNCTIONS, MAX_LINKS, MAX_MAPS, MAX_ORDERS},
    node_program::node_program,
};
use crate::{
    control::{
        attachments::AttachmentMonitor,
        program::{self, ProgramState},
    },
    model::{
        draining_map::DrainingMap,
        observed::{Observed, ObservedMap},
    },
    node::layout::{self, Home, Layout},
};

/// The inputs of a report.
pub struct Reported<'a> {
    /// The node and its kernel.
    pub facts: &'a NodeFacts,
    /// The paths of pins.
    pub layout: &'a Layout,
    /// All BpfPrograms on the node.
    pub programs: &'a BTreeMap<String, ProgramState>,
    /// The maps that no BpfProgram has any more, with sockets in them.
    pub draining: &'a [DrainingMap],
    /// The attach orders.
    pub monitor: &'a AttachmentMonitor,
    /// The reason why everything on the node is suspended.
    pub suspended: Option<&'a str>,
}

/// Returns the statuses of the node's BpfNode, without conditions, and of its BpfNodeDetail.
pub fn report(reported: &Reported<'_>) -> (BpfNodeStatus, BpfNodeDetailStatus) {
    let Reported { facts, layout, programs, draining, monitor, suspended } = *reported;
    let suspended = suspended.map(str::to_owned);
    let mut node = BpfNodeStatus { node: facts.clone(), suspended, ..BpfNodeStatus::default() };
    let (mut detail, mut omitted) = (BpfNodeDetailStatus::default(), OmittedDetail::default());
    (detail.attach_order, omitted.attach_order) = attach_orders(programs, MAX_ORDERS, || monitor.attach_orders());
    let users = map_users(programs);
    let mut warnings = warnings::warnings(programs);
    for (name, program) in programs {
        let home = layout.home(name);
        let contents = Contents::of(program, users.get(name.as_str()), &Limits::OF_STATUSES);
        let observed = &program.observed;
        if is_reported(program) {
            let warnings = warnings.remove(name.as_str()).unwrap_or_default();
            node.programs.push(NodeProgram { warnings, ..node_program(name, program, &contents) });
            detail.programs.push(program_detail(name, program, programs, &contents, &home));
            omitted.functions += excess(contents.functions.len(), MAX_FUNCTIONS);
            omitted.maps += excess(contents.maps.len() + contents.unpinned.len(), MAX_MAPS);
        }
        detail.draining.extend(draining_maps(name, observed, &home));
        omitted.links += excess(observed.links.len(), MAX_LINKS);
        if !program.is_desired() {
            detail.retained.extend(retained_maps(name, observed, &home));
        }
    }
    detail.draining.extend(draining.iter().map(draining_map));
    node.counts = counts(&node.programs, node.programs.iter().map(|program| program.links).sum());
    (fit_node::fit(node), fit_detail::fit(detail, omitted))
}

/// Returns whether a BpfProgram has an entry of its own: it is desired, or has more than retained maps.
fn is_reported(program: &ProgramState) -> bool {
    let observed = &program.observed;
    program.is_desired() || !(observed.is_empty() || observed.is_retained_only())
}

/// Users of maps: by the owner's name and the map's pin name, the names of the other BpfPrograms that use the map.
type MapUsers<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a str>>>;

fn map_users(programs: &BTreeMap<String, ProgramState>) -> MapUsers<'_> {
    let mut users = MapUsers::new();
    for (name, state) in programs {
        for MapRef { program, name: map } in
            state.observed.maps.values().filter_map(|map| program::owned(programs, map))
        {
            users.entry(program).or_default().entry(map).or_default().push(name);
        }
    }
    users
}

/// Returns the maps of a BpfProgram with sockets in them, while it has nothing attached.
fn draining_maps(name: &str, observed: &Observed, home: &Home) -> Vec<node::DrainingMap> {
    let entry = |(pin, map, sockets): (&String, &ObservedMap, u32)| node::DrainingMap {
        program: name.to_owned(),
        name: pin.clone(),
        id: map.info.id.into(),
        sockets: sockets.into(),
        pin_path: home.host(&layout::map(pin)),
    };
    observed.draining().map(entry).collect()
}

fn draining_map(map: &DrainingMap) -> node::DrainingMap {
    let DrainingMap { program, name, id, sockets, pin_path, shape: _ } = map.clone();
    node::DrainingMap { program, name, id: id.into(), sockets: sockets.into(), pin_path }
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
