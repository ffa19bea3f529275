//! `Trials`: connectivity trials. A program that can deny traffic is on trial after it was attached: if this node's
//! agent or its kubelet can't reach the API server any more, the program is reverted. Pure: the noted states, the time
//! and the outcome of each probe come in as arguments, and the states to note come out.
//!
//! | file | noun |
//! |---|---|
//! | this one | the trials, and the states that follow from probes |
//! | [`lease`] | what one trial has seen of the Lease that the kubelet renews |
//!
//! A probe shows whether the agent reaches the API server, and when the kubelet renewed the node's Lease last. The
//! kubelet has connections and a cgroup of its own, so one of them may be cut off and not the other.
//!
//! | noted state | the API server, the Lease | next state | and |
//! |---|---|---|---|
//! | Open | can't be reached, three times in a row | Suspected | the program is reverted |
//! | | is not renewed for half a minute | SuspectedByLease | the program is reverted |
//! | | after half a minute: is reached, and was renewed twice | Passed | |
//! | | after half a minute: is reached, and no Lease says anything about the kubelet | PassedWithoutLease | |
//! | | is reached, and the Lease can't be read | Open | the Lease is waited for anew |
//! | Suspected | is reached, soon | Reverted | until another revision is assigned |
//! | | is reached, later, three times in a row | Reprieved | the program is attached once more, noted as Reopened |
//! | SuspectedByLease | is renewed, soon | RevertedByLease | until another revision is assigned |
//! | | is renewed, later, twice | Reprieved | the program is attached once more, noted as Reopened |
//! | | may not be read any more, three times in a row | Reprieved | the same |
//! | | is not renewed for five minutes without the program | Reprieved | the same; the Lease is then left aside |
//! | Reopened | can't be reached, three times in a row | Reverted | the program is reverted |
//! | | is not renewed for half a minute | RevertedByLease | the program is reverted |
//! | | else | as from Open | |
//!
//! Nothing is attached again as long as the API server can't be reached: a program that cuts off the API server's own
//! node would keep it away for longer than any wait, and attaching it again would keep it away for good. A Lease has no
//! such power over other nodes: where nobody renews it, it is not waited for longer than a kubelet takes to recover.
//!
//! The noted state outlives the agent. A new agent does not know since when a program is suspected, and assumes long
//! ago: the reopened trial then finds out what is to blame. It does not know either since when a program is attached,
//! and gives it a trial of full length.
//!
//! Nothing is known of the Lease from before a trial, when nobody reads it. That its last renewal is old would prove
//! little: the API server may have been away, and come back to the agent before it came back to the kubelet.

mod lease;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

use self::lease::{Beginning, Finding, LeaseWatch};
pub use self::lease::{LeaseReading, Renewal};
use crate::model::trial::{Trial, TrialState};

/// The least duration of a trial.
const WINDOW: Duration = Duration::from_secs(30);
/// The API server is probed at this interval meanwhile.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// This many probes in a row with the same outcome are no accident.
const ENOUGH: u32 = 3;
/// A program is to blame if the API server is reached within this long after it was reverted.
const RELIEF: Duration = Duration::from_secs(15);
/// A program is to blame if the Lease is renewed within this long after the revert. A kubelet renews it every ten
/// seconds, and gives an attempt up after as long.
const LEASE_RELIEF: Duration = Duration::from_secs(30);
/// A Lease that is not renewed in as many probes in a row, with nothing attached, is one that nobody renews: five
/// minutes, after which a node that is not Ready loses its pods.
const UNRENEWED: u32 = 150;

/// The outcome of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The API server did not answer.
    Unreached,
    /// The API server answered, and this is what it gave of the node's Lease.
    Reached(LeaseReading),
}

/// The trials of one node.
#[derive(Debug, Default)]
pub struct Trials {
    running: BTreeMap<String, RunningTrial>,
    /// The BpfPrograms without which the Lease was not renewed either, until their trial reopens.
    excused: BTreeSet<String>,
    next: Option<Instant>,
}

/// One undecided trial.
#[derive(Clone, Debug)]
struct RunningTrial {
    noted: Trial,
    /// When this agent first saw the state; absent where an earlier agent noted it.
    since: Option<Instant>,
    /// The number of probes in a row whose outcome would change the state.
    in_a_row: u32,
    lease: LeaseWatch,
}

impl RunningTrial {
    /// Begins or continues a trial in a state that this agent sees for the first time.
    fn new(noted: Trial, since: Option<Instant>, beginning: Beginning, now: Instant) -> Self {
        Self { noted, since, in_a_row: 0, lease: LeaseWatch::new(beginning, now) }
    }

