//! `Probation`: whether what was attached lately has cut this node off from the API server. Pure: time and the outcome of
//! each probe come in as arguments.
//!
//! - What can deny traffic is on trial for half a minute after it was attached; meanwhile the API server is probed.
//! - Where it can't be reached several times in a row, all that is on trial is taken back.
//! - Reached soon after that, it was to blame, and stays detached until another revision is wanted. Not reached without it
//!   either, it was not: it is attached again, and its trial is over.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// So long a trial takes.
const WINDOW: Duration = Duration::from_secs(30);
/// The API server is probed so often meanwhile.
const EVERY: Duration = Duration::from_secs(2);
/// So many probes that fail in a row are no accident.
const ENOUGH: u32 = 3;
/// What was taken back is to blame if the API server can be reached within so long.
const RELIEF: Duration = Duration::from_secs(15);

/// The trials of one node.
#[derive(Debug, Default)]
pub struct Probation {
    on_trial: BTreeSet<String>,
    until: Option<Instant>,
    failed: u32,
    next: Option<Instant>,
    taken_back: Option<(BTreeSet<String>, Instant)>,
}

/// What is to be done with BpfPrograms that were on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// They did no harm.
    Pass(BTreeSet<String>),
    /// They may have cut the node off: detach them.
    Revert(BTreeSet<String>),
    /// They were not to blame: attach them again.
    Acquit(BTreeSet<String>),
}

impl Probation {
    /// Takes what is on trial now.
    pub fn follow(&mut self, on_trial: BTreeSet<String>, now: Instant) {
        if !on_trial.is_subset(&self.on_trial) {
            self.until = Some(now + WINDOW);
            self.next.get_or_insert(now + EVERY);
        }
        self.on_trial = on_trial;
        if self.on_trial.is_empty() && self.taken_back.is_none() {
            *self = Self::default();
        }
    }

    /// When to probe next, if at all.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes a probe's outcome.
    pub fn probed(&mut self, reached: bool, now: Instant) -> Option<Ruling> {
        self.next = Some(now + EVERY);
        if let Some((names, since)) = self.taken_back.take() {
            if reached {
                tracing::warn!(programs = ?names, "the API server is reached again: what was detached had cut this node off");
                return None;
            }
            if now.duration_since(since) >= RELIEF {
                return Some(Ruling::Acquit(names));
            }
            self.taken_back = Some((names, since));
            return None;
        }
        self.failed = if reached { 0 } else { self.failed + 1 };
        if self.failed >= ENOUGH && !self.on_trial.is_empty() {
            self.failed = 0;
            self.taken_back = Some((self.on_trial.clone(), now));
            return Some(Ruling::Revert(self.on_trial.clone()));
        }
        let over = self.until.is_some_and(|until| until <= now);
        (reached && over && !self.on_trial.is_empty()).then(|| Ruling::Pass(self.on_trial.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["guard".to_owned()])
    }

    /// Probes as often as it asks for, with these outcomes; every ruling, with the second in which it came. What is ruled is
    /// done: something that was reverted or passed is not on trial any more.
    fn run(outcomes: impl IntoIterator<Item = bool>) -> Vec<(u64, Ruling)> {
        let start = Instant::now();
        let mut probation = Probation::default();
        probation.follow(names(), start);
        let mut rulings = Vec::new();
        for reached in outcomes {
            let Some(now) = probation.next() else { break };
            if let Some(ruling) = probation.probed(reached, now) {
                rulings.push((now.duration_since(start).as_secs(), ruling));
                probation.follow(BTreeSet::new(), now);
            }
        }
        rulings
    }

    #[test]
    fn half_a_minute_of_reaching_it_passes() {
        assert_eq!(run([true; 40]), [(30, Ruling::Pass(names()))]);
    }

    #[test]
    fn one_probe_that_fails_is_an_accident() {
        let mut outcomes = [true; 40];
        outcomes[3] = false;
        outcomes[5] = false;
        assert_eq!(run(outcomes), [(30, Ruling::Pass(names()))]);
    }

    #[test]
    fn it_is_to_blame_if_the_server_is_reached_without_it() {
        assert_eq!(run([false, false, false, true, true]), [(6, Ruling::Revert(names()))]);
        let late = [true; 14].into_iter().chain([false; 3]).chain([true; 9]);
        assert_eq!(run(late), [(34, Ruling::Revert(names()))], "it began to fail within the half minute");
    }

    #[test]
    fn it_is_not_if_the_server_is_not_reached_without_it_either() {
        assert_eq!(run([false; 40]), [(6, Ruling::Revert(names())), (22, Ruling::Acquit(names()))]);
    }

    #[test]
    fn nothing_on_trial_probes_nothing() {
        let mut probation = Probation::default();
        probation.follow(BTreeSet::new(), Instant::now());
        assert_eq!(probation.next(), None);
    }
}
