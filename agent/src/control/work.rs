//! `WorkList`: the tasks of a pass, by what is assigned and by what happened since each BpfProgram's last look. No IO.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::program::{Pending, ProgramState};
use crate::model::{assignment::Assignment, pods::RequiredInputs, refusal::Refusal};

/// The tasks that are left, in order.
pub(super) type WorkList = VecDeque<(String, Task)>;

/// A pass's task for one BpfProgram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Leave it as it is, for this reason, and report that.
    Freeze(Refusal),
    /// Observe it: something happened to it while its next attempt is not due.
    Observe,
    /// Keep its known good revision running as it should.
    KeepKnownGood(Observation),
    /// Bring it to what is desired.
    Attempt(Observation),
}

impl Task {
    /// Returns the task as it is now that it is done: what happened since it was listed counts too. None may be left.
    pub(super) fn updated(self, program: &ProgramState, now: Instant) -> Option<Self> {
        match self {
            Self::Freeze(_) | Self::Attempt(Observation::Fresh) => Some(self),
            Self::Observe | Self::KeepKnownGood(_) | Self::Attempt(Observation::Cached) => task(program, now),
        }
    }
}

/// The observation that an attempt starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Observation {
    /// The last observation: nothing is known to have happened to it, and pods came or went.
    Cached,
    /// A new observation.
    Fresh,
}

/// The requirements of all BpfPrograms together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requirements {
    /// The inputs that must be known of pods.
    pub inputs: RequiredInputs,
    /// Priorities differ, so that the attach order matters.
    pub ordered: bool,
    /// Some map is to be another BpfProgram's.
    pub shares: bool,
    priority: Option<i64>,
}

impl Requirements {
    fn add(&mut self, program: &ProgramState) {
        self.inputs = self.inputs.and(program.required_in_all());
        self.shares |= program.shares();
        for priority in program.priorities() {
            self.ordered |= *self.priority.get_or_insert(priority) != priority;
        }
    }
}

/// Gives every BpfProgram its assigned revision; returns what all of them require. Programs and revisions are both
/// sorted by name, so that one walk along both does it.
pub(super) fn assign(programs: &mut BTreeMap<String, ProgramState>, assignment: &Assignment) -> Requirements {
    let mut revisions = assignment.revisions.iter().peekable();
    let mut new = Vec::new();
    for (name, program) in programs.iter_mut() {
        let revision = loop {
            match revisions.peek().map(|(assigned, _)| assigned.cmp(&name)) {
                Some(Ordering::Less) => new.extend(revisions.next()),
                Some(Ordering::Equal) => break revisions.next().map(|(_, revision)| revision),
                _ => break None,
            }
        };
        if assignment.knows(name) {
            program.assign(revision);
        }
    }
    for (name, revision) in new.into_iter().chain(revisions) {
        let program = programs.entry(name.clone()).or_default();
        if assignment.knows(name) {
            program.assign(Some(revision));
        }
    }
    for (name, program) in programs.iter_mut().filter(|(_, program)| !program.was_observed) {
        program.reported = assignment.reported.get(name).cloned();
    }
    let mut requirements = Requirements::default();
    programs.values().for_each(|program| requirements.add(program));
    requirements
}

/// Returns the tasks that are due. Those that end what is unknown or broken come first, then attempts: first those that
/// only follow pods, then those that container starts may wait for, last those that were detached, by their ranks.
pub(super) fn work_list(
    programs: &mut BTreeMap<String, ProgramState>,
    assignment: &Assignment,
    inputs: RequiredInputs,
    now: Instant,
) -> WorkList {
    let may_freeze = !assignment.knows_all(inputs);
    let mut tasks: Vec<(String, Task)> = Vec::new();
    for (name, program) in programs.iter_mut() {
        let frozen = if may_freeze { assignment.freeze_reason(name, program.required()) } else { None };
        if frozen.is_some() {
            // It is not tried again before that is over, and then at once.
            program.forget_failures();
        }
        let task = frozen.map(Task::Freeze).or_else(|| task(program, now));
        // Without a task the pods' change is nothing to this BpfProgram.
        program.pending.pods &= task.is_some();
        tasks.extend(task.map(|task| (name.clone(), task)));
    }
    tasks.sort_by_cached_key(|(name, task)| {
        let program = programs.get(name);
        let strict = program.is_some_and(ProgramState::is_strict);
        // Those that were detached come back in the order in which they came to the node.
        let back = program.and_then(ProgramState::comes_back).unwrap_or_default();
        match task {
            Task::Freeze(_) => (0, Observation::Cached, back, false),
            Task::Observe => (1, Observation::Cached, back, false),
            Task::KeepKnownGood(observation) => (2, *observation, back, !strict),
            Task::Attempt(observation) => (3, *observation, back, !strict),
        }
    });
    tasks.into()
}

fn task(program: &ProgramState, now: Instant) -> Option<Task> {
    let Pending { changed, dirty, pods, sweep } = program.pending;
    let looks = dirty || sweep;
    let observation = if looks { Observation::Fresh } else { Observation::Cached };
    if changed || program.retry.due_at().map_or(looks, |at| at <= now) {
        Some(Task::Attempt(Observation::Fresh))
    } else if pods && program.follows_pods() {
        Some(Task::Attempt(observation))
    } else if program.keeps_known_good() && (looks || pods) {
        Some(Task::KeepKnownGood(observation))
    } else {
        looks.then_some(Task::Observe)
    }
}
