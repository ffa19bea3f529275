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
const SOON: Duration = Duration::from_secs(60);
/// No wait is longer.
const LATE: Duration = Duration::from_secs(300);

/// Since when, and for how long, that bytes are awaited is not told.
#[derive(Debug, Default)]
pub struct Interim {
    wait: Option<(Duration, Instant)>,
}

impl Interim {
    /// The status as it is told: of BpfPrograms that await bytes, and of which nothing else is new, it says what was `told` last.
    pub fn hold(
        &mut self,
        mut status: BpfNodeStatus,
        told: &BpfNodeStatus,
        awaiting: &BTreeSet<&str>,
        now: Instant,
    ) -> BpfNodeStatus {
        if self.is_due(!awaiting.is_empty(), now) {
            return status;
        }
        let mut details = mem::take(&mut status.details).into_iter().peekable();
        for program in mem::take(&mut status.programs) {
            let entry = Entry { details: details.next_if(|details| details.name == program.name), program };
            let before = Entry::of(told, &entry.program.name);
            let entry = match before {
                _ if !awaiting.contains(entry.program.name.as_str()) => Some(entry),
                Some(before) if before.holds() == entry.holds() => Some(before),
                None if entry.holds_nothing() => None,
                _ => Some(entry),
            };
            if let Some(Entry { program, details }) = entry {
                status.programs.push(program);
                status.details.extend(details);
            }
        }
        status.counts = counts(&status.programs, status.counts.links);
        let cut = status.truncated.take().unwrap_or_default();
        bound(status, cut)
    }

    /// Whether everything is told now.
    fn is_due(&mut self, awaits: bool, now: Instant) -> bool {
        if !awaits {
            self.wait = None;
            return true;
        }
        let (wait, since) = *self.wait.get_or_insert((SOON, now));
        let is_due = now.duration_since(since) >= wait;
        if is_due {
            self.wait = Some(((2 * wait).min(LATE), now));
        }
        is_due
    }
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
        assert_eq!(interim.hold(now.clone(), &told, &awaiting, start), expected);
        assert_eq!(interim.hold(now.clone(), &expected, &awaiting, start + SOON), now, "after a while all is told");
        assert_eq!(interim.hold(now.clone(), &told, &BTreeSet::new(), start), now);
        assert_eq!(interim.hold(status(&[]), &BpfNodeStatus::default(), &awaiting, start), status(&[]));
    }

    #[test]
    fn that_bytes_are_awaited_is_told_ever_later() {
        let (mut interim, start) = (Interim::default(), Instant::now());
        let mut told = |awaits, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|s| interim.is_due(awaits, start + Duration::from_secs(*s))).collect()
        };
        assert_eq!(told(true, 0..1400), [60, 180, 420, 720, 1020, 1320]);
        assert_eq!(told(false, 1400..1402), [1400, 1401]);
        assert_eq!(told(true, 1402..1500), [1462]);
    }
}
