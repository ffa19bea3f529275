//! A node's kernel and bpffs as values. [`Fake`] is what one BpfProgram has there, for the property tests of plans;
//! [`FakeNode`] is a [`Host`], so that the agent's own code runs over it, thousands of times on one machine.
//!
//! Steps are taken as the interpreter takes them, and a step that can't be taken is a defect of the plan: it panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard},
};

use sockeye_agent::{
    failure::Failure,
    held::{Held, HeldFunction, HeldLink, HeldMap, LinkKey, Names},
    host::{self, Host, Order},
    kernel::{
        SysError,
        cgroup::Cgroup,
        facts::Machine,
        info::{LINK_TYPE_CGROUP, LinkInfo, MapInfo, ProgramInfo},
        probe::Lacking,
    },
    observe::ObserveError,
    plan::Step,
    shape::Shape,
    wanted::{Here, Wanted},
};
use sockeye_crds::names::pin_name;

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
        let held = &mut self.held;
        match step {
            Step::RemoveStray => assert!(std::mem::take(&mut held.stray)),
            Step::Claim { uid } => held.uid = Some(uid.clone()),
            Step::Load { reuse } => {
                assert!(reuse.iter().all(|pin| held.maps.contains_key(pin)), "reuses only what is there");
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
                held.maps.insert(pin_name(name), HeldMap { info });
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
                held.functions.insert(function.clone(), HeldFunction { info, load_key });
            }
            Step::Attach { function, cgroup } => {
                let info = LinkInfo {
                    id: ids.next(),
                    link_type: LINK_TYPE_CGROUP,
                    program_id: held.functions[function].info.id,
                    cgroup_id: cgroup.id,
                    attach_type: wanted.unwrap().functions[function].kind.attach_type,
                };
                let key = LinkKey::at(function, cgroup);
                let link = HeldLink { info, path: Some(cgroup.path.clone()), in_effect: true };
                assert!(held.links.insert(key, link).is_none(), "a place has one link");
            }
            Step::Update(key) => {
                held.links.get_mut(key).unwrap().info.program_id = held.functions[&key.function].info.id;
            }
            Step::SetRevision(revision) => held.revision.clone_from(revision),
            Step::Detach(key) => drop(held.links.remove(key).expect("a link to detach")),
            Step::UnpinProgram(function) => drop(held.functions.remove(function).expect("a program to unpin")),
            Step::UnpinMap(pin) => drop(held.maps.remove(pin).expect("a map to unpin")),
            Step::Leave => {
                assert!(held.functions.is_empty() && held.maps.is_empty() && held.links.is_empty());
                *held = Held::default();
            }
        }
    }
}

/// A node whose every cgroup path exists and whose kernel refuses nothing; clones are the same node.
#[derive(Clone, Debug, Default)]
pub struct FakeNode(Arc<Mutex<Node>>);

#[derive(Debug, Default)]
struct Node {
    ids: Ids,
    programs: BTreeMap<String, Fake>,
}

impl FakeNode {
    fn node(&self) -> MutexGuard<'_, Node> {
        self.0.lock().unwrap()
    }
}

impl Host for FakeNode {
    fn usable(&self) -> Result<(), ObserveError> {
        Ok(())
    }

    fn homes(&self) -> Result<BTreeSet<String>, ObserveError> {
        Ok(self.node().programs.keys().cloned().collect())
    }

    fn here(&self) -> Result<Here, SysError> {
        let machine = Machine { page: 4096, cpus: 2 };
        Ok(Here {
            machine,
            features: host::features(),
            lacking: Lacking::default(),
            pods: "/kubepods".to_owned(),
        })
    }

    fn observe(&self, name: &str) -> Result<Held, SysError> {
        Ok(self.node().programs.get(name).map(|fake| fake.held.clone()).unwrap_or_default())
    }

    fn observe_known(&self, name: &str, _: &Names) -> Result<Held, SysError> {
        self.observe(name)
    }

    fn cgroups(&self, wanted: &Wanted) -> Result<BTreeMap<String, Cgroup>, SysError> {
        let cgroup = |path: &str| (path.to_owned(), Cgroup { id: inode(path), path: path.to_owned() });
        Ok(wanted.paths().into_iter().map(cgroup).collect())
    }

    fn execute(&self, name: &str, order: &Order<'_>) -> Result<(), Failure> {
        let mut node = self.node();
        let Node { ids, programs } = &mut *node;
        programs.entry(name.to_owned()).or_default().execute(ids, order.wanted, order.steps);
        programs.retain(|_, fake| !fake.held.is_empty());
        Ok(())
    }
}

/// The same for the same path.
fn inode(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish() >> 32
}
