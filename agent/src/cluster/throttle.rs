//! `Throttle`: holds back the part of the node's statuses that is about to change. Pure.
//!
//! If every node reported at once that its objects are being fetched, a thousand nodes whose objects come slowly
//! because the API server is busy would keep it busy.

use std::{
    mem,
    time::{Duration, Instant},
};

use sockeye_crds::{
    BpfNodeDetailStatus, BpfNodeStatus,
    node::{NodeProgram, ProgramDetail, State},
};

use crate::control::{
    event::Report,
    report::{counts::counts, fit_detail, fit_node},
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

/// The statuses that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The status of the BpfNode, without conditions.
    pub status: BpfNodeStatus,
    /// The status of the BpfNodeDetail.
    pub detail: BpfNodeDetailStatus,
}

/// What is held back, for how long, and since when.
#[derive(Debug, Default)]
pub struct Throttle {
    fetches: Option<(Duration, Instant)>,
    changes: Option<(Duration, Instant)>,
}

impl Throttle {
    /// Returns the statuses to write now, if any. A BpfProgram that only waits for its object is in them as in the
    /// `last` ones that passed.
    pub fn pass(&mut self, report: Report, last: &Passed, now: Instant) -> Option<Passed> {
        let Report { mut status, mut detail, awaiting, older_layout: _, assignment: _ } = report;
        if awaiting.is_empty() {
            *self = Self::default();
            return Some(Passed { status, detail });
        }
        if is_over(self.fetches.get_or_insert((FIRST_WAIT, now)), LONGEST_WAIT, now) {
            return Some(Passed { status, detail });
        }
        let mut details = mem::take(&mut detail.programs).into_iter().peekable();
        for program in mem::take(&mut status.programs) {
            let entry = Entry { detail: details.next_if(|detail| detail.name == program.name), program };
            let entry = match awaiting.contains(&entry.program.name) {
                true => entry.without_wait(last),
                false => Some(entry),
            };
            if let Some(Entry { program, detail: of_program }) = entry {
                status.programs.push(program);
                detail.programs.extend(of_program);
            }
        }
        status.counts = counts(&status.programs, status.counts.links);
        let omitted = detail.omitted.take().unwrap_or_default();
        let passed = Passed { status: fit_node::fit(status), detail: fit_detail::fit(detail, omitted) };
        if passed == *last || self.changes.as_mut().is_some_and(|wait| !is_over(wait, LONGEST_INTERVAL, now)) {
            return None;
        }
        self.changes.get_or_insert((FIRST_INTERVAL, now));
        Some(passed)
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

/// What the statuses say of one BpfProgram. Its detail may have been left out.
#[derive(PartialEq)]
struct Entry {
    program: NodeProgram,
    detail: Option<ProgramDetail>,
}

impl Entry {
    /// Returns the entry of a BpfProgram. The lists of both statuses are sorted by name.
    fn of(Passed { status, detail }: &Passed, name: &str) -> Option<Self> {
        let program = status.programs.binary_search_by(|program| program.name.as_str().cmp(name)).ok()?;
        let at = detail.programs.binary_search_by(|detail| detail.name.as_str().cmp(name)).ok();
        Some(Self {
            program: status.programs.get(program)?.clone(),
            detail: at.and_then(|at| detail.programs.get(at)).cloned(),
        })
    }

    /// Returns the entry of the last statuses instead, be it none, unless more than the wait for the object is new.
    fn without_wait(self, last: &Passed) -> Option<Self> {
        match Self::of(last, &self.program.name) {
            Some(before) if before.holds() == self.holds() => Some(before),
            None if self.holds_nothing() => None,
            _ => Some(self),
        }
    }

    /// Returns the part that is about what the node holds, not about what is desired.
    fn holds(&self) -> Self {
        let program = NodeProgram {
            desired_revision: None,
            state: State::default(),
            reason: None,
            message: None,
            ..self.program.clone()
        };
        let held = |detail| ProgramDetail { verifier_log: None, notes: Vec::new(), ..detail };
        Self { program, detail: self.detail.clone().map(held) }
    }

    fn holds_nothing(&self) -> bool {
        self.program.program_ids.is_empty() && self.program.map_ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(programs: &[(&str, State, &[i64])]) -> Passed {
        let program = |&(name, state, ids): &(&str, State, &[i64])| NodeProgram {
            name: name.to_owned(),
            uid: "u".to_owned(),
            state,
            message: Some(format!("{state:?}")),
            program_ids: ids.to_vec(),
            ..NodeProgram::default()
        };
        let programs: Vec<_> = programs.iter().map(program).collect();
        let detail = |program: &NodeProgram| ProgramDetail {
            name: program.name.clone(),
            notes: vec![format!("{:?}", program.state)],
            ..ProgramDetail::default()
        };
        let detail =
            BpfNodeDetailStatus { programs: programs.iter().map(detail).collect(), ..BpfNodeDetailStatus::default() };
        let counts = counts(&programs, 0);
        Passed { status: BpfNodeStatus { programs, counts, ..BpfNodeStatus::default() }, detail }
    }

    fn report(Passed { status, detail }: Passed, awaiting: &[&str]) -> Report {
        let awaiting = awaiting.iter().map(|name| (*name).to_owned()).collect();
        Report { status, detail, awaiting, ..Report::default() }
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
        let mut told = Passed::default();
        let mut due = Vec::new();
        for second in seconds {
            let ids = [i64::try_from(second).unwrap()];
            let other = changing.then_some(("other", State::Attached, &ids[..]));
            let now: Vec<_> = [("awaits", State::Failed, &[][..])].into_iter().chain(other).collect();
            let awaiting = ["awaits"];
            if let Some(passed) =
                throttle.pass(report(status(&now), &awaiting), &told, start + Duration::from_secs(second))
            {
                due.push(second);
                told = passed;
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
