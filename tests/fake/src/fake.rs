//! `Fake`: the state of one BpfProgram on a node, on which steps are executed.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_agent::{
    model::{
        desired::Desired,
        draining_map::SocketFate,
        kernel::{Cgroup, LINK_TYPE_CGROUP, LINK_TYPE_SOCKMAP, LinkInfo, MapInfo, ProgramInfo},
        map_shape::MapShape,
        observed::{AttachSite, LinkKey, Observed, ObservedKeptPod, ObservedLink, ObservedMap, ObservedProgram},
        switch::ObservedSwitch,
    },
    plan::Step,
};
use sockeye_crds::{names::pin_name, program::MapRef};
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
    /// The IDs of the maps that are kept for their sockets, and what becomes of these.
    pub kept: BTreeSet<(u32, SocketFate)>,
    /// True if the kernel has no links for maps.
    pub unlinked: bool,
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
            Step::ForgetEntries(pin) => assert!(observed.recorded.remove(pin)),
            Step::Release(pin) => assert!(observed.retained.remove(pin)),
            Step::PinMap(pin) => {
                assert!(*loaded, "nothing is pinned before the load");
                let (name, map) = desired.unwrap().map_by_pin(pin).unwrap();
                let MapShape { map_type, key_size, value_size, max_entries, flags } = map.shape;
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
                observed.maps.insert(pin.clone(), map);
                mark_links_dead(observed, pin);
            }
            Step::ShareMap { name, from } => {
                assert!(*loaded, "nothing is pinned before the load");
                let (info, from) = (others[from].clone(), Some(from.clone()));
                let lossless = info.holds_sockets();
                let map = ObservedMap { info, pinned: true, from, lossless, ..ObservedMap::default() };
                observed.maps.insert(pin_name(name), map);
                mark_links_dead(observed, &pin_name(name));
            }
            Step::BorrowMap { pin, from } => {
                let (info, from) = (others[from].clone(), Some(from.clone()));
                assert!(info.holds_sockets(), "programs are attached to maps of sockets");
                let map = ObservedMap { info, pinned: true, from, lossless: true, ..ObservedMap::default() };
                observed.maps.insert(pin.clone(), map);
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
            Step::SwitchOn => {
                let switch = observed.switch.as_mut().unwrap();
                assert!(switch.is_noted, "what is not noted can't be written");
                *switch = ObservedSwitch { is_zero: false, is_noted: false };
            }
            Step::SwitchOff => {
                let switch = observed.switch.as_mut().unwrap();
                assert!(!switch.is_zero, "nothing is cleared twice");
                *switch = ObservedSwitch { is_zero: true, is_noted: true };
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
