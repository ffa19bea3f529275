//! [`Queue`]: the time at which each BpfProgram is reconciled next. IO: none; callers pass the time.
//!
//! - A trigger reconciles at once, then at most once every `interval`. One by a changed spec does not wait.
//! - A failure is retried with a growing delay: up to a minute, or some seconds if it is transient. A changed spec or a
//!   success resets the delay.
//! - A BpfProgram without a trigger is reconciled every `resync`.
//! - A BpfProgram is reconciled once at a time. A trigger meanwhile is kept.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{reconcile::Outcome, watch::trigger::Pace};

const INITIAL_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// An API server that is back gets a retry this soon.
const MAX_TRANSIENT_DELAY: Duration = Duration::from_secs(3);

/// The BpfPrograms to reconcile, and when.
#[derive(Debug)]
pub struct Queue {
    resync: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The time of the next reconciliation. While one runs, the time that a trigger asked for.
    due: Option<Instant>,
    /// True if the spec changed since the last reconciliation began.
    is_urgent: bool,
    is_running: bool,
    last_start: Option<Instant>,
    failures: u32,
    /// The end of the delay after a failure. Only a changed spec ends it early.
    delayed_until: Option<Instant>,
}

impl Queue {
    /// Creates an empty queue.
    pub fn new(resync: Duration) -> Self {
        Self { resync, entries: HashMap::new() }
    }

    /// Triggers a reconciliation. A paced one starts at the earliest `interval` after the last one.
    pub fn trigger(&mut self, name: &str, pace: Pace, interval: Duration, now: Instant) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        let due = match pace {
            Pace::Immediate => {
                entry.delayed_until = None;
                entry.is_urgent = true;
                now
            }
            Pace::Paced => {
                let paced = entry.last_start.map_or(now, |last| now.max(last + interval));
                entry.delayed_until.map_or(paced, |until| paced.max(until))
            }
        };
        entry.due = Some(entry.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Takes the next BpfProgram that is due. It runs until [`Queue::finish`].
    pub fn start(&mut self, now: Instant) -> Option<String> {
        let due = |entry: &Entry| entry.due.filter(|due| !entry.is_running && *due <= now);
        let next = self.entries.iter().filter_map(|(name, entry)| due(entry).map(|due| (due, name))).min()?;
        let name = next.1.clone();
        if let Some(entry) = self.entries.get_mut(&name) {
            let failures = entry.failures;
            *entry = Entry { is_running: true, last_start: Some(now), failures, ..Entry::default() };
        }
        Some(name)
    }

    /// Returns the time at which [`Queue::start`] has something next.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.is_running).filter_map(|entry| entry.due).min()
    }

    /// Returns the number of BpfPrograms that are due and wait, and for how long the first of them has.
    pub fn backlog(&self, now: Instant) -> (usize, Duration) {
        let waiting = self.entries.values().filter(|entry| !entry.is_running);
        let due: Vec<_> = waiting.filter_map(|entry| entry.due.filter(|due| *due <= now)).collect();
        (due.len(), due.iter().min().map_or(Duration::ZERO, |first| now.saturating_duration_since(*first)))
    }

    /// Records the outcome of a reconciliation, and schedules the next one.
    pub fn finish(&mut self, name: &str, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.is_running = false;
        match outcome {
            Outcome::Gone if entry.due.is_none() => {
                self.entries.remove(name);
            }
            Outcome::Done | Outcome::Gone => {
                entry.failures = 0;
                entry.due = entry.due.or(Some(now + self.resync));
            }
            Outcome::Throttled(until) => {
                entry.failures = 0;
                entry.due = Some(entry.due.map_or(until, |due| due.min(until)));
            }
            Outcome::Failed => entry.retry(MAX_DELAY, now),
            Outcome::Transient => entry.retry(MAX_TRANSIENT_DELAY, now),
        }
    }
}

