//! One step of the controller: it takes the events, does a bounded amount of work, and returns the effects.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Controller,
    connectivity::ProbeResult,
    controller::BpffsSeen,
    event::{Effect, Event, StepResult},
};
use crate::{
    model::{assignment::Assignment, trial::TrialState},
    node::{Node, watch::Change},
    plan,
};

/// While it is not known what the node is to run, and nothing is on trial, the node is looked at again after this long.
const UNASSIGNED: Duration = Duration::from_secs(300);

impl<N: Node> Controller<N> {
    /// Handles the events, does a few tasks or loads one program, and returns what is to be done outside.
    /// A step never waits for anything but the node's own system calls.
    pub fn step(&mut self, now: Instant, events: impl IntoIterator<Item = Event>) -> StepResult {
        self.now = now;
        let mut disturbed = false;
        for event in events {
            self.take(event, now);
            disturbed = true;
        }
        if self.timer.start_poll_if_due(now) {
            // The kernel's types are large.
            self.kernel.forget();
            self.timer.pass_due |= self.poll();
            self.timer.pass_due |= self.mark_draining();
            self.timer.pass_due |= self.mark_entries();
        }
        let wake = match self.inputs.assignment.clone() {
            Some(assignment) => {
                self.work(&assignment, now);
                self.wake(now)
            }
            None => self.stand_by(now),
        };
        self.decide_starts();
        self.effects.extend(self.verdicts.next().into_iter().map(|one| Effect::VerifyObject(Box::new(one))));
        self.effects.extend(self.fetches.next(self.verdicts.pending()).into_iter().map(Effect::FetchBytes));
        // A pass that goes on undisturbed is looked at when its work is done.
        if disturbed || !self.is_working() {
            self.trials.follow(self.programs.index().trials().clone(), now);
        }
        let probe = self.probe(now);
        let wake = probe.map_or(wake, |probe| wake.min(probe));
        StepResult { effects: mem::take(&mut self.effects), wake }
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::AssignmentChanged(assignment) => self.inputs.assignment = Some(assignment),
            Event::AssignmentLost => {
                self.inputs.assignment = None;
                self.pass = None;
            }
            Event::SuspendChanged(why) => self.inputs.suspended = why,
            Event::HomesChanged(change) => return self.take_change(&change),
            Event::PodsChanged => {}
            Event::BlindChanged(blind) => {
                return self.timer.set_blind(blind, now);
            }
            Event::RuntimeChanged(gap) => {
                if gap.is_some() != self.inputs.runtime_gap.is_some() {
                    self.programs.all_mut().for_each(|(_, program)| program.forget_failures());
                }
                self.inputs.runtime_gap = gap;
            }
            Event::StartRequested(id, start) => self.starts.request(id, start),
            Event::StartWithdrawn(id) => return self.starts.withdraw(id),
            Event::Asked(id, inquiry) => {
                let inspection = self.inspect(&inquiry);
                return self.effects.push(Effect::AnswerInquiry(id, inspection));
            }
            Event::ProbeAnswered(probe) => return self.take_probe(probe, now),
            Event::BytesArrived { digest, bytes } => {
                let users = self.programs.those_mut(|_, program| program.uses(&digest));
                let users = users.map(|program| program.object_arrived(&digest)).count();
                self.fetches.arrived(digest, bytes, users, now);
            }
            Event::ObjectVerified { claim, verdict } => {
                let users = self.programs.those_mut(|_, program| program.uses(&claim.digest));
                users.for_each(|program| program.object_arrived(&claim.digest));
                self.verdicts.arrived(claim, verdict, now);
            }
            Event::RevisionArrived { program, name, answer } => {
                if let Err(why) = &answer {
                    tracing::warn!(program, revision = name, why, "the known good revision can't be read");
                }
                if let Some(program) = self.programs.get_mut(&program) {
                    program.known_good_arrived(&name, answer, now);
                }
            }
        }
        (self.timer.pass_due, self.timer.restart_due) = (true, true);
    }

    /// Marks what changed on bpffs for the next pass: the one that is going on has mostly caused it itself.
    fn take_change(&mut self, change: &Change) {
        match change {
            Change::Homes(names) => {
                for name in names {
                    self.programs.get_mut(name).into_iter().for_each(|program| program.pending.dirty = true);
                }
            }
            Change::Anything => self.programs.all_mut().for_each(|(_, program)| program.pending.dirty = true),
        }
        self.timer.pass_due = true;
    }

    /// Polls what is attached, and looks for what a pass would see. Returns whether there is anything for one to do.
    fn poll(&mut self) -> bool {
        let Self { node, programs, monitor, survey, settings, metrics, .. } = self;
        let found = node.bpffs();
        let mounted_anew = BpffsSeen::of(&found) != survey.bpffs;
        let marked = found.is_ok_and(|bpffs| bpffs.suspended.is_some() != survey.mark.is_some());
        let mut has_cgroup = false;
        for program in programs.those_mut(|_, program| program.waits_for_cgroup()) {
            let Some(desired) = program.desired.clone() else { continue };
            if node.cgroups(&desired.paths()).is_ok_and(|there| plan::missing_cgroup(&desired, &there).is_none()) {
                program.forget_failures();
                has_cgroup = true;
            }
        }
        let searches = self.pod_search.is_due(self.now) || self.all_pods.is_due(self.now);
        let attached = monitor.poll(node, programs, settings.time_of_day, metrics);
        attached || mounted_anew || marked || has_cgroup || searches
    }

    /// Continues the pass, or begins one that is due.
    fn work(&mut self, assignment: &Arc<Assignment>, now: Instant) {
        let begins = match &self.pass {
            Some(_) => self.timer.restart_due,
            None => self.timer.is_pass_due(self.programs.index().next_retry(), now),
        };
        if begins {
            self.begin_pass(assignment, now);
            // Starts that need no wait are answered before a program is loaded; but not so that nothing ever is.
            self.began_only = !self.began_only && !self.starts.waiting.is_empty();
            if self.began_only {
                return;
            }
        }
        self.began_only = false;
        self.continue_pass(assignment, now);
    }

    /// Returns when the next step is due at the latest.
    fn wake(&mut self, now: Instant) -> Instant {
        match self.pass {
            Some(_) => now,
            None => self.timer.wake(self.programs.index().next_retry(), now),
        }
    }

    /// Does what must be done while it is not known what the node is to run: it detaches everything where someone
    /// suspended everything, and follows the trials that an earlier agent left, for a program on trial may be the very
    /// reason. Returns when to look again.
    fn stand_by(&mut self, now: Instant) -> Instant {
        let detached = match self.inputs.suspended.is_some().then(|| self.detach_all()) {
            None => true,
            Some(Ok(detached)) => detached.iter().all(|(_, outcome)| outcome.is_ok()),
            Some(Err(error)) => {
                tracing::error!(%error, "everything is suspended, and the programs on this node can't be listed");
                false
            }
        };
        match self.load_trials() {
            Ok(()) if detached => now + UNASSIGNED,
            Ok(()) => self.timer.wake_unassigned(),
            Err(error) => {
                tracing::debug!(%error, "the trials on this node can't be read");
                self.timer.wake_unassigned()
            }
        }
    }

    /// Asks for a probe of the API server if one is due; returns when the next one is.
    fn probe(&mut self, now: Instant) -> Option<Instant> {
        if self.inputs.probing.is_some() {
            return None;
        }
        let next = self.trials.next()?;
        if next > now {
            return Some(next);
        }
        self.inputs.probing = Some(now);
        self.effects.push(Effect::ProbeApiServer);
        None
    }

    fn take_probe(&mut self, probe: ProbeResult, now: Instant) {
        let Some(sent) = self.inputs.probing.take() else { return };
        let states = self.trials.probed(probe, sent, now);
        for (program, state) in &states {
            log(program, *state, probe);
        }
        self.judge(&states);
        self.timer.pass_due |= !states.is_empty();
    }
}

fn log(program: &str, state: TrialState, probe: ProbeResult) {
    match state {
        TrialState::Suspected | TrialState::Reverted if probe == ProbeResult::Unreached => {
            tracing::error!(program, "the API server can't be reached since this was attached: reverting it");
        }
        TrialState::SuspectedByLease => {
            tracing::error!(program, "the kubelet does not renew its Lease since this was attached: reverting it");
        }
        TrialState::Reverted => {
            tracing::warn!(program, "the API server is reached again: this program had cut the node off");
        }
        TrialState::RevertedByLease => {
            tracing::warn!(program, "the kubelet renews its Lease only without this program, which stays detached");
        }
        TrialState::Reprieved => {
            tracing::warn!(program, "the node recovered late after this was detached: it is attached again, on trial");
        }
        TrialState::PassedWithoutLease => {
            tracing::warn!(program, ?probe, "its trial could not watch the kubelet's Lease, only the API server");
        }
        TrialState::Open | TrialState::Suspected | TrialState::Reopened | TrialState::Passed => {}
    }
}
