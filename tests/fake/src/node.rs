//! [`FakeNode`]: a node of values, on which the agent's own code runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use sockeye_agent::{
    kernel::SysError,
    model::{
        draining_map::DrainingMap,
        entries::{EntryCounts, ListedMap, ListedMaps},
        kernel::{Cgroup, Machine, MapInfo, MissingFeatures},
        node_context::NodeContext,
        observed::{Observed, ObservedMap},
        pods::{PodCgroup, Pods, RequiredInputs},
        regressions::Regressions,
        trial::Trial,
    },
    node::{
        self, Node,
        entry_sync::{EntriesOutcome, EntriesTask},
        execute::{Executed, Execution},
        failure::Failure,
        handles::Descriptors,
        observe::{Bpffs, Located, ObserveError, Query},
    },
    plan::Step,
};
use sockeye_crds::program::MapRef;

use crate::{Fake, Ids};

/// A node on which every cgroup path exists and the kernel refuses nothing. Clones are the same node.
#[derive(Clone, Debug, Default)]
pub struct FakeNode(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ids: Ids,
    programs: BTreeMap<String, Fake>,
    pods: BTreeMap<String, PodCgroup>,
    /// The cgroups without processes, by path.
    empty: BTreeSet<String>,
    /// The cgroups of pods and containers that only a search finds, by UID or ID.
    elsewhere: BTreeMap<String, String>,
    /// The number of searches.
    searches: usize,
    /// The numbers of observations, and of comparisons of entries.
    observations: usize,
    comparisons: usize,
    /// Another file system is where bpffs should be.
    lacks_bpffs: bool,
    /// An API server says what the node is to run.
    has_api: bool,
}

impl FakeNode {
    /// Takes the bpffs away.
    pub fn unmount_bpffs(&self) {
        self.node().lacks_bpffs = true;
    }

    /// Makes it the node of a cluster, on which programs that can deny something are on trial.
    pub fn join_cluster(&self) {
        self.node().has_api = true;
    }

    /// Makes a pod's cgroup.
    pub fn make_pod(&self, uid: &str) {
        let cgroup = PodCgroup { path: format!("/kubepods/pod{uid}"), containers: BTreeMap::new() };
        self.node().pods.insert(uid.to_owned(), cgroup);
    }

    /// Makes the cgroup of a container in a pod; returns its path.
    pub fn make_container(&self, uid: &str, id: &str) -> String {
        let mut node = self.node();
        let pod = node.pods.get_mut(uid).unwrap();
        let path = format!("{}/{id}", pod.path);
        pod.containers.insert(id.to_owned(), path.clone());
        path
    }

    /// Makes the cgroup of all pods empty, or takes that back.
    pub fn set_all_pods_empty(&self, is_empty: bool) {
        let path = "/kubepods".to_owned();
        let mut node = self.node();
        let _ = if is_empty { node.empty.insert(path) } else { node.empty.remove(&path) };
    }

    /// Makes the cgroup of a pod empty: its containers are elsewhere.
    pub fn empty_pod(&self, uid: &str) {
        let mut node = self.node();
        let path = node.pods[uid].path.clone();
        node.empty.insert(path);
    }

    /// Makes the cgroup of a pod or a container where only a search finds it.
    pub fn make_elsewhere(&self, id: &str, path: &str) {
        self.node().elsewhere.insert(id.to_owned(), path.to_owned());
    }

    /// Returns the number of searches so far.
    pub fn searches(&self) -> usize {
        self.node().searches
    }

    /// Puts so many sockets into a BpfProgram's map.
    pub fn set_sockets(&self, name: &str, pin: &str, sockets: u32) {
        self.node().programs.get_mut(name).unwrap().observed.maps.get_mut(pin).unwrap().sockets = Some(sockets);
    }

    /// Returns the number of observations so far, and that of comparisons of entries with maps.
    pub fn looks(&self) -> (usize, usize) {
        let node = self.node();
        (node.observations, node.comparisons)
    }

    /// Removes the pins of a BpfProgram's programs, as anybody may.
    pub fn unpin(&self, name: &str) {
        let mut node = self.node();
        let functions = node.programs.get_mut(name).unwrap().observed.functions.values_mut();
        functions.for_each(|function| function.pinned = false);
    }

    /// Returns whether all programs of a BpfProgram are pinned.
    pub fn is_pinned(&self, name: &str) -> bool {
        self.node().programs[name].observed.functions.values().all(|function| function.pinned)
    }

