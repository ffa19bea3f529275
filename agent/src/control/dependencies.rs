//! The dependencies of a BpfProgram on others: maps that it shares with them, and its position among them at cgroups.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, program::MapRef};

use super::Controller;
use crate::{
    control::program::{self, ProgramState},
    kernel::SysError,
    model::{
        desired::Desired,
        kernel::{Cgroup, Machine, MapInfo},
        observed::ObservedMap,
    },
    node::Node,
    plan::{
        context::{AttachOrders, PlanContext},
        order::{self, Neighbour, Rank},
    },
};

const NOT_YET: &str = "it is not pinned on this node yet; once it is, this is tried again at once";

impl<N: Node> Controller<N> {
    /// Returns what a plan for a BpfProgram depends on, given the desired cgroups that exist.
    pub(super) fn plan_context(
        &mut self,
        name: &str,
        desired: Option<&Desired>,
        cgroups: BTreeMap<String, Cgroup>,
    ) -> Result<PlanContext, SysError> {
        let lent = self.lent(name);
        let Some(desired) = desired else { return Ok(PlanContext { lent, ..PlanContext::default() }) };
        let (mut maps, mut absent) = (BTreeMap::new(), BTreeMap::new());
        for from in desired.maps.values().filter_map(|map| map.from.as_ref()) {
            match self.pinned(from) {
                Some(map) => drop(maps.insert(from.clone(), map.clone())),
                None => drop(absent.insert(from.clone(), self.absent(from))),
            }
        }
        let is_its_place = |path: &str, attach_type: u32| {
            let mut functions = desired.functions.values();
            functions.any(|function| function.kind.attach_type == attach_type && function.paths.contains_key(path))
        };
        let observed = self.programs.get(&desired.program.name).map(|program| &program.observed);
        let observed = observed.filter(|observed| observed.uid.is_some());
        // One that was in effect before comes back to its place; a newcomer is the last of its priority.
        let comes_back = observed.is_some_and(|observed| observed.revision.is_some() && observed.links.is_empty());
        let known = observed.map(|observed| observed.claimed);
        let newcomer = Rank { priority: desired.priority, claimed: known.unwrap_or(u64::MAX) };
        let attach_orders = self.attach_orders(Some((newcomer, comes_back)), is_its_place)?;
        let on_maps = if desired.attaches_to_maps { self.on_maps(&desired.program.name) } else { BTreeMap::new() };
        let (changes_entries, claimed) = (false, newcomer.claimed);
        Ok(PlanContext { cgroups, maps, absent, on_maps, lent, attach_orders, changes_entries, claimed })
    }

    /// Observes the BpfPrograms that an agent which has just started has not come to yet.
    fn observe_unseen(&mut self) {
        let unseen = self.programs.index().unseen().clone();
        unseen.iter().for_each(|name| self.observe(name));
    }

    /// Returns the IDs of the sockmaps and sockhashes that other BpfPrograms have too.
    pub(super) fn lent(&mut self, name: &str) -> BTreeSet<u32> {
        let observed = self.programs.get(name).map(|program| &program.observed);
        if !observed.is_some_and(|observed| observed.maps.values().any(ObservedMap::holds_sockets)) {
            return BTreeSet::new();
        }
        self.observe_unseen();
        let others = self.programs.iter().filter(|(other, _)| *other != name);
        let maps = others.flat_map(|(_, program)| program.observed.maps.values());
        maps.filter(|map| map.holds_sockets()).map(|map| map.info.id).collect()
    }

    /// Returns what all BpfPrograms but one have attached to maps.
    fn on_maps(&self, but: &str) -> BTreeMap<u32, BTreeMap<u32, String>> {
        let mut on_maps: BTreeMap<u32, BTreeMap<u32, String>> = BTreeMap::new();
        for (name, program) in self.programs.iter().filter(|(name, _)| *name != but) {
            for (_, link) in program.observed.links.iter().filter(|(key, link)| key.map().is_some() && link.in_effect) {
                on_maps.entry(link.info.map_id).or_default().insert(link.info.attach_type, name.clone());
            }
        }
        on_maps
    }

    /// Returns a BpfProgram's map if it is pinned.
    fn pinned(&self, from: &MapRef) -> Option<&MapInfo> {
        program::shared(&self.programs, from).filter(|map| map.pinned).map(|map| &map.info)
    }

    /// Says why a BpfProgram's map is not there to be shared, and what to do about it.
    fn absent(&self, from: &MapRef) -> String {
        let Some(other) = self.programs.get(&from.program).filter(|other| other.is_desired()) else {
            return "that BpfProgram is not to run on this node; once it is there, this is tried again at once"
                .to_owned();
        };
        let Some(desired) = &other.desired else { return NOT_YET.to_owned() };
        match desired.map_by_pin(&from.name) {
            None => {
                let names: Vec<&str> = desired.maps.values().map(|map| map.pin_name.as_str()).collect();
                format!("that BpfProgram has no such map, name one of its maps: {}", names.join(", "))
            }
            Some((_, map)) if !map.pin => {
                "it is not pinned there (pinning: None): leave it pinned in that BpfProgram".to_owned()
            }
            Some(_) if self.is_circular(from) => {
                "that one is from another in turn, in a circle: one of them must define it without mapRef".to_owned()
            }
            Some(_) => NOT_YET.to_owned(),
        }
    }

