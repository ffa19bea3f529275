//! `Track`: one BpfProgram on this node, over time: what it is to have, what it has, why these differ, when to try again.

use std::time::{Duration, Instant};

use sockeye_crds::{BpfRevision, Reason, node::State};

use crate::{failure::Failure, held::Held, wanted::Wanted};

/// The first wait after a failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One BpfProgram on this node.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// The BpfProgram's UID, where it is wanted.
    pub uid: Option<String>,
    /// The wanted revision; absent once the BpfProgram is to have nothing here.
    pub revision: Option<String>,
    /// What that revision comes to on this node; absent where that can't be told.
    pub wanted: Option<Wanted>,
    /// What is there, as last observed.
    pub held: Held,
    /// Whether planning from what is there to what is wanted gives nothing to do.
    pub settled: bool,
    /// Why what is there is not what is wanted.
    pub failure: Option<Failure>,
    /// What was asked for and deliberately not done.
    pub notes: Vec<String>,
    /// Whether it was ever told what is wanted: a home found at start has to be looked at, wanted or not.
    seen: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Track {
    /// Whether anything is to be here.
    pub const fn is_wanted(&self) -> bool {
        self.revision.is_some()
    }

    /// How it stands.
    pub fn state(&self) -> State {
        match (&self.revision, &self.failure) {
            (None, _) => State::Removing,
            (Some(_), None) if self.settled && self.held.links.values().all(|link| link.in_effect) => State::Attached,
            (Some(_), _) => State::Failed,
        }
    }

    /// Notes what an attempt came to, and when to try again.
    pub fn outcome(&mut self, outcome: Result<(), Failure>, now: Instant) {
        match outcome {
            Ok(()) => {
                self.failure = None;
                self.failures = 0;
                self.retry_at = None;
            }
            Err(failure) => {
                self.settled = false;
                self.failure = Some(failure);
                let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Some(now + wait);
            }
        }
    }

    /// Takes the wanted revision; tells whether it is another one than before. What failed before says nothing about it.
    pub fn set_revision(&mut self, revision: Option<&BpfRevision>) -> bool {
        let name = revision.and_then(|r| r.metadata.name.as_deref());
        let changed = name != self.revision.as_deref() || (name.is_none() && !self.seen);
        if changed {
            self.failures = 0;
            self.retry_at = None;
            self.revision = name.map(str::to_owned);
            // A revision's name says all of it, its BpfProgram's UID too.
            self.uid = revision.map(|r| r.spec.program.uid.clone());
        }
        self.seen = true;
        changed
    }

    /// What is wanted can't be told: what is there stays, and is told with the reason.
    pub fn leave_alone(&mut self, held: Held, why: String) {
        self.observe(held);
        self.revision = self.held.revision.clone();
        self.uid = self.held.uid.clone();
        self.failure = Some(Failure::new(Reason::Unsupported, why));
        self.settled = false;
        self.seen = false;
    }

    /// When to try again, after a failure.
    pub const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Takes a new observation. Memory that a map holds can move with its content; the first figure stays, so that
    /// traffic causes no API writes.
    pub fn observe(&mut self, mut held: Held) {
        for (pin, map) in &mut held.maps {
            if let Some(before) = self.held.maps.get(pin).filter(|before| before.info.id == map.info.id) {
                map.info.memlock_bytes = before.info.memlock_bytes;
            }
        }
        self.held = held;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_success_clears_them() {
        let mut track = Track::default();
        let now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            track.outcome(Err(Failure::new(Reason::LoadFailed, "no")), now);
            waits.push(track.retry_at().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[11], 300);
        track.outcome(Ok(()), now);
        assert_eq!(track.retry_at(), None);
    }
}
