//! [`SimNode`]: a fake node that checks each plan before it takes it, and that may fail to load.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use sockeye_agent::{
    kernel::SysError,
    model::{
        draining_map::DrainingMap,
        entries::ListedMaps,
        kernel::Cgroup,
        node_context::NodeContext,
        observed::Observed,
        pods::{PodCgroup, RequiredInputs},
        trial::Trial,
    },
    node::{
        Node,
        entry_sync::{EntriesOutcome, EntriesTask},
        execute::{Executed, Execution},
        failure::Failure,
        handles::Descriptors,
        observe::{Bpffs, Located, ObserveError, Query},
    },
    plan::Step,
};
use sockeye_crds::Reason;
use sockeye_fake::FakeNode;

use crate::{api::Shared, fault::Fault, random::Random};

/// A node. Clones are the same node.
#[derive(Clone)]
pub struct SimNode {
    name: String,
    kernel: FakeNode,
    shared: Shared,
    loads: Arc<Mutex<Loads>>,
}

/// Whether objects can be loaded.
struct Loads {
    random: Random,
    are_failing: bool,
}

impl SimNode {
    /// Returns a node that has just booted.
    pub fn new(name: &str, shared: Shared, random: Random) -> Self {
        let loads = Arc::new(Mutex::new(Loads { random, are_failing: false }));
        Self { name: name.to_owned(), kernel: FakeNode::default(), shared, loads }
    }

    /// Lets most loads fail, or none any more.
    pub fn fail_loads(&self, are_failing: bool) {
        self.loads.lock().unwrap().are_failing = are_failing;
    }

    fn is_load_refused(&self, steps: &[Step]) -> bool {
        let mut loads = self.loads.lock().unwrap();
        let is_load = steps.iter().any(|step| matches!(step, Step::Load { .. }));
        is_load && loads.are_failing && loads.random.percent(70)
    }

    /// Checks that nothing is taken away that should stay, and nothing before its replacement is there.
    fn check(&self, name: &str, before: &Observed, execution: &Execution<'_>, steps: &[Step]) {
        let Some(uid) = before.uid.as_deref().filter(|_| before.links.values().any(|link| link.in_effect)) else {
            return;
        };
        let mut api = self.shared.lock();
        match execution.desired {
            None => api.check_removal(&self.name, name, uid),
            Some(desired) if desired.program.uid == uid && !desired.suspended => {
                let mut later = steps.iter().skip_while(|step| !matches!(step, Step::Detach(_)));
                if later.any(|step| matches!(step, Step::Attach { .. })) {
                    api.violate(format!("{} detaches {name} before it attaches it: {steps:?}", self.name));
                }
            }
            // What is suspended is detached. An earlier BpfProgram of the name goes first.
            Some(_) => {}
        }
    }
}

impl Node for SimNode {
    fn bpffs(&self) -> Result<Bpffs, ObserveError> {
        self.kernel.bpffs()
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        self.kernel.homes()
    }

    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError> {
        self.kernel.trials()
    }

    fn node_context(&self, needs: RequiredInputs) -> Result<NodeContext, SysError> {
        self.kernel.node_context(needs)
    }

    fn pod_cgroups(&self, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
        self.kernel.pod_cgroups(containers)
    }

    fn pod_directories(&self, containers: bool) -> Result<Vec<PathBuf>, SysError> {
        self.kernel.pod_directories(containers)
    }

    fn is_populated(&self, path: &str) -> Result<bool, SysError> {
        self.kernel.is_populated(path)
    }

    fn locate(&mut self, pods: &BTreeSet<&str>, containers: &BTreeSet<&str>) -> Result<Located, SysError> {
        self.kernel.locate(pods, containers)
    }

    fn pod_elsewhere(&self, pods: &str) -> Result<Option<String>, SysError> {
        self.kernel.pod_elsewhere(pods)
    }

    fn observe(&mut self, name: &str) -> Result<Observed, SysError> {
        self.kernel.observe(name)
    }

    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        self.kernel.attached(path, attach_type)
    }

    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        self.kernel.attached_to_map(name, pin, attach_type)
    }

    fn foreign_program(&self, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)> {
        self.kernel.foreign_program(path, attach_type, ours)
    }

    fn drain(&mut self) -> Result<Vec<DrainingMap>, SysError> {
        self.kernel.drain()
    }

    fn directories(&self, name: &str, observed: &Observed) -> Vec<PathBuf> {
        self.kernel.directories(name, observed)
    }

    fn cgroups(&self, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        self.kernel.cgroups(paths)
    }

    fn sync_entries(
        &mut self,
        name: &str,
        maps: &ListedMaps,
        task: EntriesTask,
    ) -> Result<Vec<EntriesOutcome>, Failure> {
        self.kernel.sync_entries(name, maps, task)
    }

    fn descriptors(&self, name: &str) -> Descriptors {
        self.kernel.descriptors(name)
    }

    fn execute(
        &mut self,
        name: &str,
        before: &Observed,
        execution: &Execution<'_>,
    ) -> Result<(Executed, Observed), Failure> {
        let mut steps = execution.steps.to_vec();
        if self.shared.lock().fault == Some(Fault::DetachesFirst) {
            steps.sort_by_key(|step| !matches!(step, Step::Detach(_)));
        }
        self.check(name, before, execution, &steps);
        if self.is_load_refused(&steps) {
            return Err(Failure::new(Reason::LoadFailed, "the kernel is out of memory"));
        }
        self.kernel.execute(name, before, execution)
    }
}
