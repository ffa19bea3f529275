//! `Programs`: the BpfPrograms of a node by name, with an index of what every pass asks of all of them. No IO.
//!
//! A pass that brings one BpfProgram into effect must not look at a thousand others. So whoever may change a BpfProgram
//! gets it from here, which marks it; and before the index is asked, it takes up those that are marked.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    time::Instant,
};

use super::program::{Pending, ProgramState};
use crate::model::{kernel::Machine, map_shape::MapShape, observed::ObservedMap, pods::RequiredInputs, trial::Trial};

/// The BpfPrograms of a node, by name.
#[derive(Debug, Default)]
pub struct Programs {
    states: BTreeMap<String, ProgramState>,
    /// The names of those that may differ from what the index has; some more than once.
    marked: Vec<String>,
    /// All may differ.
    all_marked: bool,
    /// The machine for which their maps are weighed, once that was asked for.
    machine: Option<Machine>,
    index: Index,
}

/// The facts that every pass asks of all BpfPrograms.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Index {
    facts: BTreeMap<String, Facts>,
    unassigned: BTreeSet<String>,
    unseen: BTreeSet<String>,
    pending: BTreeSet<String>,
    retries: BTreeSet<(Instant, String)>,
    trials: BTreeMap<String, Trial>,
    /// The number of those that need the node's root, its pods, namespaces and containers.
    required: [usize; 4],
    shares: usize,
    /// The number of those with each priority.
    priorities: BTreeMap<i64, usize>,
    map_bytes: u128,
    sharing: BTreeSet<String>,
}

/// The facts of one BpfProgram that the index has.
#[derive(Clone, Debug, PartialEq)]
struct Facts {
    is_unassigned: bool,
    is_unseen: bool,
    is_pending: bool,
    retry_at: Option<Instant>,
    trial: Option<Trial>,
    required: RequiredInputs,
    shares: bool,
    priorities: [Option<i64>; 2],
    map_bytes: MapBytes,
}

/// The memory that the maps of one BpfProgram may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MapBytes {
    /// Bytes of the maps that are its own.
    own: u64,
    /// Some of its maps are other BpfPrograms'.
    shares: bool,
}

/// The requirements of all BpfPrograms together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// The inputs that must be known of pods.
    pub inputs: RequiredInputs,
    /// Priorities differ, so that the attach order matters.
    pub ordered: bool,
    /// Some map is to be another BpfProgram's.
    pub shares: bool,
}

impl Deref for Programs {
    type Target = BTreeMap<String, ProgramState>;

    fn deref(&self) -> &Self::Target {
        &self.states
    }
}

impl Programs {
    /// Returns a BpfProgram that may be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut ProgramState> {
        self.mark(name);
        self.states.get_mut(name)
    }

    /// Returns a BpfProgram that may be changed; one of which nothing is known yet if there is none.
    pub fn entry(&mut self, name: &str) -> &mut ProgramState {
        self.mark(name);
        self.states.entry(name.to_owned()).or_default()
    }

    /// Returns all BpfPrograms, each of which may be changed.
    pub fn all_mut(&mut self) -> impl Iterator<Item = (&str, &mut ProgramState)> {
        self.all_marked = true;
        self.states.iter_mut().map(|(name, program)| (name.as_str(), program))
    }

    /// Returns the BpfPrograms that a condition holds for, each of which may be changed.
    pub fn those_mut(
        &mut self,
        is_meant: impl Fn(&str, &ProgramState) -> bool,
    ) -> impl Iterator<Item = &mut ProgramState> {
        let Self { states, marked, .. } = self;
        states.iter_mut().filter(move |(name, program)| is_meant(name, program)).map(move |(name, program)| {
            marked.push(name.clone());
            program
        })
    }

    /// Forgets a BpfProgram.
    pub fn remove(&mut self, name: &str) {
        self.mark(name);
        self.states.remove(name);
    }

    /// Returns the index.
    pub(super) fn index(&mut self) -> &Index {
        let Self { states, marked, all_marked, machine, index } = self;
        let facts = |program: &ProgramState| Facts::of(program, *machine);
        if std::mem::take(all_marked) {
            marked.clear();
            *index = Index::default();
            states.iter().for_each(|(name, program)| index.put(name, Some(facts(program))));
        }
        for name in marked.drain(..) {
            index.put(&name, states.get(&name).map(facts));
        }
        index
    }

    /// Returns the index with the bytes of maps as they are on this machine.
    pub(super) fn index_for(&mut self, machine: Machine) -> &Index {
        self.all_marked |= self.machine.replace(machine) != Some(machine);
        self.index()
    }

    fn mark(&mut self, name: &str) {
        // Mostly the same one several times in a row.
        if self.marked.last().is_none_or(|last| last != name) {
            self.marked.push(name.to_owned());
        }
    }
}