    fn node(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Node for FakeNode {
    fn bpffs(&self) -> Result<Bpffs, ObserveError> {
        match self.node().lacks_bpffs {
            true => Err(ObserveError::NotBpffs("/sys/fs/bpf".to_owned())),
            false => Ok(Bpffs { device: 1, suspended: None }),
        }
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        Ok(self.node().programs.keys().cloned().collect())
    }

    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError> {
        let node = self.node();
        let trials = node.programs.iter().filter_map(|(name, fake)| Some((name.clone(), fake.observed.trial.clone()?)));
        Ok(trials.collect())
    }

    fn node_context(&self, _: RequiredInputs) -> Result<NodeContext, SysError> {
        let machine = Machine { page: 4096, cpus: 2 };
        Ok(NodeContext {
            machine,
            features: node::features(),
            // A fake knows nothing of other BpfPrograms, so there is no order among them.
            missing_features: MissingFeatures { order: true, ..MissingFeatures::default() },
            regressions: Regressions::default(),
            pods_root: "/kubepods".to_owned(),
            pods: Pods::default(),
            has_api: self.node().has_api,
        })
    }

    fn pod_cgroups(&self, _: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
        Ok(self.node().pods.clone())
    }

    fn pod_directories(&self, _: bool) -> Result<Vec<PathBuf>, SysError> {
        Ok(Vec::new())
    }

    fn is_populated(&self, path: &str) -> Result<bool, SysError> {
        Ok(!self.node().empty.contains(path))
    }

    fn locate(&mut self, pods: &BTreeSet<&str>, containers: &BTreeSet<&str>) -> Result<Located, SysError> {
        let mut node = self.node();
        node.searches += 1;
        let of = |wanted: &BTreeSet<&str>| {
            let found = node.elsewhere.iter().filter(|(id, _)| wanted.contains(id.as_str()));
            found.map(|(id, path)| (id.clone(), path.clone())).collect()
        };
        Ok(Located { pods: of(pods), containers: of(containers) })
    }

    fn pod_elsewhere(&self, _: &str) -> Result<Option<String>, SysError> {
        let mut node = self.node();
        node.searches += 1;
        Ok(node.elsewhere.values().next().cloned())
    }

    fn observe(&mut self, name: &str) -> Result<Observed, SysError> {
        let mut node = self.node();
        node.observations += 1;
        Ok(node.programs.get(name).map(|fake| fake.observed.clone()).unwrap_or_default())
    }

    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        let node = self.node();
        let links = node.programs.values().flat_map(|fake| fake.observed.links.values());
        let links =
            links.filter(|l| l.path.as_deref() == Some(path) && l.info.attach_type == attach_type && l.in_effect);
        Ok(Some(Query { target: inode(path), programs: links.map(|link| link.info.program_id).collect() }))
    }

    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        let node = self.node();
        let Some(Fake { observed, .. }) = node.programs.get(name) else { return Ok(None) };
        let Some(map) = observed.maps.get(pin) else { return Ok(None) };
        let links = observed.links.iter().filter(|(key, link)| key.map() == Some(pin) && link.in_effect);
        let links = links.filter(|(_, link)| link.info.attach_type == attach_type);
        let programs = links.map(|(_, link)| link.info.program_id).collect();
        Ok(Some(Query { target: map.info.id.into(), programs }))
    }

    fn foreign_program(&self, _: &str, _: u32, _: &BTreeSet<u32>) -> Option<(String, u32)> {
        None
    }

    fn drain(&mut self) -> Result<Vec<DrainingMap>, SysError> {
        Ok(Vec::new())
    }

    fn directories(&self, _: &str, _: &Observed) -> Vec<PathBuf> {
        Vec::new()
    }

    fn cgroups(&self, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, Cgroup>, SysError> {
        let cgroup = |path: &&str| ((*path).to_owned(), Cgroup { id: inode(path), path: (*path).to_owned() });
        Ok(paths.iter().map(cgroup).collect())
    }

    /// A fake's maps hold what the spec lists.
    fn sync_entries(
        &mut self,
        name: &str,
        maps: &ListedMaps,
        task: EntriesTask,
    ) -> Result<Vec<EntriesOutcome>, Failure> {
        let mut node = self.node();
        node.comparisons += 1;
        let Some(fake) = node.programs.get_mut(name) else { return Ok(Vec::new()) };
        let pinned = maps.iter().filter(|(_, map)| fake.observed.maps.contains_key(&map.pin));
        let outcome = |(name, map): (&String, &ListedMap)| {
            let listed = map.entries.len();
            let now = EntryCounts { sync: map.sync, listed, in_place: listed, stale: 0 };
            EntriesOutcome { map: name.clone(), before: now, now, example: None }
        };
        let outcomes = pinned.clone().map(outcome).collect();
        if task == EntriesTask::Apply {
            let synced = pinned.filter(|(_, map)| map.sync).map(|(_, map)| map.pin.clone());
            let synced: Vec<String> = synced.collect();
            fake.observed.recorded.extend(synced);
        }
        Ok(outcomes)
    }

    fn descriptors(&self, _: &str) -> Descriptors {
        Descriptors::default()
    }

    fn execute(
        &mut self,
        name: &str,
        _: &Observed,
        execution: &Execution<'_>,
    ) -> Result<(Executed, Observed), Failure> {
        let mut node = self.node();
        let State { ids, programs, .. } = &mut *node;
        let shares = |step: &Step| match step {
            Step::Load { shared, .. } => !shared.is_empty(),
            step => matches!(step, Step::BorrowMap { .. }),
        };
        let others = if execution.steps.iter().any(shares) { maps(programs) } else { BTreeMap::new() };
        let fake = programs.entry(name.to_owned()).or_default();
        fake.others = others;
        fake.execute(ids, execution.desired, execution.steps);
        let observed = fake.observed.clone();
        programs.retain(|_, fake| !fake.observed.is_empty());
        Ok((Executed::default(), observed))
    }
}

/// Returns the maps that BpfPrograms can share.
fn maps(programs: &BTreeMap<String, Fake>) -> BTreeMap<MapRef, MapInfo> {
    let of = |(program, fake): (&String, &Fake)| {
        let map = |(pin, map): (&String, &ObservedMap)| {
            (MapRef { program: program.clone(), name: pin.clone() }, map.info.clone())
        };
        fake.observed.maps.iter().map(map).collect::<Vec<_>>()
    };
    programs.iter().flat_map(of).collect()
}

/// Returns an inode number, the same for the same path.
fn inode(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish() >> 32
}
