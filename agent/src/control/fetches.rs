//! `Fetches`: the ELF objects that loads wait for. Each is fetched once, and kept until those that wait for it have
//! used it; few are fetched or kept at a time. No IO.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use sockeye_crds::names;

/// At most this many objects are being fetched or kept: each may have a mebibyte.
const MAX_FETCHES: usize = 4;

/// The objects that loads wait for, by digest.
#[derive(Debug, Default)]
pub struct Fetches {
    states: BTreeMap<String, State>,
    queue: VecDeque<String>,
    fetching: usize,
    /// The object whose digest was computed last, until the pass ends: mostly several BpfPrograms in a row have it.
    checked: Option<(String, Arc<[u8]>)>,
}

#[derive(Debug)]
enum State {
    Queued,
    Fetching,
    Fetched { bytes: Arc<[u8]>, users: usize },
    Refused { why: String, until: Instant },
}

/// Why an object can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// How long not to ask again; zero where it is asked for again at once, after all others.
    pub retry_after: Duration,
}

/// Why an object is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAvailable {
    /// It is being fetched.
    Awaited,
    /// It can't be had, for this reason.
    Refused(String),
}

impl Fetches {
    /// Returns an object for one of those that wait for it. One that is not there is queued.
    pub(super) fn get(&mut self, digest: &str, now: Instant) -> Result<Arc<[u8]>, NotAvailable> {
        match self.states.get_mut(digest) {
            Some(State::Fetched { bytes, users }) => {
                let bytes = Arc::clone(bytes);
                *users -= 1;
                if *users == 0 {
                    self.states.remove(digest);
                }
                return Ok(bytes);
            }
            Some(State::Refused { why, until }) if *until > now => return Err(NotAvailable::Refused(why.clone())),
            Some(State::Queued | State::Fetching) => return Err(NotAvailable::Awaited),
            Some(State::Refused { .. }) | None => {}
        }
        self.states.insert(digest.to_owned(), State::Queued);
        self.queue.push_back(digest.to_owned());
        Err(NotAvailable::Awaited)
    }

    /// Records the answer to a fetch; `users` BpfPrograms wait for it.
    pub(super) fn arrived(&mut self, digest: String, bytes: Result<Arc<[u8]>, Refused>, users: usize, now: Instant) {
        if !matches!(self.states.get(&digest), Some(State::Fetching)) {
            return;
        }
        self.fetching -= 1;
        match bytes {
            Ok(_) if users == 0 => drop(self.states.remove(&digest)),
            Ok(bytes) => drop(self.states.insert(digest, State::Fetched { bytes, users })),
            Err(Refused { why, retry_after }) => {
                self.states.insert(digest, State::Refused { why, until: now + retry_after });
            }
        }
    }

    /// Fails with the digest that the bytes have unless it is the right one.
    pub(super) fn check(&mut self, digest: &str, bytes: &Arc<[u8]>) -> Result<(), String> {
        if self.checked.as_ref().is_some_and(|(known, same)| known == digest && Arc::ptr_eq(same, bytes)) {
            return Ok(());
        }
        let found = names::digest(bytes);
        if found != digest {
            return Err(found);
        }
        self.checked = Some((found, Arc::clone(bytes)));
        Ok(())
    }