impl Entry {
    /// Schedules a retry, with twice the last delay.
    fn retry(&mut self, max_delay: Duration, now: Instant) {
        let delay = INITIAL_DELAY.saturating_mul(1 << self.failures.min(16)).min(max_delay);
        self.failures += 1;
        if !self.is_urgent {
            self.delayed_until = Some(now + delay);
            self.due = self.delayed_until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn queue() -> (Queue, Instant) {
        (Queue::new(Duration::from_secs(300)), Instant::now())
    }

    #[test]
    fn the_first_trigger_reconciles_at_once_and_a_burst_once_more() {
        let (mut queue, start) = queue();
        queue.trigger("a", Pace::Paced, INTERVAL, start);
        assert_eq!(queue.start(start).as_deref(), Some("a"));
        queue.finish("a", Outcome::Done, start);
        for ms in [10, 20, 900] {
            queue.trigger("a", Pace::Paced, INTERVAL, start + Duration::from_millis(ms));
        }
        assert_eq!(queue.start(start + Duration::from_millis(999)), None);
        assert_eq!(queue.next_due(), Some(start + INTERVAL));
        assert_eq!(queue.start(start + INTERVAL).as_deref(), Some("a"));
        queue.finish("a", Outcome::Done, start + INTERVAL);
        assert_eq!(queue.next_due(), Some(start + INTERVAL + Duration::from_secs(300)));
    }

    #[test]
    fn the_backlog_is_what_is_due_and_does_not_run() {
        let (mut queue, start) = queue();
        assert_eq!(queue.backlog(start), (0, Duration::ZERO));
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.trigger("b", Pace::Immediate, INTERVAL, start + INTERVAL);
        assert_eq!(queue.backlog(start), (1, Duration::ZERO));
        assert_eq!(queue.backlog(start + 3 * INTERVAL), (2, 3 * INTERVAL));
        assert_eq!(queue.start(start + 3 * INTERVAL).as_deref(), Some("a"));
        assert_eq!(queue.backlog(start + 3 * INTERVAL), (1, 2 * INTERVAL));
    }

    #[test]
    fn a_throttled_program_is_reconciled_when_its_status_may_be_written_or_on_a_trigger() {
        let (mut queue, start) = queue();
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.start(start);
        let until = start + Duration::from_secs(7);
        queue.finish("a", Outcome::Throttled(until), start);
        assert_eq!(queue.next_due(), Some(until));
        queue.trigger("a", Pace::Paced, INTERVAL, start);
        assert_eq!(queue.next_due(), Some(start + INTERVAL));
    }

    #[test]
    fn a_changed_spec_does_not_wait_for_a_retry() {
        let (mut queue, start) = queue();
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.start(start);
        queue.finish("a", Outcome::Failed, start);
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        assert_eq!(queue.start(start).as_deref(), Some("a"));
    }

    #[test]
    fn a_program_is_reconciled_once_at_a_time_and_no_trigger_is_lost() {
        let (mut queue, start) = queue();
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.start(start);
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        assert_eq!((queue.start(start), queue.next_due()), (None, None));
        queue.finish("a", Outcome::Done, start);
        assert_eq!(queue.start(start).as_deref(), Some("a"));
    }

    #[test]
    fn retries_back_off_up_to_a_minute_and_paced_triggers_wait_with_them() {
        let (mut queue, mut now) = queue();
        queue.trigger("a", Pace::Immediate, INTERVAL, now);
        let mut delays = vec![];
        for _ in 0..12 {
            assert!(queue.start(now).is_some());
            queue.finish("a", Outcome::Failed, now);
            queue.trigger("a", Pace::Paced, Duration::ZERO, now);
            let due = queue.next_due().unwrap();
            delays.push(due - now);
            now = due;
        }
        assert_eq!(delays[..3], [250, 500, 1000].map(Duration::from_millis));
        assert_eq!(delays.last(), Some(&MAX_DELAY));
        queue.start(now);
        queue.finish("a", Outcome::Done, now);
        queue.trigger("a", Pace::Immediate, INTERVAL, now);
        queue.start(now);
        queue.finish("a", Outcome::Failed, now);
        assert_eq!(queue.next_due(), Some(now + INITIAL_DELAY), "a success resets the delay");
    }

    #[test]
    fn retries_of_transient_failures_back_off_up_to_three_seconds() {
        let (mut queue, mut now) = queue();
        queue.trigger("a", Pace::Paced, INTERVAL, now);
        let mut delays = vec![];
        for _ in 0..120 {
            queue.start(now);
            queue.finish("a", Outcome::Transient, now);
            let due = queue.next_due().unwrap();
            delays.push(due - now);
            now = due;
        }
        assert_eq!(delays.iter().max(), Some(&MAX_TRANSIENT_DELAY));
    }

    #[test]
    fn a_program_that_is_gone_is_forgotten_unless_triggered_meanwhile() {
        let (mut queue, start) = queue();
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.start(start);
        queue.finish("a", Outcome::Gone, start);
        assert_eq!(queue.next_due(), None);
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.start(start);
        queue.trigger("a", Pace::Immediate, INTERVAL, start);
        queue.finish("a", Outcome::Gone, start);
        assert_eq!(queue.start(start).as_deref(), Some("a"), "created again under its name");
    }
}