    /// Returns whether following a map to its lender, and on from there, never ends.
    fn is_circular(&self, from: &MapRef) -> bool {
        let next = |from: &&MapRef| {
            self.programs.get(&from.program)?.desired.as_ref()?.map_by_pin(&from.name)?.1.from.as_ref()
        };
        let mut seen = BTreeSet::new();
        !std::iter::successors(Some(from), next).all(|map| seen.insert(map))
    }

    /// Returns the attach orders of our programs at the given cgroups, where their priorities differ from each other or
    /// from a newcomer's, or where that comes back. Where all are equal, as they mostly are, the kernel is not asked.
    fn attach_orders(
        &self,
        newcomer: Option<(Rank, bool)>,
        includes: impl Fn(&str, u32) -> bool,
    ) -> Result<AttachOrders, SysError> {
        let mut attach_orders = AttachOrders::new();
        let comes_back = self.survey.keeps_order && newcomer.is_some_and(|(_, comes_back)| comes_back);
        if !self.survey.ordered && !comes_back {
            return Ok(attach_orders);
        }
        let mut places: BTreeMap<(&str, u32), BTreeMap<u32, Neighbour>> = BTreeMap::new();
        for (name, ProgramState { desired, observed, .. }) in self.programs.iter() {
            let Some(Desired { priority, .. }) = desired.as_deref() else { continue };
            for (key, link) in observed.links.iter().filter(|(_, link)| link.in_effect) {
                let Some(path) = link.path.as_deref().filter(|path| includes(path, link.info.attach_type)) else {
                    continue;
                };
                let rank = Rank { priority: *priority, claimed: observed.claimed };
                let one = Neighbour { program: name.clone(), key: key.clone(), rank };
                places.entry((path, link.info.attach_type)).or_default().insert(link.info.program_id, one);
            }
        }
        for ((path, attach_type), mut ours) in places {
            let newcomer = newcomer.map(|(rank, _)| rank.priority);
            if !comes_back && !differ(newcomer.into_iter().chain(ours.values().map(|one| one.rank.priority))) {
                continue;
            }
            let runs = self.node.attached(path, attach_type)?.map(|query| query.programs).unwrap_or_default();
            let attach_order = runs.iter().filter_map(|id| ours.remove(id)).collect();
            attach_orders.entry(path.to_owned()).or_default().insert(attach_type, attach_order);
        }
        Ok(attach_orders)
    }

    /// Returns the bytes that the maps of all other BpfPrograms may hold, and those that are kept for the sockets in
    /// them. A shared map counts with its owner.
    pub(super) fn map_bytes_besides(&mut self, name: &str, machine: &Machine) -> u64 {
        self.observe_unseen();
        let draining = self.draining_bytes(machine);
        let index = self.programs.index_for(*machine);
        let (sum, sharing) = (draining.saturating_add(index.map_bytes_besides(name)), index.sharing().clone());
        let sharing = sharing.iter().filter(|other| *other != name).filter_map(|other| self.programs.get(other));
        let maps = sharing.flat_map(|program: &ProgramState| program.observed.maps.values());
        let orphans = maps.filter(|map| map.from.is_some() && program::owned(&self.programs, map).is_none());
        orphans.map(|map| map.shape().bytes(machine)).fold(sum, u64::saturating_add)
    }

    /// Returns the BpfPrograms to which others that were reconciled after them gave something to do: a map that they
    /// wait for or share is there now, or is another one; or they are misplaced in an attach order.
    pub(super) fn stale(&self) -> BTreeSet<String> {
        if self.survey.suspended.is_some() {
            return BTreeSet::new();
        }
        let converged = |program: &ProgramState| program.failure.is_none();
        let waits =
            |program: &ProgramState| matches!(&program.failure, Some(why) if why.reason == Reason::SharedMapNotFound);
        let sharing = self.survey.sharing.then_some(&*self.programs).into_iter().flatten();
        let maps = sharing.filter(|(_, program)| {
            program.shares()
                && (converged(program) && self.shares_another(program) || waits(program) && self.has_all(program))
        });
        let mut stale: BTreeSet<String> = maps.map(|(name, _)| name.clone()).collect();
        match self.attach_orders(None, |_, _| true) {
            Ok(attach_orders) => {
                for attach_order in attach_orders.values().flat_map(BTreeMap::values) {
                    stale.extend(order::misplaced(attach_order).into_iter().map(|i| attach_order[i].program.clone()));
                }
            }
            Err(error) => tracing::warn!(%error, "the attach order at cgroups can't be read"),
        }
        stale.retain(|name| self.programs.get(name).is_some_and(|program| converged(program) || waits(program)));
        stale
    }

    /// Returns whether it has another map than its lender's.
    fn shares_another(&self, ProgramState { desired, observed, .. }: &ProgramState) -> bool {
        desired.iter().flat_map(|desired| desired.maps.values()).any(|map| {
            let other = map.from.as_ref().and_then(|from| self.pinned(from));
            other.is_some_and(|other| observed.maps.get(&map.pin_name).is_none_or(|own| own.info.id != other.id))
        })
    }

    /// Returns whether all maps that it is to share are there.
    fn has_all(&self, ProgramState { desired, .. }: &ProgramState) -> bool {
        let mut from = desired.iter().flat_map(|desired| desired.maps.values()).filter_map(|map| map.from.as_ref());
        from.all(|from| self.pinned(from).is_some())
    }
}

fn differ(mut priorities: impl Iterator<Item = i64>) -> bool {
    priorities.next().is_some_and(|first| priorities.any(|priority| priority != first))
}
