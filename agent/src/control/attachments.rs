//! `AttachmentMonitor`: one query of every cgroup or map and attach type at which something of ours is in effect,
//! however many BpfPrograms are there. It finds links that the kernel no longer lists, programs that others attached
//! beside ours, and the order in which all of them run. Nothing runs beside a map's program: attaching another replaces
//! it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use sockeye_ebpf::kinds::section::attach_type_name;
use sockeye_metrics::AgentMetrics;

use super::{drift, program::ProgramState, programs::Programs};
use crate::{
    kernel::SysError,
    model::observed::{LinkKey, ObservedLink},
    node::{Node, observe::Query},
};

/// A cgroup or a map at which something of ours is in effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// A cgroup, by its path.
    Cgroup(String),
    /// A BpfProgram's map, by its pin name.
    Map(String, String),
}

impl Target {
    fn of(name: &str, key: &LinkKey, link: &ObservedLink) -> Option<Self> {
        match key.map() {
            // The kernel does not say what is attached to the map.
            Some(_) if link.believed => None,
            Some(pin) => Some(Self::Map(name.to_owned(), pin.to_owned())),
            None => link.path.clone().map(Self::Cgroup),
        }
    }

    fn query(&self, node: &impl Node, attach_type: u32) -> Result<Option<Query>, SysError> {
        match self {
            Self::Cgroup(path) => node.attached(path, attach_type),
            Self::Map(name, pin) => node.attached_to_map(name, pin, attach_type),
        }
    }
}

/// A target and an attach type.
type Hook = (Target, u32);

/// The programs at each hook, as of the last poll.
#[derive(Debug, Default)]
pub struct AttachmentMonitor(BTreeMap<Hook, AttachedPrograms>);

/// The programs at a cgroup.
#[derive(Debug)]
struct AttachedPrograms {
    /// All program IDs, in attach order.
    attached: Vec<u32>,
    /// Those that others attached.
    foreign: BTreeSet<u32>,
}

/// A link of ours that was in effect.
struct OwnLink {
    name: String,
    target: u64,
    program: u32,
}

impl AttachmentMonitor {
    /// Queries every hook once. A BpfProgram with a link that is no longer listed becomes dirty; a program that others
    /// attached since the last poll is recorded as drift of each BpfProgram at its hook. Returns whether there is
    /// anything new.
    pub fn poll(
        &mut self,
        node: &impl Node,
        programs: &mut Programs,
        time_of_day: fn() -> Timestamp,
        metrics: &AgentMetrics,
    ) -> bool {
        let hooks = hooks(programs);
        self.0.retain(|hook, _| hooks.contains_key(hook));
        let mut news = false;
        for (hook, own) in hooks {
            let (target, attach_type) = &hook;
            let query = match target.query(node, *attach_type) {
                Ok(query) => query,
                Err(error) => {
                    tracing::warn!(?target, %error, "can't be queried");
                    continue;
                }
            };
            for name in unlisted(&own, query.as_ref()) {
                news = true;
                programs.entry(name).pending.dirty = true;
            }
            let Target::Cgroup(path) = target else { continue };
            let attached = query.map(|query| query.programs).unwrap_or_default();
            let foreign = foreign(&own, &attached);
            let before = self.0.insert(hook.clone(), AttachedPrograms { attached, foreign: foreign.clone() });
            let Some(before) = before.filter(|before| before.foreign != foreign) else { continue };
            news = true;
            let new: BTreeSet<u32> = &foreign - &before.foreign;
            if !new.is_empty() {
                let change = drift::attached_beside(path, &attach_type_name(*attach_type), &new);
                tracing::warn!("{}", change.message);
                drift::count(metrics, std::slice::from_ref(&change));
                for OwnLink { name, .. } in &own {
                    let program = programs.entry(name);
                    drift::remember(&mut program.drift, change.clone(), time_of_day());
                }
            }
        }
        news
    }

    /// Returns the program IDs at each cgroup and attach type, in attach order.
    pub fn attach_orders(&self) -> impl Iterator<Item = (&str, u32, &[u32])> {
        self.0.iter().filter_map(|((target, attach_type), programs)| match target {
            Target::Cgroup(path) => Some((path.as_str(), *attach_type, programs.attached.as_slice())),
            Target::Map(..) => None,
        })
    }
}

/// Returns the hooks at which links of ours are in effect, with those links.
fn hooks(programs: &BTreeMap<String, ProgramState>) -> BTreeMap<Hook, Vec<OwnLink>> {
    let mut hooks: BTreeMap<Hook, Vec<OwnLink>> = BTreeMap::new();
    for (name, program) in programs {
        for (key, link) in program.observed.links.iter().filter(|(_, link)| link.in_effect) {
            let Some(target) = Target::of(name, key, link) else { continue };
            let id = key.map().map_or(link.info.cgroup_id, |_| link.info.map_id.into());
            let own = OwnLink { name: name.clone(), target: id, program: link.info.program_id };
            hooks.entry((target, link.info.attach_type)).or_default().push(own);
        }
    }
    hooks
}

/// Returns the BpfPrograms with a link that is not listed, or whose cgroup or map is another one now.
fn unlisted<'a>(own: &'a [OwnLink], query: Option<&'a Query>) -> impl Iterator<Item = &'a str> {
    let is_listed = move |link: &OwnLink| {
        query.is_some_and(|query| query.target == link.target && query.programs.contains(&link.program))
    };
    own.iter().filter(move |link| !is_listed(link)).map(|link| link.name.as_str())
}

/// Returns the programs that others attached: those that are not ours, and ours that are attached more often than by
/// us.
fn foreign(own: &[OwnLink], attached: &[u32]) -> BTreeSet<u32> {
    let times = |id: u32| attached.iter().filter(|other| **other == id).count();
    let by_us = |id: u32| own.iter().filter(|link| link.program == id).count();
    attached.iter().copied().filter(|&id| times(id) > by_us(id)).collect()
}
