//! `Execution` and `Executed`: the input and the result of executing a plan. Values.

use std::{collections::BTreeMap, time::Duration};

use sockeye_ebpf::values::list::Lists;

use crate::{
    kernel::running::RunningKernel,
    model::{desired::Desired, kernel::MapInfo},
    node::failure::Failure,
    plan::Step,
};

/// A plan, and what its steps need.
pub struct Execution<'a> {
    /// The steps.
    pub steps: &'a [Step],
    /// What the BpfProgram is to have; `None` if the plan removes everything.
    pub desired: Option<&'a Desired>,
    /// The object's bytes. Only [`Step::Load`] needs them.
    pub bytes: Option<&'a [u8]>,
    /// The lists of entries that the spec names, by map. Only [`Step::Load`] needs them.
    pub lists: Option<Lists>,
    /// The facts of the kernel, shared by several executions.
    pub kernel: &'a RunningKernel,
}

/// The result of a plan, as far as pins do not tell it.
#[derive(Debug, Default)]
pub struct Executed {
    /// The maps that were created and not pinned, by name. Those that no program uses are gone already.
    pub unpinned: BTreeMap<String, MapInfo>,
    /// The failures at single pods' cgroups, by the cgroups' paths.
    pub refused: BTreeMap<String, Failure>,
    /// The time that the kernel took for the object; zero if none was loaded.
    pub load_time: Duration,
    /// What the user may not expect of the programs and maps that were loaded.
    pub load_notes: Vec<String>,
    /// The number of links that were attached anew to run at another place in the order.
    pub moved: usize,
    /// The reason why something that was to be removed is still there. Everything else was done.
    pub left: Option<Failure>,
}
