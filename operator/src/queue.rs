//! `Queue`: when each BpfProgram is looked at again. Pure: time comes in as an argument.
//!
//! - Something touched is looked at at once, then at most every `interval`; a change of what is wanted does not wait.
//! - One that failed waits, longer each time, up to a minute, or some seconds where that passes by itself; a change of what
//!   is wanted, or a success, clears that.
//! - One that nothing touches is looked at every `resync`.
//! - A BpfProgram is never looked at twice at the same time; what touches it meanwhile is not lost.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::trigger::Pace;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// An API server that is back is asked so soon.
const LAST_HINDERED: Duration = Duration::from_secs(3);

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is as it should be, or waits for others.
    Settled,
    /// Everything is as it should be, but what there is to tell may be told only then.
    Untold(Instant),
    /// There is no such BpfProgram any more.
    Gone,
    /// Something failed; it is worth another try.
    Failed,
    /// Something failed that passes: the API server did not answer, or somebody else was quicker.
    Hindered,
}

/// When each BpfProgram is looked at again.
#[derive(Debug)]
pub struct Queue {
    resync: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// When to look next; while a look is under way, what was asked for meanwhile.
    due: Option<Instant>,
    /// What is wanted changed since the last look began.
    urgent: bool,
    running: bool,
    last: Option<Instant>,
    failures: u32,
    /// Not before this, unless what is wanted changes.
    held_back: Option<Instant>,
}

impl Queue {
    /// An empty queue.
    pub fn new(resync: Duration) -> Self {
        Self { resync, entries: HashMap::new() }
    }

    /// Asks for a look. `interval` is how long after the last one a paced look comes at the earliest.
    pub fn touch(&mut self, name: &str, pace: Pace, interval: Duration, now: Instant) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        let due = match pace {
            Pace::Now => {
                entry.held_back = None;
                entry.urgent = true;
                now
            }
            Pace::Paced => {
                let paced = entry.last.map_or(now, |last| now.max(last + interval));
                entry.held_back.map_or(paced, |until| paced.max(until))
            }
        };
        entry.due = Some(entry.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// The next one that is due, which is then under way until [`Queue::ended`].
    pub fn take(&mut self, now: Instant) -> Option<String> {
        let due = |entry: &Entry| entry.due.filter(|due| !entry.running && *due <= now);
        let next = self.entries.iter().filter_map(|(name, entry)| due(entry).map(|due| (due, name))).min()?;
        let name = next.1.clone();
        if let Some(entry) = self.entries.get_mut(&name) {
            let failures = entry.failures;
            *entry = Entry { due: None, urgent: false, running: true, last: Some(now), failures, held_back: None };
        }
        Some(name)
    }

    /// When [`Queue::take`] has something next.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.running).filter_map(|entry| entry.due).min()
    }

    /// Says how the look ended.
    pub fn ended(&mut self, name: &str, how: Ended, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.running = false;
        match how {
            Ended::Gone if entry.due.is_none() => {
                self.entries.remove(name);
            }
            Ended::Settled | Ended::Gone => {
                entry.failures = 0;
                entry.due = entry.due.or(Some(now + self.resync));
            }
            Ended::Untold(until) => {
                entry.failures = 0;
                entry.due = Some(entry.due.map_or(until, |due| due.min(until)));
            }
            Ended::Failed | Ended::Hindered => {
                let last = if how == Ended::Failed { LAST_RETRY } else { LAST_HINDERED };
                let wait = FIRST_RETRY.saturating_mul(1 << entry.failures.min(16)).min(last);
                entry.failures += 1;
                if !entry.urgent {
                    entry.held_back = Some(now + wait);
                    entry.due = entry.held_back;
                }
            }
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
    fn the_first_change_is_seen_at_once_and_a_burst_once_more() {
        let (mut queue, start) = queue();
        queue.touch("a", Pace::Paced, INTERVAL, start);
        assert_eq!(queue.take(start).as_deref(), Some("a"));
        queue.ended("a", Ended::Settled, start);
        for ms in [10, 20, 900] {
            queue.touch("a", Pace::Paced, INTERVAL, start + Duration::from_millis(ms));
        }
        assert_eq!(queue.take(start + Duration::from_millis(999)), None);
        assert_eq!(queue.next_due(), Some(start + INTERVAL));
        assert_eq!(queue.take(start + INTERVAL).as_deref(), Some("a"));
        queue.ended("a", Ended::Settled, start + INTERVAL);
        assert_eq!(queue.next_due(), Some(start + INTERVAL + Duration::from_secs(300)));
    }

    #[test]
    fn what_may_be_told_later_is_looked_at_then_or_when_touched() {
        let (mut queue, start) = queue();
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.take(start);
        let until = start + Duration::from_secs(7);
        queue.ended("a", Ended::Untold(until), start);
        assert_eq!(queue.next_due(), Some(until));
        queue.touch("a", Pace::Paced, INTERVAL, start);
        assert_eq!(queue.next_due(), Some(start + INTERVAL));
    }

    #[test]
    fn what_is_wanted_does_not_wait() {
        let (mut queue, start) = queue();
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.take(start);
        queue.ended("a", Ended::Failed, start);
        queue.touch("a", Pace::Now, INTERVAL, start);
        assert_eq!(queue.take(start).as_deref(), Some("a"));
    }

    #[test]
    fn one_look_at_a_time_and_nothing_lost() {
        let (mut queue, start) = queue();
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.take(start);
        queue.touch("a", Pace::Now, INTERVAL, start);
        assert_eq!((queue.take(start), queue.next_due()), (None, None));
        queue.ended("a", Ended::Settled, start);
        assert_eq!(queue.take(start).as_deref(), Some("a"));
    }

    #[test]
    fn failures_wait_longer_up_to_a_minute_and_paced_changes_wait_with_them() {
        let (mut queue, mut now) = queue();
        queue.touch("a", Pace::Now, INTERVAL, now);
        let mut waits = vec![];
        for _ in 0..12 {
            assert!(queue.take(now).is_some());
            queue.ended("a", Ended::Failed, now);
            queue.touch("a", Pace::Paced, Duration::ZERO, now);
            let due = queue.next_due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits[..3], [250, 500, 1000].map(Duration::from_millis));
        assert_eq!(waits.last(), Some(&LAST_RETRY));
        queue.take(now);
        queue.ended("a", Ended::Settled, now);
        queue.touch("a", Pace::Now, INTERVAL, now);
        queue.take(now);
        queue.ended("a", Ended::Failed, now);
        assert_eq!(queue.next_due(), Some(now + FIRST_RETRY), "a success clears it");
    }

    #[test]
    fn an_api_server_that_is_back_is_asked_soon() {
        let (mut queue, mut now) = queue();
        queue.touch("a", Pace::Paced, INTERVAL, now);
        let mut waits = vec![];
        for _ in 0..120 {
            queue.take(now);
            queue.ended("a", Ended::Hindered, now);
            let due = queue.next_due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits.iter().max(), Some(&LAST_HINDERED));
    }

    #[test]
    fn what_is_gone_is_forgotten_unless_touched_meanwhile() {
        let (mut queue, start) = queue();
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.take(start);
        queue.ended("a", Ended::Gone, start);
        assert_eq!(queue.next_due(), None);
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.take(start);
        queue.touch("a", Pace::Now, INTERVAL, start);
        queue.ended("a", Ended::Gone, start);
        assert_eq!(queue.take(start).as_deref(), Some("a"), "created again under its name");
    }
}
