//! `Activity`: what goes on in a connection, so that one in which nothing does can be ended. No IO.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A connection without a request is ended after this long.
const IDLE: Duration = Duration::from_secs(60);
/// A client that does not take the next piece of an answer is taken for gone after this long.
const STUCK: Duration = Duration::from_secs(15);

/// The requests of a connection, and the time of the last one.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: u64,
    /// The requests, each with the time since which its client is to take a piece of the answer.
    requests: BTreeMap<u64, Option<Instant>>,
    idle_since: Instant,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was asked for a while.
    Idle,
    /// The client does not read.
    Stuck,
}

/// A request that goes on.
#[derive(Debug)]
pub(super) struct Progress {
    activity: Activity,
    id: u64,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { next: 0, requests: BTreeMap::new(), idle_since: now })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request, which goes on until its [`Progress`] is dropped.
    pub(super) fn begin(&self) -> Progress {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.requests.insert(id, None);
        Progress { activity: self.clone(), id }
    }

    /// Returns why the connection is to be ended, if it is.
    pub(super) fn ending(&self, now: Instant) -> Option<Ending> {
        let state = self.state();
        let since = |begin: Instant| now.saturating_duration_since(begin);
        if state.requests.values().flatten().any(|handed| since(*handed) > STUCK) {
            return Some(Ending::Stuck);
        }
        (state.requests.is_empty() && since(state.idle_since) > IDLE).then_some(Ending::Idle)
    }
}

impl Progress {
    /// A piece of the answer was handed out, and the client is to take it.
    pub(super) fn handed_out(&self, now: Instant) {
        self.activity.state().requests.insert(self.id, Some(now));
    }

    /// The client took it.
    pub(super) fn taken(&self) {
        self.activity.state().requests.insert(self.id, None);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_where_nothing_is_asked_or_read() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert_eq!(activity.ending(start + IDLE), None);
        assert_eq!(activity.ending(start + 2 * IDLE), Some(Ending::Idle));
        let (one, other) = (activity.begin(), activity.begin());
        assert_eq!(activity.ending(start + 9 * IDLE), None, "the answers are not there yet");
        one.handed_out(start);
        assert_eq!(activity.ending(start + STUCK), None);
        assert_eq!(activity.ending(start + 2 * STUCK), Some(Ending::Stuck));
        one.taken();
        assert_eq!(activity.ending(start + 9 * IDLE), None);
        drop((one, other));
        assert_eq!(activity.ending(Instant::now() + 2 * IDLE), Some(Ending::Idle));
    }
}
