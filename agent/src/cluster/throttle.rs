//! `Throttle`: holds back the part of a status that is about to change. Pure.
//!
//! If every node reported at once that its objects are being fetched, a thousand nodes whose objects come slowly
//! because the API server is busy would keep it busy.

use std::{
    mem,
    time::{Duration, Instant},
};

use sockeye_crds::{
    BpfNodeStatus,
    node::{Details, HeldProgram, State},
};

use crate::control::{
    event::Report,
    report::{counts::counts, truncate::truncate},
};

/// A fetch that lasts this long is reported; the next time after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(120);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Meanwhile the first other change is reported at once, the next one after this long, then after twice as long, and so
/// on.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// The longest such interval.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// What is held back, for how long, and since when.
#[derive(Debug, Default)]
pub struct Throttle {
    fetches: Option<(Duration, Instant)>,
    changes: Option<(Duration, Instant)>,
}

impl Throttle {
    /// Returns the status to write now, if any. A BpfProgram that only waits for its object is in it as in the `last`
    /// one that passed.
    pub fn pass(&mut self, report: Report, last: &BpfNodeStatus, now: Instant) -> Option<BpfNodeStatus> {
        let Report { mut status, awaiting, assignment: _ } = report;
        if awaiting.is_empty() {
            *self = Self::default();
            return Some(status);
        }
        if is_over(self.fetches.get_or_insert((FIRST_WAIT, now)), LONGEST_WAIT, now) {
            return Some(status);
        }
        let mut details = mem::take(&mut status.details).into_iter().peekable();
        for program in mem::take(&mut status.programs) {
            let entry = Entry { details: details.next_if(|details| details.name == program.name), program };
            let entry = match awaiting.contains(&entry.program.name) {
                true => entry.without_wait(last),
                false => Some(entry),
            };
            if let Some(Entry { program, details }) = entry {
                status.programs.push(program);
                status.details.extend(details);
            }
        }
        status.counts = counts(&status.programs, status.counts.links);
        let cut = status.truncated.take().unwrap_or_default();
        let status = truncate(status, cut);
        if status == *last || self.changes.as_mut().is_some_and(|wait| !is_over(wait, LONGEST_INTERVAL, now)) {
            return None;
        }
        self.changes.get_or_insert((FIRST_INTERVAL, now));
        Some(status)
    }
}

/// Reports whether a wait is over; the next one is then twice as long.
fn is_over((wait, since): &mut (Duration, Instant), longest: Duration, now: Instant) -> bool {
    let is_over = now.duration_since(*since) >= *wait;
    if is_over {
        (*wait, *since) = ((2 * *wait).min(longest), now);
    }
    is_over
}

/// What a status says of one BpfProgram. Its details may have been cut.
#[derive(PartialEq)]
struct Entry {
    program: HeldProgram,
    details: Option<Details>,
}

impl Entry {
    /// Returns the entry of a BpfProgram. Both lists of a status are sorted by name.
    fn of(status: &BpfNodeStatus, name: &str) -> Option<Self> {
        let program = status.programs.binary_search_by(|program| program.name.as_str().cmp(name)).ok()?;
        let details = status.details.binary_search_by(|details| details.name.as_str().cmp(name)).ok();
        Some(Self {
            program: status.programs.get(program)?.clone(),
            details: details.and_then(|at| status.details.get(at)).cloned(),
        })
    }

    /// Returns the entry of the last status instead, be it none, unless more than the wait for the object is new.
    fn without_wait(self, last: &BpfNodeStatus) -> Option<Self> {
        match Self::of(last, &self.program.name) {
            Some(before) if before.holds() == self.holds() => Some(before),
            None if self.holds_nothing() => None,
            _ => Some(self),
        }
    }

    /// Returns the part that is about what the node holds, not about what is desired.
    fn holds(&self) -> Self {
        let program = HeldProgram { state: State::Failed, reason: None, ..self.program.clone() };
        let held = |details| Details { wanted: None, message: None, verifier_log: None, notes: Vec::new(), ..details };
        Self { program, details: self.details.clone().map(held) }
    }

    fn holds_nothing(&self) -> bool {
        self.program.program_ids.is_empty() && self.program.map_ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(programs: &[(&str, State, &[i64])]) -> BpfNodeStatus {
        let program = |&(name, state, ids): &(&str, State, &[i64])| HeldProgram {
            name: name.to_owned(),
            uid: "u".to_owned(),
            revision: None,
            state,
            reason: None,
            program_ids: ids.to_vec(),
            map_ids: Vec::new(),
        };
        let programs: Vec<_> = programs.iter().map(program).collect();
        let details = |program: &HeldProgram| Details {
            name: program.name.clone(),
            message: Some(format!("{:?}", program.state)),
            ..Details::default()
        };
        let (details, counts) = (programs.iter().map(details).collect(), counts(&programs, 0));
        BpfNodeStatus { programs, details, counts, ..BpfNodeStatus::default() }
    }

    fn report(status: BpfNodeStatus, awaiting: &[&str]) -> Report {
        Report { status, awaiting: awaiting.iter().map(|name| (*name).to_owned()).collect(), assignment: None }
    }

    #[test]
    fn a_fetch_does_not_hold_back_other_changes() {
        use State::{Attached, Failed};
        let told = status(&[("old", Attached, &[1]), ("undone", Attached, &[2])]);
        let now =
            status(&[("fails", Failed, &[]), ("new", Failed, &[]), ("old", Failed, &[1]), ("undone", Failed, &[])]);
        let awaiting = ["new", "old", "undone"];
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let expected = status(&[("fails", Failed, &[]), ("old", Attached, &[1]), ("undone", Failed, &[])]);
        assert_eq!(throttle.pass(report(now.clone(), &awaiting), &told, start), Some(expected.clone()));
        assert_eq!(
            throttle.pass(report(now.clone(), &awaiting), &expected, start + FIRST_INTERVAL),
            None,
            "nothing else changed"
        );
        assert_eq!(
            throttle.pass(report(now.clone(), &awaiting), &expected, start + FIRST_WAIT),
            Some(now.clone()),
            "the fetch lasts long"
        );
        assert_eq!(throttle.pass(report(now.clone(), &[]), &told, start), Some(now));
    }

    /// Returns the seconds in which a status passes: of a BpfProgram that waits for its object, and maybe of another
    /// one whose program changes every second.
    fn passes(changing: bool, seconds: std::ops::Range<u64>) -> Vec<u64> {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut told = BpfNodeStatus::default();
        let mut due = Vec::new();
        for second in seconds {
            let ids = [i64::try_from(second).unwrap()];
            let other = changing.then_some(("other", State::Attached, &ids[..]));
            let now: Vec<_> = [("awaits", State::Failed, &[][..])].into_iter().chain(other).collect();
            let awaiting = ["awaits"];
            if let Some(status) =
                throttle.pass(report(status(&now), &awaiting), &told, start + Duration::from_secs(second))
            {
                due.push(second);
                told = status;
            }
        }
        due
    }

    #[test]
    fn reports_of_a_long_fetch_become_rarer() {
        assert_eq!(passes(false, 0..1400), [120, 360, 660, 960, 1260]);
        assert_eq!(passes(true, 0..100), [0, 5, 15, 35, 75]);
    }
}