    /// Returns the digests to fetch now. `judged` objects more are in memory, because they are being judged.
    pub(super) fn next(&mut self, judged: usize) -> Vec<String> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        let fetched = self.states.values().filter(|state| matches!(state, State::Fetched { .. })).count();
        let free = MAX_FETCHES.saturating_sub(self.fetching + fetched + judged).min(self.queue.len());
        let next: Vec<String> = self.queue.drain(..free).collect();
        for digest in &next {
            self.states.insert(digest.clone(), State::Fetching);
        }
        self.fetching += next.len();
        next
    }

    /// Forgets the fetched objects, since nobody waits for them any more, and refusals that are over.
    pub(super) fn forget_unused(&mut self, now: Instant) {
        self.checked = None;
        self.states.retain(|_, state| match state {
            State::Queued | State::Fetching => true,
            State::Fetched { .. } => false,
            State::Refused { until, .. } => *until > now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Arc<[u8]> {
        Arc::from(&b"object"[..])
    }

    #[test]
    fn an_object_is_fetched_once_and_kept_for_all_that_wait() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        assert_eq!(fetches.get("a", now), Err(NotAvailable::Awaited));
        assert_eq!(fetches.get("a", now), Err(NotAvailable::Awaited));
        assert_eq!(fetches.next(0), ["a"]);
        assert!(fetches.next(0).is_empty());
        fetches.arrived("a".into(), Ok(bytes()), 2, now);
        assert_eq!(fetches.get("a", now), Ok(bytes()));
        assert_eq!(fetches.get("a", now), Ok(bytes()));
        assert_eq!(fetches.get("a", now), Err(NotAvailable::Awaited), "it was kept for two");
    }

    #[test]
    fn few_objects_are_fetched_at_a_time() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        let digests: Vec<String> = (0..=MAX_FETCHES).map(|n| n.to_string()).collect();
        digests.iter().for_each(|digest| drop(fetches.get(digest, now)));
        assert_eq!(fetches.next(0), digests[..MAX_FETCHES]);
        fetches.arrived(digests[0].clone(), Ok(bytes()), 0, now);
        assert_eq!(fetches.next(0), digests[MAX_FETCHES..]);
    }

    #[test]
    fn objects_that_nobody_has_used_yet_hold_up_those_that_follow() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        let digests: Vec<String> = (0..2 * MAX_FETCHES).map(|n| n.to_string()).collect();
        digests.iter().for_each(|digest| drop(fetches.get(digest, now)));
        for digest in fetches.next(0) {
            fetches.arrived(digest, Ok(bytes()), 1, now);
        }
        assert!(fetches.next(0).is_empty());
        assert_eq!(fetches.get(&digests[1], now), Ok(bytes()));
        assert_eq!(fetches.next(0), digests[MAX_FETCHES..=MAX_FETCHES]);
        fetches.forget_unused(now);
        assert_eq!(fetches.next(0), digests[MAX_FETCHES + 1..]);
    }

    #[test]
    fn objects_that_are_being_judged_hold_up_those_that_follow() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        ["a", "b"].iter().for_each(|digest| drop(fetches.get(digest, now)));
        assert!(fetches.next(MAX_FETCHES).is_empty());
        assert_eq!(fetches.next(MAX_FETCHES - 1), ["a"]);
        assert_eq!(fetches.next(0), ["b"]);
    }

    #[test]
    fn objects_that_always_fail_hold_up_no_others() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        let digests: Vec<String> = (0..=MAX_FETCHES).map(|n| n.to_string()).collect();
        digests.iter().for_each(|digest| drop(fetches.get(digest, now)));
        for digest in fetches.next(0) {
            fetches.arrived(digest.clone(), Err(Refused { why: "busy".into(), retry_after: Duration::ZERO }), 1, now);
            assert_eq!(fetches.get(&digest, now), Err(NotAvailable::Awaited), "it is asked for again");
        }
        assert_eq!(fetches.next(0)[0], digests[MAX_FETCHES]);
    }

    #[test]
    fn the_same_bytes_are_digested_once_and_others_of_that_name_again() {
        let mut fetches = Fetches::default();
        let (right, wrong): (Arc<[u8]>, Arc<[u8]>) = (bytes(), Arc::from(&b"other"[..]));
        let digest = names::digest(&right);
        for _ in 0..2 {
            assert_eq!(fetches.check(&digest, &right), Ok(()));
            assert_eq!(fetches.check(&digest, &wrong), Err(names::digest(&wrong)));
            assert_eq!(fetches.check("sha256:0", &right), Err(digest.clone()));
        }
        fetches.forget_unused(Instant::now());
        assert_eq!(Arc::strong_count(&right), 1, "an object is kept no longer than the pass");
    }

    #[test]
    fn a_refused_object_is_asked_for_again_after_a_while() {
        let (mut fetches, now) = (Fetches::default(), Instant::now());
        let retry_after = Duration::from_secs(20);
        drop(fetches.get("a", now));
        fetches.next(0);
        fetches.arrived("a".into(), Err(Refused { why: "gone".into(), retry_after }), 1, now);
        fetches.forget_unused(now);
        assert_eq!(fetches.get("a", now), Err(NotAvailable::Refused("gone".into())));
        assert!(fetches.next(0).is_empty());
        assert_eq!(fetches.get("a", now + retry_after), Err(NotAvailable::Awaited));
        assert_eq!(fetches.next(0), ["a"]);
    }
}
