//! A node's kernel and bpffs as values. [`Fake`] is what one BpfProgram has there, for the property tests of plans;
//! [`FakeNode`] is a [`Host`], so that the agent's own code runs over it, thousands of times on one machine.
//!
//! Steps are taken as the interpreter takes them, and a step that can't be taken is a defect of the plan: it panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use sockeye_agent::{
    execute::Executed,
    failure::Failure,
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey, Site},
    host::{self, Host, Order},
    kernel::{
        SysError,
        cgroup::Cgroup,
        facts::Machine,
        info::{LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, LinkInfo, MapInfo, ProgramInfo},
        probe::Lacking,
    },
    layout::Trial,
    observe::{Bpffs, ObserveError, Query},
    plan::Step,
    pods::{Needs, PodCgroup, Pods},
    shape::Shape,
    wanted::{Here, Wanted},
};
use sockeye_crds::{names::pin_name, program::MapRef};
use sockeye_ebpf::kinds::section::exclude_each_other;

/// The kernel's counter of IDs. It has one for each kind of object; one for all tells more mix-ups.
#[derive(Debug, Default)]
pub struct Ids(u32);

impl Ids {
    fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }
}

/// What one BpfProgram has on a node.
#[derive(Debug, Default)]
pub struct Fake {
    /// As an observation gives it.
    pub held: Held,
    /// Other BpfPrograms' maps.
    pub others: BTreeMap<MapRef, MapInfo>,
    /// Whether the kernel has no links for maps.
    pub unlinked: bool,
}

impl Fake {
    /// Takes the steps, in order.
    pub fn execute(&mut self, ids: &mut Ids, wanted: Option<&Wanted>, steps: &[Step]) {
        let mut loaded = false;
        for step in steps {
            self.step(ids, wanted, step, &mut loaded);
        }
    }

