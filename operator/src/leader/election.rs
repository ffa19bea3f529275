//! [`Election`]: who leads, by one Lease. A state machine. IO: none; callers pass the time.
//!
//! Events go in, [`Effect`]s come out. At most one request is under way, so what requests show is never out of order.
//! What the watch shows may be old: it can make a candidate wait longer, or read; only a read shows that the Lease is
//! free.
//!
//! - The Lease is another's until that one's duration has passed since this process last saw the Lease change. One that
//!   was released, or that nobody was seen to hold, is free.
//! - A deletion frees nothing: its holder may still lead, and creates it again.
//! - Each write is based on a version, so of several candidates one succeeds. The others read again.
//! - An accepted write makes its sender the leader until [`RENEW_DEADLINE`] after it was sent. An answer that comes
//!   later than that makes nobody the leader.
//! - A leader that cannot renew the Lease until then, or finds it in other hands, loses. That is its end.
//! - A leader that is told to stop waits until its writers have stopped, then releases the Lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;

use crate::leader::lease::{duration, holder, version};

/// The time that others leave the Lease to its holder, from when they saw it change.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// The time that the holder is sure of the Lease, from when it sent the last write that was accepted.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// The time between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// The time between two attempts of a candidate's request.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The time between two attempts of a holder's request.
const HOLDER_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A candidate that has heard nothing of the Lease for this long reads it: the watch may be broken.
const READ_INTERVAL: Duration = Duration::from_secs(4);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time of [`Election::wake_at`] has come.
    Tick,
    /// The watch showed the Lease, or that there is none.
    Watched(Option<Arc<Lease>>),
    /// The request that is under way ended.
    Answered(Answer),
    /// This process is to stop.
    Stop,
    /// The writers have stopped, after [`Effect::StopWriters`].
    WritersStopped,
}

/// The end of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The Lease as it was read, if there is one.
    Read(Option<Arc<Lease>>),
    /// The Lease as it was written.
    Written(Arc<Lease>),
    /// The Lease is not the one that the write is based on.
    Conflict,
    /// There was no answer, or another error.
    Failed,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a request, and answer with [`Event::Answered`].
    Send(Request),
    /// Start the writers; they may write until this time.
    Lead(Instant),
    /// The writers may write until this time.
    Renewed(Instant),
    /// Stop the writers, and answer with [`Event::WritersStopped`].
    StopWriters,
    /// The process ends. Nothing follows.
    End(End),
}

/// A request about the Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Read it from the API server, not from a cache.
    Read,
    /// Create it, held by this process.
    Create,
    /// Replace this version of it.
    Replace(Arc<Lease>, Change),
}

/// A change of the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This process becomes the holder.
    Take,
    /// The holder remains.
    Renew,
    /// There is no holder.
    Release,
}

/// The reason for an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This process was told to stop, and holds the Lease no longer, as far as it knows.
    Stopped,
    /// The leader could not renew the Lease in time.
    Late,
    /// The leader found the Lease in other hands; absent if nobody holds it.
    Taken(Option<String>),
}

/// One process's view of the Lease.
#[derive(Debug)]
pub struct Election {
    identity: String,
    role: Role,
    seen: Seen,
    /// The Lease is another's until this time.
    claimed_until: Instant,
    /// The time of the last news of the Lease.
    heard_at: Instant,
    under_way: Option<UnderWay>,
    /// True if the watch or a conflict suggests that the Lease is not as it was seen.
    is_doubtful: bool,
    /// The next read is not sent before: an earlier request failed.
    read_after: Instant,
    /// The next write is not sent before: an earlier one failed.
    write_after: Instant,
    /// The time of the holder's next renewal.
    renew_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Candidate { is_stopping: bool },
    Leader { until: Instant },
    Stopping { until: Instant, is_quiet: bool },
    Ended,
}

/// The Lease as this process saw it last.
#[derive(Debug)]
enum Seen {
    Nothing,
    Absent,
    Present(Arc<Lease>),
}

#[derive(Debug)]
struct UnderWay {
    request: Request,
    sent: Instant,
}

impl Election {
    /// Creates a candidate. Its first effects come with the first event.
    pub fn new(identity: String, now: Instant) -> Self {
        Self {
            identity,
            role: Role::Candidate { is_stopping: false },
            seen: Seen::Nothing,
            claimed_until: now,
            heard_at: now,
            under_way: None,
            is_doubtful: false,
            read_after: now,
            write_after: now,
            renew_at: now,
        }
    }

