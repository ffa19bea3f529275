//! Fakes of a node's kernel and bpffs, as values.
//!
//! [`Fake`] holds the state of one BpfProgram, for the property tests of plans. [`FakeNode`] is a [`Node`] on which the
//! agent's own code runs, thousands of times on one machine. [`settle`] steps a controller until nothing is left to do.
//!
//! A fake executes steps as the interpreter does. A step that can't be executed is a defect of the plan, and panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;
use sockeye_agent::{
    control::{
        Controller,
        controller::Settings,
        event::{Effect, Event},
    },
    kernel::SysError,
    model::{
        desired::Desired,
        draining_map::{DrainingMap, SocketFate},
        kernel::{
            Cgroup, LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, LinkInfo, Machine, MapInfo, MissingFeatures, ProgramInfo,
        },
        map_shape::MapShape,
        node_context::NodeContext,
        observed::{AttachSite, LinkKey, Observed, ObservedKeptPod, ObservedLink, ObservedMap, ObservedProgram},
        pods::{PodCgroup, Pods, RequiredInputs},
        regressions::Regressions,
        trial::Trial,
    },
    node::{
        self, Node,
        execute::{Executed, Execution},
        failure::Failure,
        layout::Layout,
        observe::{Bpffs, ObserveError, Query},
    },
    plan::{Step, quota::MapQuota},
};
use sockeye_crds::{names::pin_name, node::NodeFacts, program::MapRef};
use sockeye_ebpf::kinds::section::exclude_each_other;

/// A counter of IDs. The kernel has one for each kind of object; one for all kinds detects more mix-ups.
#[derive(Debug, Default)]
pub struct Ids(u32);

impl Ids {
    fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }
}

/// The state of one BpfProgram on a node.
#[derive(Debug, Default)]
pub struct Fake {
    /// The state as an observation returns it.
    pub observed: Observed,
    /// Other BpfPrograms' maps.
    pub others: BTreeMap<MapRef, MapInfo>,
    /// True if the kernel has no links for maps.
    pub unlinked: bool,
    /// The IDs of the maps that are kept for their sockets, and what becomes of these.
    pub kept: BTreeSet<(u32, SocketFate)>,
}

impl Fake {
    /// Executes the steps in order.
    pub fn execute(&mut self, ids: &mut Ids, desired: Option<&Desired>, steps: &[Step]) {
        let mut loaded = false;
        for step in steps {
            self.step(ids, desired, step, &mut loaded);
        }
    }

