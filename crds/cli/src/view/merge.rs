//! [`Merger`]: records of several nodes in the order of time.
//!
//! Each record waits for a while, in case another node has an earlier one on its way. Nodes whose clocks differ by more
//! are out of order by that.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// The most records that wait. Beyond it the earliest go at once.
const MAX_WAITING: usize = 10_000;

/// Records that wait.
pub struct Merger<T> {
    window: Duration,
    waiting: BinaryHeap<Waiting<T>>,
    /// Keeps records of one time in the order in which they came.
    next: u64,
}

struct Waiting<T> {
    time: Timestamp,
    order: u64,
    arrived: Instant,
    record: T,
}

impl<T> Merger<T> {
    /// Returns one in which records wait for so long.
    pub const fn new(window: Duration) -> Self {
        Self { window, waiting: BinaryHeap::new(), next: 0 }
    }

    /// Adds a record of this time.
    pub fn push(&mut self, time: Timestamp, record: T, now: Instant) {
        self.waiting.push(Waiting { time, order: self.next, arrived: now, record });
        self.next += 1;
    }

    /// Returns the records whose turn it is: those that have waited, and all of before their times.
    pub fn due(&mut self, now: Instant) -> Vec<T> {
        let waited = self.waiting.iter().filter(|one| now.duration_since(one.arrived) >= self.window);
        let until = waited.map(|one| one.time).max();
        let is_due = |one: &Waiting<T>, left: usize| until.is_some_and(|until| one.time <= until) || left > MAX_WAITING;
        let mut due = Vec::new();
        while self.waiting.peek().is_some_and(|one| is_due(one, self.waiting.len())) {
            due.extend(self.waiting.pop().map(|one| one.record));
        }
        due
    }

    /// Returns all records that wait, at the end.
    pub fn rest(&mut self) -> Vec<T> {
        let mut rest = Vec::with_capacity(self.waiting.len());
        while let Some(one) = self.waiting.pop() {
            rest.push(one.record);
        }
        rest
    }
}

/// The earliest is the greatest, for a heap gives that first.
impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.order).cmp(&(self.time, self.order))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    #[test]
    fn a_record_waits_for_earlier_ones_of_other_nodes() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut merger = Merger::new(Duration::from_millis(100));
        merger.push(at(20), "a20", after(0));
        merger.push(at(10), "b10", after(50));
        assert_eq!(merger.due(after(99)), Vec::<&str>::new());
        assert_eq!(merger.due(after(100)), ["b10", "a20"]);
        merger.push(at(30), "a30", after(150));
        merger.push(at(40), "a40", after(260));
        assert_eq!(merger.due(after(260)), ["a30"]);
        assert_eq!(merger.rest(), ["a40"]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut merger = Merger::new(Duration::from_secs(1));
        for millisecond in 0..20_000 {
            merger.push(at(millisecond), millisecond, now);
        }
        assert_eq!(merger.due(now).len(), 20_000 - MAX_WAITING);
    }

    proptest! {
        /// However records arrive within the window, they come out in the order of time, each once.
        #[test]
        fn records_that_arrive_within_the_window_come_in_order(delays in prop::collection::vec(0_u64..100, 1..60)) {
            let start = Instant::now();
            let mut merger = Merger::new(Duration::from_millis(100));
            let arrival = |(at, delay): (usize, &u64)| (at as u64 + delay, at);
            let mut arrivals: Vec<(u64, usize)> = delays.iter().enumerate().map(arrival).collect();
            arrivals.sort_unstable();
            let mut out = Vec::new();
            for (millisecond, record) in arrivals {
                let now = start + Duration::from_millis(millisecond);
                out.extend(merger.due(now));
                merger.push(at(i64::try_from(record).unwrap()), record, now);
            }
            out.extend(merger.rest());
            prop_assert_eq!(out, (0..delays.len()).collect::<Vec<_>>());
        }
    }
}
