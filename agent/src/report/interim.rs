//! `Interim`: what of a report is told later, because it is about to change. Pure.
//!
//! Were that bytes are on their way told at once, a thousand nodes whose bytes come slowly because the API server is busy would
//! keep it busy.

use std::{
    collections::BTreeSet,
    mem,
    time::{Duration, Instant},
};

use sockeye_crds::{
    BpfNodeStatus,
    node::{Details, HeldProgram, State},
};

use super::{bound, counts};

/// That bytes are awaited is told after so long, then after twice as long, and so on.
const SOON: Duration = Duration::from_secs(120);
/// No wait is longer.
const LATE: Duration = Duration::from_secs(300);
/// Meanwhile other news is told at once, the next of it not within so long, then twice as long, and so on.
const NEXT: Duration = Duration::from_secs(5);
/// No news waits longer.
const LAST: Duration = Duration::from_secs(60);

/// Since when, and for how long, something is not told.
#[derive(Debug, Default)]
pub struct Interim {
    awaited: Option<(Duration, Instant)>,
    news: Option<(Duration, Instant)>,
}

impl Interim {
    /// The status as it is told now, if it is: of BpfPrograms that await bytes, and of which nothing else is new, it says what was
    /// `told` last.
    pub fn hold(
        &mut self,
        mut status: BpfNodeStatus,
        told: &BpfNodeStatus,
        awaiting: &BTreeSet<&str>,
        now: Instant,
    ) -> Option<BpfNodeStatus> {
        if awaiting.is_empty() {
            *self = Self::default();
            return Some(status);
        }
        if is_over(self.awaited.get_or_insert((SOON, now)), LATE, now) {
            return Some(status);
        }
        let mut details = mem::take(&mut status.details).into_iter().peekable();
        for program in mem::take(&mut status.programs) {
            let entry = Entry { details: details.next_if(|details| details.name == program.name), program };
            let entry = match awaiting.contains(entry.program.name.as_str()) {
                true => entry.but_for_its_wait(told),
                false => Some(entry),
            };
            if let Some(Entry { program, details }) = entry {
                status.programs.push(program);
                status.details.extend(details);
            }
        }
        status.counts = counts(&status.programs, status.counts.links);
        let cut = status.truncated.take().unwrap_or_default();
        let status = bound(status, cut);
        if status == *told || self.news.as_mut().is_some_and(|wait| !is_over(wait, LAST, now)) {
            return None;
        }
        self.news.get_or_insert((NEXT, now));
        Some(status)
    }
}

/// Whether a wait is over; then the next is twice as long.
fn is_over((wait, since): &mut (Duration, Instant), longest: Duration, now: Instant) -> bool {
    let is_over = now.duration_since(*since) >= *wait;
    if is_over {
        (*wait, *since) = ((2 * *wait).min(longest), now);
    }
    is_over
}

/// What is said of one BpfProgram. Its details may have been cut.
#[derive(PartialEq)]
struct Entry {
    program: HeldProgram,
    details: Option<Details>,
}

impl Entry {
    /// What a status says of that one. Both its lists are in the order of names.
    fn of(status: &BpfNodeStatus, name: &str) -> Option<Self> {
        let program = status.programs.binary_search_by(|program| program.name.as_str().cmp(name)).ok()?;
        let details = status.details.binary_search_by(|details| details.name.as_str().cmp(name)).ok();
        Some(Self {
            program: status.programs.get(program)?.clone(),
            details: details.and_then(|at| status.details.get(at)).cloned(),
        })
    }

    /// What was told last of one that awaits bytes, be it nothing, unless anything else of it is new.
    fn but_for_its_wait(self, told: &BpfNodeStatus) -> Option<Self> {
        match Self::of(told, &self.program.name) {
            Some(before) if before.holds() == self.holds() => Some(before),
            None if self.holds_nothing() => None,
            _ => Some(self),
        }
    }

    /// What of it is about what the node holds, and not about what is wanted.
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

    #[test]
    fn what_waits_for_bytes_does_not_hold_back_the_rest() {
        use State::{Attached, Failed};
        let told = status(&[("old", Attached, &[1]), ("undone", Attached, &[2])]);
        let now =
            status(&[("fails", Failed, &[]), ("new", Failed, &[]), ("old", Failed, &[1]), ("undone", Failed, &[])]);
        let awaiting = BTreeSet::from(["new", "old", "undone"]);
        let (mut interim, start) = (Interim::default(), Instant::now());
        let expected = status(&[("fails", Failed, &[]), ("old", Attached, &[1]), ("undone", Failed, &[])]);
        assert_eq!(interim.hold(now.clone(), &told, &awaiting, start), Some(expected.clone()));
        assert_eq!(interim.hold(now.clone(), &expected, &awaiting, start + NEXT), None, "nothing is new");
        assert_eq!(interim.hold(now.clone(), &expected, &awaiting, start + SOON), Some(now.clone()), "all is told");
        assert_eq!(interim.hold(now.clone(), &told, &BTreeSet::new(), start), Some(now));
    }

    /// The seconds of these in which there is something to tell: of a BpfProgram that awaits bytes, or besides of another, whose
    /// program is another one each time.
    fn told(besides: bool, seconds: std::ops::Range<u64>) -> Vec<u64> {
        let (mut interim, start) = (Interim::default(), Instant::now());
        let mut told = BpfNodeStatus::default();
        let mut due = Vec::new();
        for second in seconds {
            let ids = [i64::try_from(second).unwrap()];
            let other = besides.then_some(("other", State::Attached, &ids[..]));
            let now: Vec<_> = [("awaits", State::Failed, &[][..])].into_iter().chain(other).collect();
            let awaiting = BTreeSet::from(["awaits"]);
            if let Some(status) = interim.hold(status(&now), &told, &awaiting, start + Duration::from_secs(second)) {
                due.push(second);
                told = status;
            }
        }
        due
    }

    #[test]
    fn it_is_told_ever_later() {
        assert_eq!(told(false, 0..1400), [120, 360, 660, 960, 1260]);
        assert_eq!(told(true, 0..100), [0, 5, 15, 35, 75]);
    }
}