    fn step(&mut self, ids: &mut Ids, desired: Option<&Desired>, step: &Step, loaded: &mut bool) {
        let Self { observed, others, unlinked, kept } = self;
        match step {
            Step::RemoveStray => assert!(std::mem::take(&mut observed.stray)),
            Step::Claim { uid } => observed.uid = Some(uid.clone()),
            Step::Load { reuse, shared } => {
                assert!(reuse.iter().all(|pin| observed.maps[pin].pinned), "reuses only existing maps");
                assert!(shared.values().all(|from| others.contains_key(from)), "shares only existing maps");
                *loaded = true;
            }
            Step::Retain(pin) => assert!(observed.retained.insert(pin.clone())),
            Step::Release(pin) => assert!(observed.retained.remove(pin)),
            Step::PinMap(name) => {
                assert!(*loaded, "nothing is pinned before the load");
                let MapShape { map_type, key_size, value_size, max_entries, flags } = desired.unwrap().maps[name].shape;
                let info = MapInfo {
                    id: ids.next(),
                    map_type,
                    kernel_name: name.chars().take(15).collect(),
                    key_size,
                    value_size,
                    max_entries,
                    flags,
                    memlock_bytes: 4096,
                    ..MapInfo::default()
                };
                let lossless = info.holds_sockets() && !desired.unwrap().diverts();
                let map = ObservedMap { info, pinned: true, lossless, ..ObservedMap::default() };
                observed.maps.insert(pin_name(name), map);
                mark_links_dead(observed, &pin_name(name));
            }
            Step::ShareMap { name, from } => {
                assert!(*loaded, "nothing is pinned before the load");
                let (info, from) = (others[from].clone(), Some(from.clone()));
                let map = ObservedMap { info, pinned: true, from, ..ObservedMap::default() };
                observed.maps.insert(pin_name(name), map);
                mark_links_dead(observed, &pin_name(name));
            }
            Step::BorrowMap { pin, from } => {
                let (info, from) = (others[from].clone(), Some(from.clone()));
                assert!(info.holds_sockets(), "programs are attached to maps of sockets");
                observed.maps.insert(pin.clone(), ObservedMap { info, pinned: true, from, ..ObservedMap::default() });
                mark_links_dead(observed, pin);
            }
            Step::SetForceDetach(force) => {
                assert_ne!(std::mem::replace(&mut observed.force_detach, *force), *force, "a note is changed");
            }
            Step::NoteLossy(pin) => {
                // The load may have pinned another map there, which was never lossless.
                observed.maps.get_mut(pin).unwrap().lossless = false;
            }
            Step::TakeSocketsOut(pin) => {
                assert!(observed.links.is_empty(), "sockets are taken out once nothing is attached");
                let map = observed.maps.get_mut(pin).unwrap();
                assert!(map.sockets.replace(0).is_some_and(|sockets| sockets > 0), "there are sockets to take out");
            }
            Step::KeepForSockets { pin, fate } => {
                let map = &observed.maps[pin];
                // Where somebody removed its pin, the agent's descriptor is pinned.
                assert!(map.holds_sockets(), "a map is kept for sockets");
                kept.insert((map.info.id, *fate));
            }
            Step::PinProgram(function) => {
                assert!(*loaded, "nothing is pinned before the load");
                let desired = desired.unwrap();
                let info = ProgramInfo {
                    id: ids.next(),
                    prog_type: desired.functions[function].kind.prog_type,
                    kernel_name: function.chars().take(15).collect(),
                    tag: "f3a3583cdd82ae8d".to_owned(),
                    gpl_compatible: true,
                    load_time: "2026-01-01T00:00:00Z".to_owned(),
                    xlated_bytes: 144,
                    jited_bytes: 100,
                    memlock_bytes: 4096,
                    map_ids: observed.maps.values().map(|map| map.info.id).collect(),
                    ..ProgramInfo::default()
                };
                let load_key = Some(desired.load_key.clone());
                observed.functions.insert(function.clone(), ObservedProgram { info, load_key, pinned: true });
            }
            Step::Attach { function, site, before: _ } => {
                let program_id = observed.functions[function].info.id;
                let attach_type = desired.unwrap().functions[function].kind.attach_type;
                let info = LinkInfo { program_id, attach_type, ..LinkInfo::default() };
                let (info, path) = match site {
                    AttachSite::Cgroup(Cgroup { id, path }) => {
                        let info = LinkInfo { id: ids.next(), link_type: LINK_TYPE_CGROUP, cgroup_id: *id, ..info };
                        (info, Some(path.clone()))
                    }
                    AttachSite::Map(pin) => {
                        let (id, link_type) = if *unlinked { (0, 0) } else { (ids.next(), LINK_TYPE_SOCKMAP) };
                        (LinkInfo { id, link_type, map_id: observed.maps[pin].info.id, ..info }, None)
                    }
                };
                let key = LinkKey::to(function, site);
                for (other, link) in observed.links.iter().filter(|(_, link)| link.in_effect) {
                    let excluded = key.map().is_some()
                        && other.map() == key.map()
                        && exclude_each_other(link.info.attach_type, attach_type);
                    assert!(!excluded, "a map runs one program of a kind: {other:?}");
                }
                let link = ObservedLink { info, path, in_effect: true, believed: false, pinned: true };
                let before = observed.links.insert(key, link);
                let replaced = |before: &ObservedLink| !before.in_effect || before.info.attach_type != attach_type;
                assert!(before.is_none_or(|before| replaced(&before)), "a target has one link");
            }
            Step::Update(key) => {
                let link = observed.links.get_mut(key).unwrap();
                assert!(link.in_effect, "a dead link runs nothing");
                link.info.program_id = observed.functions[&key.function].info.id;
            }
            Step::Move { key, .. } => {
                let link = observed.links.get_mut(key).unwrap();
                assert!(link.in_effect, "a dead link has no position");
                link.info.id = ids.next();
            }
            Step::SetRevision(revision) => {
                observed.revision.clone_from(revision);
                observed.trial = observed.trial.take().filter(|_| revision.is_some());
            }
            Step::SetTrial(trial) => observed.trial = Some(trial.clone()),
            Step::Restore(_) => unreachable!("a fake keeps no replaced programs"),
            Step::ForgetLoad(function) => {
                let known = observed.functions.get_mut(function).unwrap().load_key.take();
                assert!(known.is_some(), "an unknown load is not forgotten");
            }
            Step::RepinProgram(function) => pin_again(&mut observed.functions.get_mut(function).unwrap().pinned),
            Step::RepinMap(pin) => pin_again(&mut observed.maps.get_mut(pin).unwrap().pinned),
            Step::RepinLink(key) => pin_again(&mut observed.links.get_mut(key).unwrap().pinned),
            Step::KeepPod { pod, path } => {
                let kept = ObservedKeptPod { path: path.clone(), noted: true };
                let before = observed.kept_pods.insert(pod.clone(), kept.clone());
                assert_ne!(before, Some(kept), "a noted pod is not noted again");
            }
            Step::ForgetPod(pod) => drop(observed.kept_pods.remove(pod).expect("a kept pod to forget")),
            Step::Detach(key) => drop(observed.links.remove(key).expect("a link to detach")),
            Step::UnpinProgram(function) => drop(observed.functions.remove(function).expect("a program to unpin")),
            Step::UnpinMap(pin) => {
                assert!(!observed.links.keys().any(|key| key.map() == Some(pin)), "its attachments are removed first");
                drop(observed.maps.remove(pin).expect("a map to unpin"));
            }
            Step::Leave => {
                assert!(observed.functions.is_empty() && observed.maps.is_empty() && observed.links.is_empty());
                assert!(observed.kept_pods.is_empty(), "no kept pod is remembered");
                *observed = Observed::default();
            }
        }
    }
}

