//! `WorkList`: the tasks of a pass, by what is assigned and by what happened since each BpfProgram's last look. No IO.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{
    program::{Pending, ProgramState},
    programs::Programs,
};
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

/// Gives every BpfProgram its assigned revision. `before` is the assignment that they were given last: only what
/// differs from it is looked at, and those that are not known to be assigned anything.
pub(super) fn assign(programs: &mut Programs, assignment: &Assignment, before: Option<&Assignment>) {
    let names = match before.filter(|before| before.knows_like(assignment)) {
        Some(before) => {
            let differing = before.differing(assignment).into_iter().map(str::to_owned);
            differing.chain(programs.index().unassigned().iter().cloned()).collect()
        }
        None => {
            let assigned = assignment.revisions.keys().chain(assignment.unreadable.keys());
            programs.keys().chain(assigned).cloned().collect::<BTreeSet<_>>()
        }
    };
    for name in names {
        let revision = assignment.revisions.get(&name);
        // One that an agent can't read is reported also where the node has nothing of its BpfProgram yet.
        let is_unreadable = assignment.unreadable.get(&name).is_some_and(|unreadable| unreadable.name.is_some());
        if revision.is_none() && !is_unreadable && !programs.contains_key(&name) {
            continue;
        }
        let program = programs.entry(&name);
        if assignment.knows(&name) {
            program.assign(revision);
        }
    }
    for name in programs.index().unseen().clone() {
        programs.entry(&name).reported = assignment.reported.get(&name).cloned();
    }
}

/// Returns the tasks that are due. Those that end what is unknown or broken come first, then attempts: first those that
/// only follow pods, then those that container starts may wait for, last those that were detached, by their ranks.
pub(super) fn work_list(
    programs: &mut Programs,
    assignment: &Assignment,
    inputs: RequiredInputs,
    now: Instant,
) -> WorkList {
    let may_freeze = !assignment.knows_all(inputs);
    let names = if may_freeze { programs.keys().cloned().collect() } else { programs.index().due(now) };
    let mut tasks: Vec<(String, Task)> = Vec::new();
    for name in &names {
        let Some(program) = programs.get_mut(name) else { continue };
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
    let Pending { changed, dirty, pods, sweep, sockets } = program.pending;
    let looks = dirty || sweep || sockets;
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
