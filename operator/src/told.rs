//! `Told`: how often what the nodes say becomes a status. Pure: time comes in as an argument.
//!
//! - What it comes to, a condition's status or reason, is told at once: a rollout that is complete looks complete.
//! - Everything else, counts and IDs, is told at most every interval, which grows with the number of nodes.
//! - What comes to something else again within an interval, as on a node that flaps, waits too.
//!
//! So there are at most two writes an interval, beside those that a change of the spec makes.

use std::time::{Duration, Instant};

use sockeye_crds::BpfProgramStatus;

/// When a BpfProgram's status was told last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    last: Option<Instant>,
    turn: Option<Instant>,
}

/// What a change of a status amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The spec changed.
    Spec,
    /// It comes to something else.
    Turn,
    /// Some count or ID.
    Detail,
}

impl Told {
    /// From when on a change may be told; in the past, where it may be now.
    pub fn due(&self, before: &BpfProgramStatus, after: &BpfProgramStatus, nodes: usize) -> Option<Instant> {
        let since = match change(before, after) {
            Change::Spec => None,
            Change::Turn => self.turn,
            Change::Detail => self.last,
        };
        since.map(|since| since + interval(nodes))
    }

    /// Notes that it was told.
    pub fn tell(&mut self, before: &BpfProgramStatus, after: &BpfProgramStatus, now: Instant) {
        self.last = Some(now);
        if change(before, after) == Change::Turn {
            self.turn = Some(now);
        }
    }
}

/// How often so many nodes' details are told.
pub fn interval(nodes: usize) -> Duration {
    Duration::from_millis(2 * nodes as u64).max(Duration::from_secs(1))
}

fn change(before: &BpfProgramStatus, after: &BpfProgramStatus) -> Change {
    let comes_to = |status: &BpfProgramStatus| -> Vec<_> {
        status.conditions.iter().map(|c| (c.type_, c.status, c.reason)).collect()
    };
    if (before.observed_generation, &before.dispatch) != (after.observed_generation, &after.dispatch) {
        Change::Spec
    } else if comes_to(before) != comes_to(after) {
        Change::Turn
    } else {
        Change::Detail
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use sockeye_crds::{Condition, ConditionType, Reason, condition};

    use super::*;

    fn status(generation: i64, ready: bool, attached: i64) -> BpfProgramStatus {
        let mut status = BpfProgramStatus { observed_generation: generation, ..BpfProgramStatus::default() };
        status.nodes.attached = attached;
        status.conditions.push(Condition {
            type_: ConditionType::Ready,
            status: condition::Status::from(ready),
            observed_generation: generation,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: if ready { Reason::InEffect } else { Reason::Progressing },
            message: format!("{attached} nodes"),
        });
        status
    }

    #[test]
    fn counts_wait_and_what_they_come_to_does_not() {
        let (start, nodes) = (Instant::now(), 1000);
        let mut told = Told::default();
        let dispatched = status(1, false, 0);
        assert_eq!(told.due(&status(0, false, 0), &dispatched, nodes), None);
        told.tell(&status(0, false, 0), &dispatched, start);
        assert_eq!(told.due(&dispatched, &status(1, false, 500), nodes), Some(start + Duration::from_secs(2)));
        let complete = status(1, true, 1000);
        assert_eq!(told.due(&dispatched, &complete, nodes), None, "the first turn");
        told.tell(&dispatched, &complete, start);
        let flapped = status(1, false, 999);
        assert_eq!(told.due(&complete, &flapped, nodes), Some(start + Duration::from_secs(2)));
        assert_eq!(told.due(&complete, &status(2, false, 0), nodes), None, "a new spec");
    }

    #[test]
    fn few_nodes_are_told_every_second() {
        assert_eq!([interval(3), interval(500), interval(5000)], [1, 1, 10].map(Duration::from_secs));
    }
}
