//! `World`: candidates, the API server's one Lease, and a network that delays and loses, under one clock of the test's
//! own. Each candidate's clock runs at a rate of its own. No IO, no waiting.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use sockeye_operator::leader::{
    election::{Answer, Change, Effect, Election, End, Event, LEASE_DURATION, Request},
    lease,
};

use crate::random::Random;

/// A request without an answer fails after this time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The faults of one candidate's network and process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// No request arrives, no answer returns, and the watch shows nothing.
    pub is_cut_off: bool,
    /// Requests arrive and their answers are lost.
    pub loses_answers: bool,
    /// Writes are answered by a conflict, whatever they are based on.
    pub has_conflicts: bool,
    /// The watch shows nothing.
    pub is_watch_broken: bool,
    /// Messages take up to this much longer.
    pub delay: Duration,
}

/// A process that may lead.
pub struct Candidate {
    identity: String,
    /// The number of processes before it in the same place.
    life: usize,
    election: Option<Election>,
    /// The time, by its own clock, until which it may write.
    may_write_until: Option<Instant>,
    pub faults: Faults,
    /// The process is suspended until then.
    suspended_until: Duration,
    /// The rate of its clock, in millionths.
    rate: u32,
    start: Instant,
    requests: usize,
    timers: usize,
    /// The time at which the watch showed something last: it shows changes in order.
    watched_at: Duration,
    pub ends: Vec<End>,
}

/// Something that arrives at a time.
#[derive(Clone, Debug)]
enum Message {
    /// At the API server, from a candidate.
    Request {
        nth: usize,
        request: Request,
    },
    /// At a candidate.
    Answer {
        nth: usize,
        answer: Answer,
    },
    Event(Event),
    /// The timer that was set as the nth.
    Timer {
        nth: usize,
    },
}

struct Delivery {
    candidate: usize,
    life: usize,
    message: Message,
}

/// The candidates and what is between them.
pub struct World {
    pub now: Duration,
    pub random: Random,
    pub candidates: Vec<Candidate>,
    lease: Option<Arc<Lease>>,
    version: u64,
    queue: BinaryHeap<Reverse<(Duration, usize)>>,
    deliveries: Vec<Option<Delivery>>,
    /// The time at which somebody deleted the Lease last.
    deleted_at: Option<Duration>,
    /// The number of requests so far.
    pub requests: usize,
}

impl World {
    /// Starts candidates. Their clocks differ by a hundredth at most.
    pub fn new(candidates: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let start = Instant::now();
        let new = |n| Candidate {
            identity: format!("candidate-{n}"),
            life: 0,
            election: None,
            may_write_until: None,
            faults: Faults::default(),
            suspended_until: Duration::ZERO,
            rate: 990_000 + random.below(20_001) as u32,
            start,
            requests: 0,
            timers: 0,
            watched_at: Duration::ZERO,
            ends: Vec::new(),
        };
        let candidates = (0..candidates).map(new).collect();
        let mut world = Self {
            now: Duration::ZERO,
            random,
            candidates,
            lease: None,
            version: 0,
            queue: BinaryHeap::new(),
            deliveries: Vec::new(),
            deleted_at: None,
            requests: 0,
        };
        (0..world.candidates.len()).for_each(|n| world.start(n));
        world
    }

