//! The attach orders of cgroups at which more than one program is attached. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{
    names::clip,
    node::{AttachOrder, OrderedProgram},
};
use sockeye_ebpf::kinds::section::attach_type_name;

use super::{counts::excess, limits::MAX_ORDERED};
use crate::control::program::ProgramState;

/// The programs that run at a cgroup: its path, the attach type, the programs' IDs in their order.
pub(super) type Ordered<'a> = (&'a str, u32, &'a [u32]);

/// Returns the first attach orders, and how many there are beyond them.
pub(super) fn attach_orders<'a, I: Iterator<Item = Ordered<'a>>>(
    programs: &BTreeMap<String, ProgramState>,
    most: usize,
    orders: impl Fn() -> I,
) -> (Vec<AttachOrder>, i64) {
    let shared = || orders().filter(|(_, _, ids)| ids.len() > 1);
    if shared().next().is_none() {
        return (Vec::new(), 0);
    }
    let names = function_names(programs);
    let order = |(path, attach_type, ids): Ordered<'_>| AttachOrder {
        cgroup_path: clip(path, 1024),
        attach_type: attach_type_name(attach_type).into_owned(),
        programs: ids.iter().take(MAX_ORDERED).map(|&id| ordered(id, &names)).collect(),
    };
    (shared().take(most).map(order).collect(), excess(shared().count(), most))
}

fn ordered(id: u32, names: &BTreeMap<u32, String>) -> OrderedProgram {
    OrderedProgram { id: id.into(), name: names.get(&id).cloned() }
}

/// Returns the names of functions, as `tcp-events/my_prog`, by the IDs of their programs.
fn function_names(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for (name, program) in programs {
        let functions = program.observed.functions.iter();
        names.extend(functions.map(|(function, observed)| (observed.info.id, format!("{name}/{function}"))));
    }
    names
}