impl Facts {
    fn of(program: &ProgramState, machine: Option<Machine>) -> Self {
        let mut priorities = program.priorities();
        Self {
            is_unassigned: !program.is_assigned(),
            is_unseen: !program.was_observed,
            is_pending: program.pending != Pending::default(),
            retry_at: program.retry.due_at(),
            trial: program.undecided_trial(),
            required: program.required_in_all(),
            shares: program.shares(),
            priorities: [priorities.next(), priorities.next()],
            map_bytes: machine.map(|machine| MapBytes::of(program, &machine)).unwrap_or_default(),
        }
    }
}

impl MapBytes {
    /// A map that is not pinned counts as long as the agent that loaded it runs.
    fn of(ProgramState { observed, unpinned, .. }: &ProgramState, machine: &Machine) -> Self {
        let uses = |map: u32| observed.functions.values().any(|function| function.info.map_ids.contains(&map));
        let pinned = observed.maps.values().filter(|map| map.from.is_none()).map(ObservedMap::shape);
        let unpinned = unpinned.values().filter(|map| uses(map.id)).map(MapShape::of);
        let own = pinned.chain(unpinned).fold(0, |sum: u64, shape| sum.saturating_add(shape.bytes(machine)));
        Self { own, shares: observed.maps.values().any(|map| map.from.is_some()) }
    }
}

impl Index {
    /// Records what a BpfProgram is now; `None` if it is gone.
    fn put(&mut self, name: &str, now: Option<Facts>) {
        let before = match &now {
            Some(now) => self.facts.insert(name.to_owned(), now.clone()),
            None => self.facts.remove(name),
        };
        if before == now {
            return;
        }
        before.iter().for_each(|facts| self.take(name, facts));
        now.into_iter().for_each(|facts| self.add(name, facts));
    }

    fn add(&mut self, name: &str, facts: Facts) {
        let sets = [&mut self.unassigned, &mut self.unseen, &mut self.pending, &mut self.sharing];
        for (set, is_in) in sets.into_iter().zip(facts.sets()) {
            set.extend(is_in.then(|| name.to_owned()));
        }
        self.retries.extend(facts.retry_at.map(|at| (at, name.to_owned())));
        self.required.iter_mut().zip(flags(facts.required)).for_each(|(count, needs)| *count += usize::from(needs));
        self.shares += usize::from(facts.shares);
        facts.priorities.into_iter().flatten().for_each(|priority| *self.priorities.entry(priority).or_default() += 1);
        self.map_bytes += u128::from(facts.map_bytes.own);
        self.trials.extend(facts.trial.map(|trial| (name.to_owned(), trial)));
    }

    fn take(&mut self, name: &str, facts: &Facts) {
        let sets = [&mut self.unassigned, &mut self.unseen, &mut self.pending, &mut self.sharing];
        for (set, _) in sets.into_iter().zip(facts.sets()).filter(|(_, is_in)| *is_in) {
            set.remove(name);
        }
        if let Some(at) = facts.retry_at {
            self.retries.remove(&(at, name.to_owned()));
        }
        self.required.iter_mut().zip(flags(facts.required)).for_each(|(count, needs)| *count -= usize::from(needs));
        self.shares -= usize::from(facts.shares);
        for priority in facts.priorities.into_iter().flatten() {
            if let Some(count) = self.priorities.get_mut(&priority) {
                *count -= 1;
                if *count == 0 {
                    self.priorities.remove(&priority);
                }
            }
        }
        self.map_bytes -= u128::from(facts.map_bytes.own);
        self.trials.remove(name);
    }

    /// Returns the BpfPrograms of which it is not known what they are to have here.
    pub fn unassigned(&self) -> &BTreeSet<String> {
        &self.unassigned
    }

    /// Returns the BpfPrograms that were not observed yet.
    pub fn unseen(&self) -> &BTreeSet<String> {
        &self.unseen
    }

    /// Returns the BpfPrograms for which there is a reason to reconcile them, or a retry is due.
    pub fn due(&self, now: Instant) -> BTreeSet<String> {
        let retries = self.retries.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name);
        self.pending.iter().chain(retries).cloned().collect()
    }

    /// Returns when the next retry is due.
    pub fn next_retry(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Returns the trials that are undecided, by BpfProgram.
    pub fn trials(&self) -> &BTreeMap<String, Trial> {
        &self.trials
    }

    /// Returns the requirements of all BpfPrograms together.
    pub fn requirements(&self) -> Requirements {
        let [root, pods, namespaces, containers] = self.required.map(|count| count > 0);
        let inputs = RequiredInputs { root, pods, namespaces, containers };
        Requirements { inputs, ordered: self.priorities.len() > 1, shares: self.shares > 0 }
    }

    /// Returns the bytes that the own maps of all BpfPrograms but one may hold.
    pub fn map_bytes_besides(&self, name: &str) -> u64 {
        let own = self.facts.get(name).map_or(0, |facts| facts.map_bytes.own);
        u64::try_from(self.map_bytes - u128::from(own)).unwrap_or(u64::MAX)
    }

    /// Returns the BpfPrograms that have maps of others.
    pub fn sharing(&self) -> &BTreeSet<String> {
        &self.sharing
    }
}