/// Marks links to a map as not in effect after another map was pinned in its place.
fn mark_links_dead(observed: &mut Observed, pin: &str) {
    for (_, link) in observed.links.iter_mut().filter(|(key, _)| key.map() == Some(pin)) {
        link.in_effect = false;
    }
}

fn pin_again(pinned: &mut bool) {
    assert!(!std::mem::replace(pinned, true), "a pinned object is not pinned again");
}

/// A node on which every cgroup path exists and the kernel refuses nothing. Clones are the same node.
#[derive(Clone, Debug, Default)]
pub struct FakeNode(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ids: Ids,
    programs: BTreeMap<String, Fake>,
    pods: BTreeMap<String, PodCgroup>,
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

    /// Removes the pins of a BpfProgram's programs, as anybody may.
    pub fn unpin(&self, name: &str) {
        let mut node = self.node();
        let functions = node.programs.get_mut(name).unwrap().observed.functions.values_mut();
        functions.for_each(|function| function.pinned = false);
    }

    /// Reports whether all programs of a BpfProgram are pinned.
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

    fn observe(&mut self, name: &str) -> Result<Observed, SysError> {
        Ok(self.node().programs.get(name).map(|fake| fake.observed.clone()).unwrap_or_default())
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

/// Returns the settings of a fake node's controller.
pub fn settings() -> Settings {
    let bpffs = Path::new("/sys/fs/bpf");
    Settings {
        layout: Layout::new(bpffs, bpffs),
        quota: MapQuota::default(),
        facts: NodeFacts::default(),
        kernel_config: None,
        release_namespace: None,
        time_of_day: Timestamp::now,
    }
}

/// Steps a controller until there is nothing left to do, and returns all effects.
pub fn settle<N: Node>(controller: &mut Controller<N>, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let mut result = controller.step(Instant::now(), events);
    let mut effects = result.effects;
    while result.wake <= Instant::now() {
        result = controller.step(Instant::now(), []);
        effects.extend(result.effects);
    }
    effects
}