    /// Lets the time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(Reverse((at, index))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.queue.pop();
            self.now = at;
            if let Some(delivery) = self.deliveries[index].take() {
                self.deliver(delivery);
                self.judge();
            }
        }
        self.now = end;
        self.judge();
    }

    /// Returns the candidates that may write now.
    pub fn leaders(&self) -> Vec<usize> {
        (0..self.candidates.len()).filter(|n| self.may_write(*n)).collect()
    }

    /// Returns the time from now until a candidate leads, `most` at most.
    pub fn time_to_leader(&mut self, most: Duration) -> Option<Duration> {
        let start = self.now;
        while self.leaders().is_empty() {
            if self.now - start >= most {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.now - start)
    }

    /// Starts a candidate if it has ended.
    pub fn start(&mut self, n: usize) {
        let now = self.local_time(n);
        let candidate = &mut self.candidates[n];
        if candidate.election.is_none() {
            candidate.election = Some(Election::new(candidate.identity.clone(), now));
            self.take(n, Event::Tick);
            self.show(n);
        }
    }

    /// Ends a candidate as SIGKILL does.
    pub fn kill(&mut self, n: usize) {
        let candidate = &mut self.candidates[n];
        candidate.life += 1;
        candidate.election = None;
        candidate.may_write_until = None;
        candidate.suspended_until = Duration::ZERO;
    }

    /// Tells a candidate to stop, as SIGTERM does.
    pub fn stop(&mut self, n: usize) {
        self.send_in(Duration::ZERO, n, Message::Event(Event::Stop));
    }

    /// Replaces an ended candidate by another pod's.
    pub fn replace(&mut self, n: usize) {
        let candidate = &mut self.candidates[n];
        if candidate.election.is_none() {
            candidate.identity = format!("candidate-{n}-{}", candidate.life);
            self.start(n);
        }
    }

    /// Suspends a candidate: everything that arrives waits.
    pub fn suspend(&mut self, n: usize, duration: Duration) {
        self.candidates[n].suspended_until = self.now + duration;
    }

    /// Deletes the Lease, as an administrator may.
    pub fn delete(&mut self) {
        self.deleted_at = Some(self.now);
        self.lease = None;
        (0..self.candidates.len()).for_each(|n| self.show(n));
    }

    /// Ends the faults of one candidate's network. Its watch lists again.
    pub fn mend(&mut self, n: usize) {
        self.candidates[n].faults = Faults::default();
        self.show(n);
    }

    /// Ends all faults, and waits until no candidate is suspended.
    pub fn heal(&mut self) {
        (0..self.candidates.len()).for_each(|n| self.mend(n));
        let suspended_until = self.candidates.iter().map(|candidate| candidate.suspended_until).max();
        self.run_for(suspended_until.unwrap_or_default().saturating_sub(self.now));
    }

    /// Lets the time pass, and starts who ends, as a kubelet does.
    pub fn run_and_restart_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            (0..self.candidates.len()).for_each(|n| self.start(n));
            self.run_for(Duration::from_millis(100));
        }
    }

    fn local_time(&self, n: usize) -> Instant {
        let candidate = &self.candidates[n];
        candidate.start + self.now * candidate.rate / 1_000_000
    }

    /// Returns a time of a candidate's clock as the world's, rounded up.
    fn world_time(&self, n: usize, at: Instant) -> Duration {
        let candidate = &self.candidates[n];
        let passed = at.duration_since(candidate.start);
        Duration::from_micros((passed.as_micros() * 1_000_000 / u128::from(candidate.rate)) as u64 + 2)
    }

    fn may_write(&self, n: usize) -> bool {
        self.candidates[n].may_write_until.is_some_and(|until| self.local_time(n) < until)
    }

    /// Fails if two candidates may write. A deletion takes away the protection for a Lease's duration.
    fn judge(&self) {
        let leaders = self.leaders();
        let was_deleted = self.deleted_at.is_some_and(|at| self.now < at + LEASE_DURATION);
        assert!(leaders.len() <= 1 || was_deleted, "at {:?} these may write: {leaders:?}", self.now);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { candidate: n, life, message } = delivery;
        let candidate = &self.candidates[n];
        match message {
            // Late requests of a dead process arrive too.
            Message::Request { nth, request } => {
                let Faults { is_cut_off, loses_answers, has_conflicts, .. } = self.candidates[n].faults;
                let is_refused = has_conflicts && request != Request::Read;
                let answer = if is_refused { Answer::Conflict } else { self.serve(n, request) };
                if !is_cut_off && !loses_answers {
                    self.send(n, life, Message::Answer { nth, answer });
                }
            }
            _ if life != candidate.life => {}
            message if self.now < candidate.suspended_until => {
                // In no particular order, as after a pause.
                let after = candidate.suspended_until - self.now + self.random.up_to(Duration::from_millis(1));
                self.send_in(after, n, message);
            }
            Message::Answer { nth, answer } if nth == candidate.requests => {
                self.candidates[n].requests += 1;
                self.take(n, Event::Answered(answer));
            }
            Message::Timer { nth } if nth == candidate.timers => self.take(n, Event::Tick),
            Message::Answer { .. } | Message::Timer { .. } => {}
            Message::Event(event) => self.take(n, event),
        }
    }

    /// Gives an event to a candidate, and does what it asks for.
    fn take(&mut self, n: usize, event: Event) {
        let now = self.local_time(n);
        if matches!(event, Event::WritersStopped) {
            self.candidates[n].may_write_until = None;
        }
        let Some(election) = &mut self.candidates[n].election else { return };
        let effects = election.handle(event, now);
        let wake_at = election.wake_at();
        for effect in effects {
            match effect {
                Effect::Send(request) => self.request(n, request),
                Effect::Lead(until) | Effect::Renewed(until) => self.candidates[n].may_write_until = Some(until),
                Effect::StopWriters => {
                    let after = self.random.up_to(Duration::from_secs(1));
                    self.send_in(after, n, Message::Event(Event::WritersStopped));
                }
                Effect::End(end) => {
                    self.candidates[n].ends.push(end);
                    self.kill(n);
                    return;
                }
            }
        }
        self.candidates[n].timers += 1;
        if let Some(wake_at) = wake_at {
            let at = self.world_time(n, wake_at);
            let after = at.saturating_sub(self.now).max(Duration::from_micros(1));
            self.send_in(after, n, Message::Timer { nth: self.candidates[n].timers });
        }
    }

    fn request(&mut self, n: usize, request: Request) {
        let is_release = matches!(request, Request::Replace(_, Change::Release));
        assert!(!is_release || !self.may_write(n), "the Lease is released by one that still writes");
        self.requests += 1;
        let (nth, life) = (self.candidates[n].requests, self.candidates[n].life);
        if !self.candidates[n].faults.is_cut_off {
            self.send(n, life, Message::Request { nth, request });
        }
        self.send_in(TIMEOUT, n, Message::Answer { nth, answer: Answer::Failed });
    }

    fn serve(&mut self, n: usize, request: Request) -> Answer {
        let (identity, now) = (self.candidates[n].identity.clone(), self.wall_time(n));
        let written = match (&request, &self.lease) {
            (Request::Read, lease) => return Answer::Read(lease.clone()),
            (Request::Create, None) => lease::created("sockeye-system", &identity, LEASE_DURATION, now),
            (Request::Replace(base, change), Some(current)) if lease::version(base) == lease::version(current) => {
                match change {
                    Change::Take => lease::taken(base, &identity, LEASE_DURATION, now),
                    Change::Renew => lease::renewed(base, LEASE_DURATION, now),
                    Change::Release => lease::released(base, now),
                }
            }
            _ => return Answer::Conflict,
        };
        self.version += 1;
        let mut written = written;
        written.metadata.resource_version = Some(self.version.to_string());
        let written = Arc::new(written);
        self.lease = Some(Arc::clone(&written));
        (0..self.candidates.len()).for_each(|n| self.show(n));
        Answer::Written(written)
    }

    /// Returns the time of a candidate's wall clock, which may be wrong by hours.
    fn wall_time(&self, n: usize) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.now + Duration::from_secs(3600 * (n as u64 % 3))
    }

    /// Shows the Lease to a candidate's watch.
    fn show(&mut self, n: usize) {
        let Faults { is_cut_off, is_watch_broken, delay, .. } = self.candidates[n].faults;
        if is_cut_off || is_watch_broken {
            return;
        }
        let at = (self.now + self.delay(delay)).max(self.candidates[n].watched_at);
        self.candidates[n].watched_at = at;
        self.send_in(at - self.now, n, Message::Event(Event::Watched(self.lease.clone())));
    }

    fn send(&mut self, n: usize, life: usize, message: Message) {
        let after = self.delay(self.candidates[n].faults.delay);
        self.push(after, Delivery { candidate: n, life, message });
    }

    fn send_in(&mut self, after: Duration, n: usize, message: Message) {
        let life = self.candidates[n].life;
        self.push(after, Delivery { candidate: n, life, message });
    }

    fn push(&mut self, after: Duration, delivery: Delivery) {
        self.queue.push(Reverse((self.now + after, self.deliveries.len())));
        self.deliveries.push(Some(delivery));
    }

    fn delay(&mut self, more: Duration) -> Duration {
        Duration::from_millis(1) + self.random.up_to(Duration::from_millis(20)) + self.random.up_to(more)
    }
}