impl Facts {
    /// Reports in which of the index's sets it is.
    const fn sets(&self) -> [bool; 4] {
        [self.is_unassigned, self.is_unseen, self.is_pending, self.map_bytes.shares]
    }
}

const fn flags(RequiredInputs { root, pods, namespaces, containers }: RequiredInputs) -> [bool; 4] {
    [root, pods, namespaces, containers]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use sockeye_crds::{Reason, program::MapRef};

    use super::*;
    use crate::model::{
        kernel::MapInfo,
        observed::{LinkKey, Observed, ObservedLink},
        trial::TrialState,
    };

    const MACHINE: Machine = Machine { page: 4096, cpus: 2 };

    /// Changes something of a BpfProgram that the index knows.
    fn change(program: &mut ProgramState, what: u8, number: u32, start: Instant) {
        match what {
            0 => program.pending.dirty ^= true,
            1 => program.retry.failed(Reason::Other, start + Duration::from_secs(number.into())),
            2 => program.retry.reset(),
            3 => {
                let state = if number.is_multiple_of(2) { TrialState::Open } else { TrialState::Suspected };
                let trial = Some(Trial { revision: "r".to_owned(), state });
                let map = MapInfo { id: number, map_type: 2, value_size: 8, max_entries: number, ..MapInfo::default() };
                let from = number.is_multiple_of(3).then(|| MapRef { program: "q".to_owned(), name: "m".to_owned() });
                let map = ObservedMap { info: map, from, ..ObservedMap::default() };
                program.observe(Observed { trial, maps: [("m".to_owned(), map)].into(), ..Observed::default() });
            }
            4 => program.assign(None),
            _ => program.observed = Observed::default(),
        }
    }

    proptest! {
        /// However BpfPrograms are changed, and whenever the index is asked, it has what a look at all of them finds.
        #[test]
        fn the_index_has_what_a_walk_finds(
            changes in prop::collection::vec((0..5_u8, 0..6_u8, 0..9_u32, 0..5_usize, any::<bool>()), 0..60)
        ) {
            let (mut programs, start) = (Programs::default(), Instant::now());
            for (access, what, number, which, asks) in changes {
                let name = format!("p{which}");
                match access {
                    0 => programs.get_mut(&name).into_iter().for_each(|program| change(program, what, number, start)),
                    1 => change(programs.entry(&name), what, number, start),
                    2 => programs.all_mut().for_each(|(_, program)| change(program, what, number, start)),
                    3 => {
                        let meant = programs.those_mut(|other, _| other == name);
                        meant.for_each(|program| change(program, what, number, start));
                    }
                    _ => programs.remove(&name),
                }
                if asks {
                    let mut walked = Index::default();
                    for (name, program) in programs.iter() {
                        walked.put(name, Some(Facts::of(program, Some(MACHINE))));
                    }
                    prop_assert_eq!(programs.index_for(MACHINE), &walked);
                    let bytes = |(_, program): (&String, &ProgramState)| MapBytes::of(program, &MACHINE).own;
                    let besides = programs.iter().filter(|(other, _)| **other != name).map(bytes).sum::<u64>();
                    prop_assert_eq!(walked.map_bytes_besides(&name), besides);
                    let due = |program: &ProgramState| program.pending != Pending::default()
                        || program.retry.due_at().is_some_and(|at| at <= start + Duration::from_secs(4));
                    let due: BTreeSet<String> =
                        programs.iter().filter(|(_, program)| due(program)).map(|(name, _)| name.clone()).collect();
                    prop_assert_eq!(walked.due(start + Duration::from_secs(4)), due);
                }
            }
        }
    }

    #[test]
    fn a_trial_of_what_is_attached_nowhere_is_not_followed() {
        let mut programs = Programs::default();
        let trial = Some(Trial { revision: "r".to_owned(), state: TrialState::Open });
        programs.entry("p").observe(Observed { trial, ..Observed::default() });
        assert!(programs.index().trials().is_empty());
        let key = LinkKey { function: "f".to_owned(), place: "1".to_owned() };
        let link =
            ObservedLink { info: Default::default(), path: None, in_effect: true, believed: false, pinned: true };
        programs.entry("p").observed.links.insert(key, link);
        assert_eq!(programs.index().trials().keys().collect::<Vec<_>>(), ["p"]);
    }
}
