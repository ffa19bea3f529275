//! `Host`: the node as the agent sees and changes it, one BpfProgram at a time. The seam between decisions and the kernel:
//! [`Kernel`] is the node itself, and a fake runs thousands of agents where there is one kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use sockeye_crds::revision::Feature;

use crate::{
    execute::{Executed, Executor},
    failure::Failure,
    held::Held,
    kept::Kept,
    kernel::{
        SysError,
        cgroup::{Cgroup, Root},
        facts::Machine,
        load::KernelBtf,
        probe::Lacking,
    },
    layout::{Layout, Trial},
    observe::{self, Bpffs, ObserveError, Query},
    plan::Step,
    pods::{Needs, PodCgroup, Pods},
    wanted::{Here, Wanted},
};

/// The node as the agent sees and changes it. Calls may block.
pub trait Host {
    /// The bpffs to keep things on.
    fn bpffs(&self) -> Result<Bpffs, ObserveError>;
    /// The names of the BpfPrograms that have a home here.
    fn homes(&self) -> Result<BTreeSet<String>, ObserveError>;
    /// The trials that are noted here, by BpfProgram.
    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError>;
    /// What revisions are worked out with, but for single pods.
    fn here(&self, needs: Needs) -> Result<Here, SysError>;
    /// Where the pods' cgroups are, by the pods' UIDs, and their containers' where these are asked for.
    fn pod_cgroups(&self, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError>;
    /// The directories in which pods' cgroups come and go, and those in which their containers' do where these are asked for.
    fn pod_directories(&self, containers: bool) -> Result<Vec<PathBuf>, SysError>;
    /// What one BpfProgram has.
    fn observe(&mut self, name: &str) -> Result<Held, SysError>;
    /// What is attached at the cgroup at a path; nothing where there is none.
    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError>;
    /// What runs for sockets that enter a BpfProgram's map, by its pin name; nothing where there is none.
    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError>;
    /// A program at a cgroup, or below, that is none of these, and where.
    fn stranger(&self, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)>;
    /// The directories in which something comes or goes when someone meddles with a home.
    fn directories(&self, name: &str, held: &Held) -> Vec<PathBuf>;
    /// The wanted cgroups that exist, by path.
    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError>;
    /// Executes a plan where there is this, and says what there is then.
    fn execute(&mut self, name: &str, before: &Held, order: &Order<'_>) -> Result<(Executed, Held), Failure>;
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
    has_api: bool,
    kept: BTreeMap<String, Kept>,
}

impl Kernel {
    /// The node with its pins there, its cgroups there, the kubelet's root below these, and a kernel that lacks this;
    /// `has_api` where its agent has an API server to reach.
    pub const fn new(
        layout: Layout,
        root: Root,
        kubelet_root: String,
        machine: Machine,
        lacking: Lacking,
        has_api: bool,
    ) -> Self {
        Self { layout, root, kubelet_root, machine, lacking, has_api, kept: BTreeMap::new() }
    }

    /// Does something with the descriptors of one home, and keeps no empty set of them.
    fn with_kept<T>(&mut self, name: &str, work: impl FnOnce(&Self, &mut Kept) -> T) -> T {
        let mut kept = self.kept.remove(name).unwrap_or_default();
        let done = work(self, &mut kept);
        if !kept.is_empty() {
            self.kept.insert(name.to_owned(), kept);
        }
        done
    }
}

impl Host for Kernel {
    fn bpffs(&self) -> Result<Bpffs, ObserveError> {
        observe::bpffs(&self.layout)
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        observe::homes(&self.layout)
    }

    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError> {
        observe::trials(&self.layout)
    }

    fn here(&self, needs: Needs) -> Result<Here, SysError> {
        let pods_root = match needs.root {
            true => observe::pods_root(&self.root, &self.kubelet_root)?,
            false => String::new(),
        };
        let pods = Pods::default();
        let (machine, features, lacking) = (self.machine, features(), self.lacking.clone());
        Ok(Here { machine, features, lacking, pods_root, pods, has_api: self.has_api })
    }

    fn pod_cgroups(&self, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
        observe::pod_cgroups(&self.root, &observe::pods_root(&self.root, &self.kubelet_root)?, containers)
    }

    fn pod_directories(&self, containers: bool) -> Result<Vec<PathBuf>, SysError> {
        let pods = observe::pods_root(&self.root, &self.kubelet_root)?;
        observe::pod_directories(&self.root, &pods, containers)
    }

    fn observe(&mut self, name: &str) -> Result<Held, SysError> {
        self.with_kept(name, |node, kept| observe::home(&node.layout.home(name), &node.root, kept))
    }

    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        observe::attached(&self.root, path, attach_type)
    }

    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        observe::attached_to_map(&self.layout.home(name), pin, attach_type)
    }

    fn stranger(&self, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)> {
        observe::stranger(&self.root, path, attach_type, ours)
    }

    fn directories(&self, name: &str, held: &Held) -> Vec<PathBuf> {
        observe::directories(&self.layout.home(name), held)
    }

    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
        observe::cgroups(&self.root, wanted)
    }

    fn execute(&mut self, name: &str, before: &Held, order: &Order<'_>) -> Result<(Executed, Held), Failure> {
        self.with_kept(name, |node, kept| {
            let home = node.layout.home(name);
            let executor = Executor::new(&home, &node.root, order)?;
            let (executed, made) = executor.execute(kept)?;
            let held = match executed.left {
                None => observe::after(&home, executor.dir(), &node.root, before, order.steps, made, kept)?,
                Some(_) => observe::home(&home, &node.root, kept)?,
            };
            Ok((executed, held))
        })
    }
}

/// What a revision may require of this agent.
pub fn features() -> Vec<String> {
    // A build that pretends to be an older one, for tests of agents that lag behind their operator.
    let known = if cfg!(feature = "older") { &[][..] } else { &Feature::ALL[..] };
    known.iter().map(|feature| feature.as_str()).collect()
}
