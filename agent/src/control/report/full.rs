//! The same entries as in statuses, for those who ask the agent itself: no list is shortened. Pure.

use sockeye_crds::node::{AttachOrder, DrainingMap, NodeProgram, ProgramDetail, RetainedMap};

use super::{
    Reported, attach_order::attach_orders, contents::Contents, detail::program_detail, draining_map, draining_maps,
    is_reported, limits::Limits, map_users, node_program::node_program, retained_maps, warnings::warnings,
};

/// The lists of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLists {
    /// The names of the BpfPrograms that have an entry.
    pub programs: Vec<String>,
    /// Maps of deleted BpfPrograms.
    pub retained: Vec<RetainedMap>,
    /// Maps with sockets in them, of BpfPrograms that are suspended or gone.
    pub draining: Vec<DrainingMap>,
    /// The attach orders.
    pub attach_order: Vec<AttachOrder>,
}

/// Returns the lists of a node.
pub fn node_lists(reported: &Reported<'_>) -> NodeLists {
    let Reported { layout, programs, draining, monitor, .. } = *reported;
    let mut lists = NodeLists {
        attach_order: attach_orders(programs, usize::MAX, || monitor.attach_orders()).0,
        ..NodeLists::default()
    };
    for (name, program) in programs {
        let home = layout.home(name);
        lists.programs.extend(is_reported(program).then(|| name.clone()));
        lists.draining.extend(draining_maps(name, &program.observed, &home));
        if !program.is_desired() {
            lists.retained.extend(retained_maps(name, &program.observed, &home));
        }
    }
    lists.draining.extend(draining.iter().map(draining_map));
    lists
}

/// Returns the entries of those of the named BpfPrograms that have one.
pub fn entries(reported: &Reported<'_>, names: &[String]) -> Vec<(NodeProgram, ProgramDetail)> {
    let Reported { layout, programs, .. } = *reported;
    let users = map_users(programs);
    let mut warnings = warnings(programs);
    let known =
        names.iter().filter_map(|name| Some((name, programs.get(name).filter(|program| is_reported(program))?)));
    known
        .map(|(name, program)| {
            let contents = Contents::of(program, users.get(name.as_str()), &Limits::NONE);
            let warnings = warnings.remove(name.as_str()).unwrap_or_default();
            let node = NodeProgram { warnings, ..node_program(name, program, &contents) };
            (node, program_detail(name, program, programs, &contents, &layout.home(name)))
        })
        .collect()
}
