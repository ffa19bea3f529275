//! [`StatusThrottle`]: bounds the status writes of one BpfProgram. IO: none; callers pass the time.
//!
//! - A condition's new status or reason is written at once: a rollout that is complete looks complete.
//! - Counts and IDs are written at most once an interval, which grows with the number of nodes.
//! - A second transition within an interval waits too, as on a node that flaps.
//!
//! So there are at most two writes an interval, and one for each change of the spec.

use std::time::{Duration, Instant};

use sockeye_crds::BpfProgramStatus;

/// The times of a BpfProgram's last status writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusThrottle {
    last_write: Option<Instant>,
    last_transition: Option<Instant>,
}

/// A kind of status change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The spec changed.
    Spec,
    /// A condition's status or reason changed.
    Transition,
    /// Only counts, IDs or messages changed.
    Detail,
}

impl StatusThrottle {
    /// Returns the earliest time of a write; none if it may happen now.
    pub fn earliest(&self, before: &BpfProgramStatus, after: &BpfProgramStatus, nodes: usize) -> Option<Instant> {
        let last = match Change::between(before, after) {
            Change::Spec => None,
            Change::Transition => self.last_transition,
            Change::Detail => self.last_write,
        };
        last.map(|last| last + write_interval(nodes))
    }

    /// Records a write.
    pub fn record(&mut self, before: &BpfProgramStatus, after: &BpfProgramStatus, now: Instant) {
        self.last_write = Some(now);
        if Change::between(before, after) == Change::Transition {
            self.last_transition = Some(now);
        }
    }
}

/// Returns the interval between writes about this many nodes.
fn write_interval(nodes: usize) -> Duration {
    Duration::from_millis(2 * nodes as u64).max(Duration::from_secs(1))
}

impl Change {
    fn between(before: &BpfProgramStatus, after: &BpfProgramStatus) -> Self {
        let outcomes = |status: &BpfProgramStatus| -> Vec<_> {
            status.conditions.iter().map(|condition| (condition.type_, condition.status, condition.reason)).collect()
        };
        if (before.observed_generation, &before.current_revision)
            != (after.observed_generation, &after.current_revision)
        {
            Self::Spec
        } else if outcomes(before) != outcomes(after) {
            Self::Transition
        } else {
            Self::Detail
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use sockeye_crds::{Condition, ConditionType, Reason, condition, program::NodeCounts};

    use super::*;

    fn status(generation: i64, is_ready: bool, attached: i64) -> BpfProgramStatus {
        let nodes = NodeCounts { attached, ..NodeCounts::default() };
        let mut status = BpfProgramStatus {
            observed_generation: Some(generation),
            nodes: Some(nodes),
            ..BpfProgramStatus::default()
        };
        status.conditions.push(Condition {
            type_: ConditionType::Ready,
            status: condition::Status::from(is_ready),
            observed_generation: Some(generation),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: if is_ready { Reason::InEffect } else { Reason::Progressing },
            message: format!("{attached} nodes"),
        });
        status
    }

    #[test]
    fn counts_wait_for_the_interval_and_a_first_transition_does_not() {
        let (start, nodes) = (Instant::now(), 1000);
        let mut throttle = StatusThrottle::default();
        let dispatched = status(1, false, 0);
        assert_eq!(throttle.earliest(&status(0, false, 0), &dispatched, nodes), None);
        throttle.record(&status(0, false, 0), &dispatched, start);
        let half = status(1, false, 500);
        assert_eq!(throttle.earliest(&dispatched, &half, nodes), Some(start + Duration::from_secs(2)));
        let complete = status(1, true, 1000);
        assert_eq!(throttle.earliest(&dispatched, &complete, nodes), None, "the first transition");
        throttle.record(&dispatched, &complete, start);
        let flapped = status(1, false, 999);
        assert_eq!(throttle.earliest(&complete, &flapped, nodes), Some(start + Duration::from_secs(2)));
        assert_eq!(throttle.earliest(&complete, &status(2, false, 0), nodes), None, "a new spec");
    }

    #[test]
    fn the_interval_is_a_second_up_to_500_nodes_and_grows_with_more() {
        assert_eq!([write_interval(3), write_interval(500), write_interval(5000)], [1, 1, 10].map(Duration::from_secs));
    }
}