    /// Handles an event, and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match self.role {
            Role::Ended => return effects,
            Role::Leader { until } if until <= now => self.end(End::Late, &mut effects),
            // The Lease is about to end by itself.
            Role::Stopping { until, is_quiet: _ } if until <= now => self.end(End::Stopped, &mut effects),
            _ => self.take_in(event, now, &mut effects),
        }
        self.send_next(now, &mut effects);
        effects
    }

    /// Returns the time of the next [`Event::Tick`], if nothing else happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        let next = if self.under_way.is_none() { self.next_request().map(|(due, _)| due) } else { None };
        match self.role {
            Role::Leader { until } | Role::Stopping { until, .. } => Some(next.map_or(until, |due| due.min(until))),
            Role::Candidate { .. } => next,
            Role::Ended => None,
        }
    }

    fn take_in(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => {}
            Event::Watched(lease) => self.watched(lease, now),
            Event::Answered(answer) => {
                if let Some(request) = self.under_way.take() {
                    self.answered(request, answer, now, effects);
                }
            }
            Event::Stop => self.stop(effects),
            Event::WritersStopped => {
                if let Role::Stopping { until, is_quiet: _ } = self.role {
                    self.role = Role::Stopping { until, is_quiet: true };
                }
            }
        }
    }

    fn watched(&mut self, lease: Option<Arc<Lease>>, now: Instant) {
        if self.has_seen(lease.as_deref()) {
            self.heard_at = now;
            return;
        }
        let is_mine = lease.as_deref().is_some_and(|lease| self.holds(lease));
        match (self.role, lease) {
            // It may be older than what a request showed. The longer claim counts.
            (Role::Candidate { .. }, Some(lease)) if !is_mine && holder(&lease).is_some() => {
                let claimed_until = self.claimed_until;
                self.see(Some(lease), now);
                self.claimed_until = self.claimed_until.max(claimed_until);
            }
            (Role::Leader { .. }, _) if is_mine => {}
            (Role::Candidate { .. } | Role::Leader { .. }, _) => self.is_doubtful = true,
            (Role::Stopping { .. } | Role::Ended, _) => {}
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        match self.role {
            // A write that is under way may yet succeed.
            Role::Candidate { .. } if self.under_way.as_ref().is_some_and(|it| it.request != Request::Read) => {
                self.role = Role::Candidate { is_stopping: true };
            }
            Role::Candidate { .. } => self.end(End::Stopped, effects),
            Role::Leader { until } => {
                self.role = Role::Stopping { until, is_quiet: false };
                effects.push(Effect::StopWriters);
            }
            Role::Stopping { .. } | Role::Ended => {}
        }
    }

    fn answered(&mut self, request: UnderWay, answer: Answer, now: Instant, effects: &mut Vec<Effect>) {
        let UnderWay { request, sent } = request;
        match answer {
            Answer::Written(_) if matches!(request, Request::Replace(_, Change::Release)) => {
                self.end(End::Stopped, effects);
            }
            Answer::Written(lease) if self.holds(&lease) && is_new(&request, &lease) => {
                self.see(Some(lease), now);
                self.renew_at = sent + RENEW_INTERVAL;
                self.hold(sent + RENEW_DEADLINE, now, effects);
            }
            Answer::Read(lease) => {
                self.is_doubtful = false;
                // A conflict with this version explains itself.
                if !self.has_seen(lease.as_deref()) {
                    self.write_after = self.write_after.min(now);
                }
                self.see(lease, now);
                self.judge(effects);
            }
            Answer::Conflict => {
                self.is_doubtful = true;
                self.write_after = sent + self.retry_interval();
            }
            Answer::Written(_) | Answer::Failed => {
                self.read_after = sent + self.retry_interval();
                self.write_after = self.read_after;
            }
        }
        if self.role == (Role::Candidate { is_stopping: true }) {
            self.end(End::Stopped, effects);
        }
    }

    /// Records the Lease as it is now. One that was seen before tells nothing new of its holder.
    fn see(&mut self, lease: Option<Arc<Lease>>, now: Instant) {
        self.heard_at = now;
        if self.has_seen(lease.as_deref()) {
            return;
        }
        if let Some(lease) = &lease {
            let is_claimed = holder(lease).is_some() && !self.holds(lease);
            self.claimed_until = if is_claimed { now + duration(lease, LEASE_DURATION) } else { now };
        }
        self.seen = lease.map_or(Seen::Absent, Seen::Present);
    }

    /// Returns whether this version of the Lease, or that there is none, was seen last.
    fn has_seen(&self, lease: Option<&Lease>) -> bool {
        match (&self.seen, lease) {
            (Seen::Present(seen), Some(lease)) => version(seen) == version(lease),
            (Seen::Absent, None) => true,
            _ => false,
        }
    }

    /// Follows an accepted write: this process holds the Lease.
    fn hold(&mut self, until: Instant, now: Instant, effects: &mut Vec<Effect>) {
        self.role = match self.role {
            Role::Candidate { is_stopping: true } => Role::Stopping { until, is_quiet: true },
            Role::Candidate { is_stopping: false } if until <= now => self.role,
            Role::Candidate { is_stopping: false } => {
                effects.push(Effect::Lead(until));
                Role::Leader { until }
            }
            Role::Leader { .. } => {
                effects.push(Effect::Renewed(until));
                Role::Leader { until }
            }
            Role::Stopping { until: _, is_quiet } => Role::Stopping { until, is_quiet },
            Role::Ended => Role::Ended,
        };
    }

    /// Follows a read: a leader whose Lease is another's has lost it.
    fn judge(&mut self, effects: &mut Vec<Effect>) {
        let end = match (&self.seen, self.role) {
            (Seen::Present(lease), Role::Leader { .. }) if !self.holds(lease) => {
                End::Taken(holder(lease).map(str::to_owned))
            }
            (Seen::Present(lease), Role::Stopping { is_quiet: true, .. }) if !self.holds(lease) => End::Stopped,
            (Seen::Absent, Role::Stopping { is_quiet: true, .. }) => End::Stopped,
            _ => return,
        };
        self.end(end, effects);
    }

    fn end(&mut self, end: End, effects: &mut Vec<Effect>) {
        self.role = Role::Ended;
        effects.push(Effect::End(end));
    }

    fn send_next(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.under_way.is_none()
            && let Some((due, request)) = self.next_request()
            && due <= now
        {
            self.under_way = Some(UnderWay { request: request.clone(), sent: now });
            effects.push(Effect::Send(request));
        }
    }

    /// Returns the next request and its time.
    fn next_request(&self) -> Option<(Instant, Request)> {
        let read_at = match (&self.seen, self.role) {
            (Seen::Nothing, _) => return Some((self.read_after, Request::Read)),
            _ if self.is_doubtful => Some(self.read_after),
            (_, Role::Candidate { .. }) => Some(self.read_after.max(self.heard_at + READ_INTERVAL)),
            _ => None,
        };
        let (write_at, change) = match self.role {
            Role::Candidate { .. } => (self.write_after.max(self.claimed_until), Change::Take),
            Role::Leader { .. } if matches!(self.seen, Seen::Absent) => (self.write_after, Change::Renew),
            Role::Leader { .. } => (self.write_after.max(self.renew_at), Change::Renew),
            Role::Stopping { is_quiet: true, .. } => (self.write_after, Change::Release),
            Role::Stopping { .. } | Role::Ended => return None,
        };
        if let Some(read_at) = read_at.filter(|read_at| *read_at <= write_at) {
            return Some((read_at, Request::Read));
        }
        match &self.seen {
            Seen::Present(lease) => Some((write_at, Request::Replace(Arc::clone(lease), change))),
            _ if change == Change::Release => None,
            _ => Some((write_at, Request::Create)),
        }
    }

    fn holds(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.identity)
    }

    const fn retry_interval(&self) -> Duration {
        match self.role {
            Role::Candidate { .. } => RETRY_INTERVAL,
            Role::Leader { .. } | Role::Stopping { .. } | Role::Ended => HOLDER_RETRY_INTERVAL,
        }
    }
}

/// Returns whether a write made a new version. Others see no change in one that did not.
fn is_new(request: &Request, written: &Lease) -> bool {
    match request {
        Request::Replace(base, _) => version(base) != version(written),
        Request::Create | Request::Read => true,
    }
}

#[cfg(test)]
mod tests;