    fn step(&mut self, ids: &mut Ids, wanted: Option<&Wanted>, step: &Step, loaded: &mut bool) {
        let Self { held, others, unlinked } = self;
        match step {
            Step::RemoveStray => assert!(std::mem::take(&mut held.stray)),
            Step::Claim { uid } => held.uid = Some(uid.clone()),
            Step::Load { reuse, shared } => {
                assert!(reuse.iter().all(|pin| held.maps[pin].pinned), "reuses only what is there");
                assert!(shared.values().all(|from| others.contains_key(from)), "shares only what is there");
                *loaded = true;
            }
            Step::Retain(pin) => assert!(held.retained.insert(pin.clone())),
            Step::Release(pin) => assert!(held.retained.remove(pin)),
            Step::PinMap(name) => {
                assert!(*loaded, "nothing is pinned before the load");
                let Shape { map_type, key_size, value_size, max_entries, flags } = wanted.unwrap().maps[name].shape;
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
                held.maps.insert(pin_name(name), HeldMap { info, pinned: true, from: None });
                leaves(held, &pin_name(name));
            }
            Step::ShareMap { name, from } => {
                assert!(*loaded, "nothing is pinned before the load");
                let (info, from) = (others[from].clone(), Some(from.clone()));
                held.maps.insert(pin_name(name), HeldMap { info, pinned: true, from });
                leaves(held, &pin_name(name));
            }
            Step::PinProgram(function) => {
                assert!(*loaded, "nothing is pinned before the load");
                let wanted = wanted.unwrap();
                let info = ProgramInfo {
                    id: ids.next(),
                    prog_type: wanted.functions[function].kind.prog_type,
                    kernel_name: function.chars().take(15).collect(),
                    tag: "f3a3583cdd82ae8d".to_owned(),
                    gpl_compatible: true,
                    loaded_at: "2026-01-01T00:00:00Z".to_owned(),
                    xlated_bytes: 144,
                    jited_bytes: 100,
                    memlock_bytes: 4096,
                    map_ids: held.maps.values().map(|map| map.info.id).collect(),
                    ..ProgramInfo::default()
                };
                let load_key = Some(wanted.load_key.clone());
                held.functions.insert(function.clone(), HeldFunction { info, load_key, pinned: true });
            }
            Step::Attach { function, site, before: _ } => {
                let program_id = held.functions[function].info.id;
                let attach_type = wanted.unwrap().functions[function].kind.attach_type;
                let info = LinkInfo { program_id, attach_type, ..LinkInfo::default() };
                let (info, path) = match site {
                    Site::Cgroup(Cgroup { id, path }) => {
                        let info = LinkInfo { id: ids.next(), link_type: LINK_TYPE_CGROUP, cgroup_id: *id, ..info };
                        (info, Some(path.clone()))
                    }
                    Site::Map(pin) => {
                        let (id, link_type) = if *unlinked { (0, 0) } else { (ids.next(), LINK_TYPE_SOCKMAP) };
                        (LinkInfo { id, link_type, map_id: held.maps[pin].info.id, ..info }, None)
                    }
                };
                let key = LinkKey::to(function, site);
                for (other, link) in held.links.iter().filter(|(_, link)| link.in_effect) {
                    let excluded = key.map().is_some()
                        && other.map() == key.map()
                        && exclude_each_other(link.info.attach_type, attach_type);
                    assert!(!excluded, "a map runs one program of a kind: {other:?}");
                }
                let link = HeldLink { info, path, in_effect: true, believed: false, pinned: true };
                let before = held.links.insert(key, link);
                let replaced = |before: &HeldLink| !before.in_effect || before.info.attach_type != attach_type;
                assert!(before.is_none_or(|before| replaced(&before)), "a place has one link");
            }
            Step::Update(key) => {
                let link = held.links.get_mut(key).unwrap();
                assert!(link.in_effect, "what is dead runs nothing");
                link.info.program_id = held.functions[&key.function].info.id;
            }
            Step::Move { key, .. } => {
                let link = held.links.get_mut(key).unwrap();
                assert!(link.in_effect, "what is dead is nowhere");
                link.info.id = ids.next();
            }
            Step::SetRevision(revision) => {
                held.revision.clone_from(revision);
                held.trial = held.trial.take().filter(|_| revision.is_some());
            }
            Step::SetTrial(trial) => held.trial = Some(trial.clone()),
            Step::Restore(_) => unreachable!("a fake has nothing to go back to"),
            Step::ForgetLoad(function) => {
                let known = held.functions.get_mut(function).unwrap().load_key.take();
                assert!(known.is_some(), "what is not known is not forgotten");
            }
            Step::RepinProgram(function) => pin_again(&mut held.functions.get_mut(function).unwrap().pinned),
            Step::RepinMap(pin) => pin_again(&mut held.maps.get_mut(pin).unwrap().pinned),
            Step::RepinLink(key) => pin_again(&mut held.links.get_mut(key).unwrap().pinned),
            Step::Detach(key) => drop(held.links.remove(key).expect("a link to detach")),
            Step::UnpinProgram(function) => drop(held.functions.remove(function).expect("a program to unpin")),
            Step::UnpinMap(pin) => {
                assert!(!held.links.keys().any(|key| key.map() == Some(pin)), "what is attached to it goes first");
                drop(held.maps.remove(pin).expect("a map to unpin"));
            }
            Step::Leave => {
                assert!(held.functions.is_empty() && held.maps.is_empty() && held.links.is_empty());
                *held = Held::default();
            }
        }
    }
}

/// What was attached to a map is not attached to the one that is pinned in its place.
fn leaves(held: &mut Held, pin: &str) {
    for (_, link) in held.links.iter_mut().filter(|(key, _)| key.map() == Some(pin)) {
        link.in_effect = false;
    }
}

fn pin_again(pinned: &mut bool) {
    assert!(!std::mem::replace(pinned, true), "what is pinned is not pinned again");
}

/// A node whose every cgroup path exists and whose kernel refuses nothing; clones are the same node.
#[derive(Clone, Debug, Default)]
pub struct FakeNode(Arc<Mutex<Node>>);

#[derive(Debug, Default)]
struct Node {
    ids: Ids,
    programs: BTreeMap<String, Fake>,
    pods: BTreeMap<String, PodCgroup>,
}

impl FakeNode {
    /// Makes a pod's cgroup.
    pub fn make_pod(&self, uid: &str) {
        let cgroup = PodCgroup { path: format!("/kubepods/pod{uid}"), containers: BTreeMap::new() };
        self.node().pods.insert(uid.to_owned(), cgroup);
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        self.0.lock().unwrap()
    }
}

