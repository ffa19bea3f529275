//! `Host`: the node as the agent sees and changes it, one BpfProgram at a time. The seam between decisions and the kernel:
//! [`Kernel`] is the node itself, and a fake runs thousands of agents where there is one kernel.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::revision::Feature;

use crate::{
    execute::Executor,
    failure::Failure,
    held::{Held, Names},
    kernel::{
        SysError,
        cgroup::{Cgroup, Root},
        facts::Machine,
        load::KernelBtf,
        probe::Lacking,
    },
    layout::Layout,
    observe::{self, ObserveError},
    plan::Step,
    wanted::{Here, Wanted},
};

/// The node as the agent sees and changes it. Calls may block.
pub trait Host {
    /// Whether there is a bpffs to keep things on.
    fn usable(&self) -> Result<(), ObserveError>;
    /// The names of the BpfPrograms that have a home here.
    fn homes(&self) -> Result<BTreeSet<String>, ObserveError>;
    /// What revisions are worked out with.
    fn here(&self) -> Result<Here, SysError>;
    /// What one BpfProgram has.
    fn observe(&self, name: &str) -> Result<Held, SysError>;
    /// The same, where it is known what there is.
    fn observe_known(&self, name: &str, names: &Names) -> Result<Held, SysError>;
    /// The wanted cgroups that exist, by path.
    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError>;
    /// Executes a plan.
    fn execute(&self, name: &str, order: &Order<'_>) -> Result<(), Failure>;
}

/// A plan, and what its steps need.
pub struct Order<'a> {
    /// The steps.
    pub steps: &'a [Step],
    /// What is wanted; nothing, where all of it goes.
    pub wanted: Option<&'a Wanted>,
    /// The object's bytes; needed by [`Step::Load`] alone.
    pub bytes: Option<&'a [u8]>,
    /// The kernel's BTF, shared by all loads of one pass.
    pub kernel_btf: &'a KernelBtf,
}

/// The node itself.
pub struct Kernel {
    layout: Layout,
    root: Root,
    kubelet_root: String,
    machine: Machine,
    lacking: Lacking,
}

impl Kernel {
    /// The node with its pins there, its cgroups there, the kubelet's root below these, and a kernel that lacks this.
    pub const fn new(layout: Layout, root: Root, kubelet_root: String, machine: Machine, lacking: Lacking) -> Self {
        Self { layout, root, kubelet_root, machine, lacking }
    }
}

impl Host for Kernel {
    fn usable(&self) -> Result<(), ObserveError> {
        observe::bpffs(&self.layout)
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        observe::homes(&self.layout)
    }

    fn here(&self) -> Result<Here, SysError> {
        let pods = observe::pods(&self.root, &self.kubelet_root)?;
        Ok(Here { machine: self.machine, features: features(), lacking: self.lacking.clone(), pods })
    }

    fn observe(&self, name: &str) -> Result<Held, SysError> {
        observe::home(&self.layout.home(name), &self.root)
    }

    fn observe_known(&self, name: &str, names: &Names) -> Result<Held, SysError> {
        observe::known(&self.layout.home(name), &self.root, names)
    }

    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
        observe::cgroups(&self.root, wanted)
    }

    fn execute(&self, name: &str, order: &Order<'_>) -> Result<(), Failure> {
        Executor { home: &self.layout.home(name), root: &self.root, order }.execute()
    }
}

/// What a revision may require of this agent.
pub fn features() -> Vec<String> {
    // A build that pretends to be an older one, for tests of agents that lag behind their operator.
    let known = if cfg!(feature = "older") { &[][..] } else { &Feature::ALL[..] };
    known.iter().map(|feature| feature.as_str()).collect()
}
