//! `KernelNode`: the node that the agent runs on.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use sockeye_crds::revision::Feature;

use super::{
    Node, directory, draining,
    entry_sync::{EntriesOutcome, EntriesTask, EntrySync},
    execute::{Executed, Execution, Executor},
    failure::Failure,
    handles::{Descriptors, Handles},
    kubelet,
    layout::Layout,
    observe::{self, Bpffs, ExecutedPlan, Located, ObserveError, Query, QueryCache},
};
use crate::{
    kernel::{SysError, cgroup::Root, regressions},
    model::{
        draining_map::DrainingMap,
        entries::ListedMaps,
        kernel::{Cgroup, Machine, MissingFeatures},
        node_context::NodeContext,
        observed::Observed,
        pods::{PodCgroup, Pods, RequiredInputs},
        regressions::Regressions,
        trial::Trial,
    },
};

/// Cgroups of runtimes that are watched, at most: there is one, or two.
const MAX_RUNTIMES: usize = 8;

/// The node that the agent runs on.
pub struct KernelNode {
    layout: Layout,
    root: Root,
    kubelet_root: String,
    /// The path of the cgroup of all pods where a search found it, if that is not where the kubelet's root says.
    found_pods_root: Option<String>,
    /// The paths of the cgroups in which a search found containers outside of their pods' cgroups.
    runtimes: BTreeSet<String>,
    properties: NodeProperties,
    regressions: RefCell<Regressions>,
    handles: BTreeMap<String, Handles>,
    /// Cleared when a pass begins, at each poll, and after each plan.
    queries: QueryCache,
}

/// The properties of a node and its agent that do not change while the agent runs.
#[derive(Clone, Debug)]
pub struct NodeProperties {
    /// The page size and the CPUs, which determine the memory of maps.
    pub machine: Machine,
    /// The features that the kernel lacks.
    pub missing_features: MissingFeatures,
    /// The known regressions that the kernel has, as probed at start.
    pub regressions: Regressions,
    /// Whether there is an API server that the agent must be able to reach.
    pub has_api: bool,
}

impl KernelNode {
    /// The node with its pins at `layout`, its cgroups below `root`, and the kubelet's cgroups at the path
    /// `kubelet_root` below that.
    pub fn new(layout: Layout, root: Root, kubelet_root: String, properties: NodeProperties) -> Self {
        let regressions = RefCell::new(properties.regressions.clone());
        Self {
            layout,
            root,
            kubelet_root,
            found_pods_root: None,
            runtimes: BTreeSet::new(),
            queries: QueryCache::default(),
            properties,
            regressions,
            handles: BTreeMap::new(),
        }
    }

    /// The known regressions of the kernel. Those that could not be probed are probed again.
    fn regressions(&self) -> Regressions {
        let mut known = self.regressions.borrow_mut();
        if !known.unknown.is_empty() {
            *known = regressions::ask();
        }
        known.clone()
    }

    /// The path of the cgroup of all pods.
    fn pods_root(&self) -> Result<String, SysError> {
        match self.found_pods_root.as_ref().filter(|path| self.root.cgroup(path).is_ok()) {
            Some(found) => Ok(found.clone()),
            None => observe::pods_root(&self.root, &self.kubelet_root),
        }
    }

    /// Records a pod's cgroup that a search found: where all pods of this node are is known by it, if nothing says so
    /// already.
    fn learn_pods_root(&mut self, pod: &str) -> Result<(), SysError> {
        let known = self.pods_root()?;
        let Some(pods) = kubelet::pods_cgroup_of(pod).filter(|pods| *pods != known) else { return Ok(()) };
        if observe::pod_cgroups(&self.root, &known, false)?.is_empty() {
            tracing::warn!(pods, "the kubelet's cgroups were found here, not below the kubelet's cgroup root as given");
            self.found_pods_root = Some(pods.to_owned());
        }
        Ok(())
    }

    /// Records a container's cgroup that a search found: where the runtime puts those of others is known by it.
    fn learn_runtime(&mut self, container: &str) {
        let Some((parent, name)) = container.rsplit_once('/') else { return };
        if kubelet::outside_container(name).is_some() && self.runtimes.len() < MAX_RUNTIMES {
            self.runtimes.insert(parent.to_owned());
        }
    }

    /// Does some work with the descriptors of a home, and forgets the home if none are left.
    fn with_handles<T>(&mut self, name: &str, work: impl FnOnce(&Self, &mut Handles) -> T) -> T {
        let mut handles = self.handles.remove(name).unwrap_or_default();
        let result = work(self, &mut handles);
        if !handles.is_empty() {
            self.handles.insert(name.to_owned(), handles);
        }
        result
    }
}