    fn probed(&mut self, probe: ProbeResult, sent: Instant, now: Instant) -> Option<TrialState> {
        // That probe says nothing about what was attached after it was sent.
        if self.since.is_some_and(|since| since > sent) {
            return None;
        }
        self.take(probe, now);
        let reached = probe != ProbeResult::Unreached;
        match self.noted.state {
            TrialState::Open => {
                self.judge_attached(reached, now, [TrialState::Suspected, TrialState::SuspectedByLease])
            }
            TrialState::Reopened => {
                self.judge_attached(reached, now, [TrialState::Reverted, TrialState::RevertedByLease])
            }
            TrialState::Suspected if reached && self.is_within(RELIEF, now) => Some(TrialState::Reverted),
            TrialState::Suspected => (self.in_a_row >= ENOUGH).then_some(TrialState::Reprieved),
            TrialState::SuspectedByLease if self.lease.was_renewed() && self.is_within(LEASE_RELIEF, now) => {
                Some(TrialState::RevertedByLease)
            }
            TrialState::SuspectedByLease => match self.lease.finding(now) {
                Finding::Renewed => Some(TrialState::Reprieved),
                Finding::Unusable => (self.in_a_row >= ENOUGH).then_some(TrialState::Reprieved),
                Finding::Awaited | Finding::Silent => self.is_unrenewed().then_some(TrialState::Reprieved),
            },
            TrialState::Reprieved
            | TrialState::Passed
            | TrialState::PassedWithoutLease
            | TrialState::Reverted
            | TrialState::RevertedByLease => None,
        }
    }

    fn take(&mut self, probe: ProbeResult, now: Instant) {
        if let ProbeResult::Reached(reading) = probe {
            self.lease.read(reading, now);
        }
        let counts = match self.noted.state {
            TrialState::SuspectedByLease => {
                !matches!(probe, ProbeResult::Unreached | ProbeResult::Reached(LeaseReading::Unread))
            }
            noted => (probe == ProbeResult::Unreached) == noted.is_open(),
        };
        self.in_a_row = if counts { self.in_a_row + 1 } else { 0 };
    }

    /// Returns whether this agent saw the state for the first time less than this long ago.
    fn is_within(&self, time: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) < time)
    }

    /// Returns the state that follows while the program is attached; `lost` are those where the API server can't be
    /// reached and where the Lease is not renewed.
    fn judge_attached(&self, reached: bool, now: Instant, lost: [TrialState; 2]) -> Option<TrialState> {
        let [by_server, by_lease] = lost;
        let is_over = !self.is_within(WINDOW, now);
        match self.lease.finding(now) {
            _ if self.in_a_row >= ENOUGH => Some(by_server),
            _ if !reached => None,
            Finding::Silent => Some(by_lease),
            Finding::Renewed => is_over.then_some(TrialState::Passed),
            Finding::Unusable => is_over.then_some(TrialState::PassedWithoutLease),
            Finding::Awaited => None,
        }
    }

    /// Returns whether nobody renews the Lease, given that the program is detached.
    fn is_unrenewed(&self) -> bool {
        !self.lease.was_renewed() && self.in_a_row >= UNRENEWED
    }
}

impl Trials {
    /// Records the noted states of all undecided trials. The trial of another revision is another one.
    pub fn follow(&mut self, undecided: BTreeMap<String, Trial>, now: Instant) {
        let before = mem::take(&mut self.running);
        let trial = |(name, noted): (String, Trial)| {
            let is_excused = self.excused.remove(&name);
            let (is_suspected, beginning) = match noted.state {
                TrialState::Reopened if is_excused => (false, Beginning::Excused),
                state if state.is_suspected() => (true, Beginning::Reverted),
                _ => (false, Beginning::Attached),
            };
            let trial = match before.get(&name) {
                Some(trial) if trial.noted == noted => trial.clone(),
                None if is_suspected => RunningTrial::new(noted, None, beginning, now),
                _ => RunningTrial::new(noted, Some(now), beginning, now),
            };
            (name, trial)
        };
        self.running = undecided.into_iter().map(trial).collect();
        self.next = (!self.running.is_empty()).then(|| self.next.unwrap_or(now + PROBE_INTERVAL));
    }

    /// Returns when to probe next, if at all.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Handles the outcome of a probe that was `sent` then; returns the states that follow. One that could not be noted
    /// follows from the next probe too.
    pub fn probed(&mut self, probe: ProbeResult, sent: Instant, now: Instant) -> BTreeMap<String, TrialState> {
        self.next = Some(now + PROBE_INTERVAL);
        let mut states = BTreeMap::new();
        for (name, trial) in &mut self.running {
            let Some(state) = trial.probed(probe, sent, now) else { continue };
            if state == TrialState::Reprieved && trial.is_unrenewed() {
                self.excused.insert(name.clone());
            }
            states.insert(name.clone(), state);
        }
        states
    }
}