impl Host for FakeNode {
    fn bpffs(&self) -> Result<Bpffs, ObserveError> {
        Ok(Bpffs { device: 1, suspended: None })
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        Ok(self.node().programs.keys().cloned().collect())
    }

    fn trials(&self) -> Result<BTreeMap<String, Trial>, ObserveError> {
        let node = self.node();
        let trials = node.programs.iter().filter_map(|(name, fake)| Some((name.clone(), fake.held.trial.clone()?)));
        Ok(trials.collect())
    }

    fn here(&self, _: Needs) -> Result<Here, SysError> {
        let machine = Machine { page: 4096, cpus: 2 };
        Ok(Here {
            machine,
            features: host::features(),
            // Places among others are BpfPrograms' own business here: none knows of the others.
            lacking: Lacking { order: true, ..Lacking::default() },
            pods_root: "/kubepods".to_owned(),
            pods: Pods::default(),
            has_api: false,
        })
    }

    fn pod_cgroups(&self, _: bool) -> Result<BTreeMap<String, PodCgroup>, SysError> {
        Ok(self.node().pods.clone())
    }

    fn pod_directories(&self, _: bool) -> Result<Vec<PathBuf>, SysError> {
        Ok(Vec::new())
    }

    fn observe(&mut self, name: &str) -> Result<Held, SysError> {
        Ok(self.node().programs.get(name).map(|fake| fake.held.clone()).unwrap_or_default())
    }

    fn attached(&self, path: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        let node = self.node();
        let links = node.programs.values().flat_map(|fake| fake.held.links.values());
        let here =
            links.filter(|l| l.path.as_deref() == Some(path) && l.info.attach_type == attach_type && l.in_effect);
        Ok(Some(Query { target: inode(path), programs: here.map(|link| link.info.program_id).collect() }))
    }

    fn attached_to_map(&self, name: &str, pin: &str, attach_type: u32) -> Result<Option<Query>, SysError> {
        let node = self.node();
        let Some(Fake { held, .. }) = node.programs.get(name) else { return Ok(None) };
        let Some(map) = held.maps.get(pin) else { return Ok(None) };
        let here = held.links.iter().filter(|(key, link)| key.map() == Some(pin) && link.in_effect);
        let here = here.filter(|(_, link)| link.info.attach_type == attach_type);
        let programs = here.map(|(_, link)| link.info.program_id).collect();
        Ok(Some(Query { target: map.info.id.into(), programs }))
    }

    fn stranger(&self, _: &str, _: u32, _: &BTreeSet<u32>) -> Option<(String, u32)> {
        None
    }

    fn directories(&self, _: &str, _: &Held) -> Vec<PathBuf> {
        Vec::new()
    }

    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
        let cgroup = |path: &str| (path.to_owned(), Cgroup { id: inode(path), path: path.to_owned() });
        Ok(wanted.paths().into_iter().map(cgroup).collect())
    }

    fn execute(&mut self, name: &str, _: &Held, order: &Order<'_>) -> Result<(Executed, Held), Failure> {
        let mut node = self.node();
        let Node { ids, programs, pods: _ } = &mut *node;
        let shares = |step: &Step| matches!(step, Step::Load { shared, .. } if !shared.is_empty());
        let others = if order.steps.iter().any(shares) { maps(programs) } else { BTreeMap::new() };
        let fake = programs.entry(name.to_owned()).or_default();
        fake.others = others;
        fake.execute(ids, order.wanted, order.steps);
        let held = fake.held.clone();
        programs.retain(|_, fake| !fake.held.is_empty());
        Ok((Executed::default(), held))
    }
}

/// What BpfPrograms can share.
fn maps(programs: &BTreeMap<String, Fake>) -> BTreeMap<MapRef, MapInfo> {
    let of = |(program, fake): (&String, &Fake)| {
        let map =
            |(pin, map): (&String, &HeldMap)| (MapRef { program: program.clone(), map: pin.clone() }, map.info.clone());
        fake.held.maps.iter().map(map).collect::<Vec<_>>()
    };
    programs.iter().flat_map(of).collect()
}

/// The same for the same path.
fn inode(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish() >> 32
}