impl Node for KernelNode {
    fn bpffs(&self) -> Result<Bpffs, ObserveError> {
        self.queries.clear();
        match observe::bpffs(&self.layout) {
            // What this agent holds it has pinned itself, or found with the note: someone removed the note.
            Err(ObserveError::OlderLayout { homes, .. })
                if homes.iter().any(|home| self.handles.contains_key(home)) =>
            {
                tracing::warn!("the note of the pins' layout was removed: it is written again");
                directory::mark(&observe::open_bpffs(&self.layout)?.1)?;
                observe::bpffs(&self.layout)
            }
            found => found,
        }
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        observe::homes(&self.layout)
    }

    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError> {
        observe::trials(&self.layout)
    }

    fn node_context(&self, needs: RequiredInputs) -> Result<NodeContext, SysError> {
        let pods_root = if needs.root { self.pods_root()? } else { String::new() };
        let NodeProperties { machine, missing_features, regressions: _, has_api } = &self.properties;
        let (machine, missing_features, has_api) = (*machine, missing_features.clone(), *has_api);
        let (features, regressions, pods) = (features(), self.regressions(), Pods::default());
        Ok(NodeContext { machine, features, missing_features, regressions, pods_root, pods, has_api })
    }

    fn pod_cgroups(&self, containers: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
        let mut found = observe::pod_cgroups(&self.root, &self.pods_root()?, containers)?;
        observe::add_outside(&self.root, &self.runtimes, &mut found)?;
        Ok(found)
    }

    fn pod_directories(&self, containers: bool) -> Result<Vec<PathBuf>, SysError> {
        let mut directories = observe::pod_directories(&self.root, &self.pods_root()?, containers)?;
        directories.extend(self.runtimes.iter().map(|path| self.root.join(path)));
        Ok(directories)
    }

    fn is_populated(&self, path: &str) -> Result<bool, SysError> {
        self.root.is_populated(path)
    }

    fn locate(&mut self, pods: &BTreeSet<&str>, containers: &BTreeSet<&str>) -> Result<Located, SysError> {
        let located = observe::locate(&self.root, pods, containers)?;
        located.pods.values().try_for_each(|pod| self.learn_pods_root(pod))?;
        located.containers.values().for_each(|container| self.learn_runtime(container));
        Ok(located)
    }

    fn pod_elsewhere(&self, pods: &str) -> Result<Option<String>, SysError> {
        observe::pod_elsewhere(&self.root, pods)
    }

    fn observe(&mut self, name: &str) -> Result<Observed, SysError> {
        self.with_handles(name, |node, handles| {
            observe::home(&node.layout.home(name), &node.root, &node.queries, handles)
        })
    }

    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        observe::attached(&self.root, path, attach_type)
    }

    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        observe::attached_to_map(&self.layout.home(name), pin, attach_type)
    }

    fn foreign_program(&self, path: &str, attach_type: u32, ours: &BTreeSet<u32>) -> Option<(String, u32)> {
        observe::foreign_program(&self.root, path, attach_type, ours)
    }

    fn drain(&mut self) -> Result<Vec<DrainingMap>, SysError> {
        draining::look(&self.layout)
    }

    fn directories(&self, name: &str, observed: &Observed) -> Vec<PathBuf> {
        observe::directories(&self.layout.home(name), observed)
    }

    fn cgroups(&self, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        observe::cgroups(&self.root, paths)
    }

    fn sync_entries(
        &mut self,
        name: &str,
        maps: &ListedMaps,
        task: EntriesTask,
    ) -> Result<Vec<EntriesOutcome>, Failure> {
        let machine = self.properties.machine;
        self.with_handles(name, |node, handles| {
            EntrySync::open(&node.layout.home(name), &node.root, machine, handles)?.sync(maps, task)
        })
    }

    fn cgroup_root(&self) -> Option<Root> {
        Some(self.root.clone())
    }

    fn descriptors(&self, name: &str) -> Descriptors {
        self.handles.get(name).map(Handles::descriptors).unwrap_or_default()
    }

    fn execute(
        &mut self,
        name: &str,
        before: &Observed,
        execution: &Execution<'_>,
    ) -> Result<(Executed, Observed), Failure> {
        self.with_handles(name, |node, handles| {
            let home = node.layout.home(name);
            let executor = Executor::new(&home, &node.root, execution)?;
            let outcome = executor.execute(handles);
            node.queries.clear();
            let (executed, pinned) = outcome?;
            let observed = match executed.left {
                None => {
                    let plan = ExecutedPlan { before, steps: execution.steps, pinned };
                    observe::after(executor.home(), plan, &node.queries, handles)?
                }
                Some(_) => observe::home(&home, &node.root, &node.queries, handles)?,
            };
            Ok((executed, observed))
        })
    }
}

/// The features that a revision may require and this agent knows.
pub fn features() -> Vec<String> {
    // Tests of version skew build an agent that pretends to be older.
    let known = if cfg!(feature = "older") { &[][..] } else { &Feature::ALL[..] };
    known.iter().map(|feature| feature.as_str()).collect()
}
