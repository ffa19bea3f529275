//! `Throttle`: holds back the part of the node's statuses that is about to change. Pure.
//!
//! If every node reported at once that its objects are being fetched, a thousand nodes whose objects come slowly
//! because the API server is busy would keep it busy.

use std::{
    collections::BTreeSet,
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
    /// The BpfPrograms of which they say only that their object is being fetched.
    pub awaiting: BTreeSet<String>,
}

/// What is held back, for how long, and since when.
#[derive(Debug, Default)]
pub struct Throttle {
    fetches: Option<(Duration, Instant)>,
    changes: Option<(Duration, Instant)>,
}

impl Throttle {
    /// Returns the statuses to write now, if any. A BpfProgram that only waits for its object is in them as in the
    /// `last` ones that passed, or that another agent wrote before; the detail may be missing in these.
    pub fn pass(&mut self, report: Report, last: &Passed, now: Instant) -> Option<Passed> {
        let Report { mut status, mut detail, awaiting, older_layout: _, assignment: _ } = report;
        if awaiting.is_empty() {
            *self = Self::default();
            return Some(Passed { status, detail, awaiting });
        }
        if is_over(self.fetches.get_or_insert((FIRST_WAIT, now)), LONGEST_WAIT, now) {
            return Some(Passed { status, detail, awaiting });
        }
        let mut passed_awaiting = BTreeSet::new();
        let mut details = mem::take(&mut detail.programs).into_iter().peekable();
        for program in mem::take(&mut status.programs) {
            let entry = Entry { detail: details.next_if(|detail| detail.name == program.name), program };
            let name = entry.program.name.clone();
            let (entry, is_awaiting) = match awaiting.contains(&name) {
                true => entry.unless_held_back(last),
                false => (Some(entry), false),
            };
            passed_awaiting.extend(is_awaiting.then_some(name));
            if let Some(Entry { program, detail: of_program }) = entry {
                status.programs.push(program);
                detail.programs.extend(of_program);
            }
        }
        status.counts = counts(&status.programs, status.counts.links);
        let omitted = detail.omitted.take().unwrap_or_default();
        let (status, detail) = (fit_node::fit(status), fit_detail::fit(detail, omitted));
        let passed = Passed { status, detail, awaiting: passed_awaiting };
        if passed == *last || self.changes.as_mut().is_some_and(|wait| !is_over(wait, LONGEST_INTERVAL, now)) {
            return None;
        }
        self.changes.get_or_insert((FIRST_INTERVAL, now));
        Some(passed)
    }
}

/// Returns whether a wait is over; the next one is then twice as long.
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
    fn of(Passed { status, detail, awaiting: _ }: &Passed, name: &str) -> Option<Self> {
        let program = status.programs.binary_search_by(|program| program.name.as_str().cmp(name)).ok()?;
        let at = detail.programs.binary_search_by(|detail| detail.name.as_str().cmp(name)).ok();
        Some(Self {
            program: status.programs.get(program)?.clone(),
            detail: at.and_then(|at| detail.programs.get(at)).cloned(),
        })
    }

    /// Returns the entry of a BpfProgram that waits for its object if more than that is new, and otherwise that of the
    /// last statuses, be it none. Returns too whether it says only that the object is being fetched.
    fn unless_held_back(self, last: &Passed) -> (Option<Self>, bool) {
        let name = &self.program.name;
        let was_awaiting = last.awaiting.contains(name);
        match Self::of(last, name) {
            Some(Self { program, detail: None }) if held(&program) == held(&self.program) => {
                (Some(Self { program, ..self }), was_awaiting)
            }
            Some(before) if before.holds() == self.holds() => (Some(before), was_awaiting),
            None if self.holds_nothing() => (None, was_awaiting),
            _ => (Some(self), true),
        }
    }

    /// Returns the part that is about what the node holds, not about what is desired.
    fn holds(&self) -> Self {
        let of_detail = |detail| ProgramDetail { verifier_log: None, notes: Vec::new(), ..detail };
        Self { program: held(&self.program), detail: self.detail.clone().map(of_detail) }
    }

    fn holds_nothing(&self) -> bool {
        self.program.program_ids.is_empty() && self.program.map_ids.is_empty()
    }
}

/// Returns the part of a state that is about what the node holds, not about what is desired.
fn held(program: &NodeProgram) -> NodeProgram {
    NodeProgram { desired_revision: None, state: State::default(), reason: None, message: None, ..program.clone() }
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
        let status = BpfNodeStatus { programs, counts, ..BpfNodeStatus::default() };
        Passed { status, detail, awaiting: BTreeSet::new() }
    }

    fn waiting(passed: Passed, awaiting: &[&str]) -> Passed {
        Passed { awaiting: awaiting.iter().map(|name| (*name).to_owned()).collect(), ..passed }
    }

    fn report(Passed { status, detail, awaiting: _ }: Passed, awaiting: &[&str]) -> Report {
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
        let expected = waiting(expected, &["undone"]);
        assert_eq!(throttle.pass(report(now.clone(), &awaiting), &told, start), Some(expected.clone()));
        assert_eq!(
            throttle.pass(report(now.clone(), &awaiting), &expected, start + FIRST_INTERVAL),
            None,
            "nothing else changed"
        );
        assert_eq!(
            throttle.pass(report(now.clone(), &awaiting), &expected, start + FIRST_WAIT),
            Some(waiting(now.clone(), &awaiting)),
            "the fetch lasts long"
        );
        assert_eq!(throttle.pass(report(now.clone(), &[]), &told, start), Some(now));
    }

    #[test]
    fn what_an_earlier_agent_wrote_of_a_bpf_program_stays_while_its_object_is_fetched() {
        use State::{Attached, Failed};
        let wrote = Passed {
            detail: BpfNodeDetailStatus::default(),
            ..status(&[("lost", Failed, &[]), ("old", Failed, &[1])])
        };
        let mut now = status(&[("lost", Failed, &[]), ("old", Failed, &[2]), ("runs", Attached, &[3])]);
        now.status.programs[0].message = Some("is being fetched".to_owned());
        let passed = Throttle::default().pass(report(now, &["lost", "old"]), &wrote, Instant::now()).unwrap();
        assert_eq!(passed.status.programs[0], wrote.status.programs[0]);
        assert_eq!(passed.detail.programs.len(), 3);
        assert_eq!(Vec::from_iter(passed.awaiting), ["old"], "which holds something else than before");
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
