//! [`Health`]: the operator's answers to the kubelet's probes. IO: none; time.
//!
//! - Healthy: the control loop ran lately, or its stores are not listed yet.
//! - Ready: every watch was listed, the API server accepted the last write and what was asked about the Lease, and the
//!   process is healthy. So an operator that stands by is ready too. An object that a quota or a webhook refuses does
//!   not count: the status of its BpfProgram says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sockeye_client::probes;

/// A loop without a heartbeat for this long is stuck. It sends one at least every half of this.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// A rejected write that was not sent again for this long is no longer wanted: the longest backoff is a minute.
const WRITE_ABANDONED_AFTER: Duration = Duration::from_secs(150);

/// The operator's health. Clones share one state.
#[derive(Clone, Debug)]
pub struct Health {
    start: Instant,
    state: Arc<State>,
}

/// Times are in milliseconds since the start.
#[derive(Debug, Default)]
struct State {
    is_listed: AtomicBool,
    /// The time of the last write, if it was rejected; otherwise 0.
    rejected_ms: AtomicU64,
    heartbeat_ms: AtomicU64,
    is_lease_rejected: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self { start: Instant::now(), state: Arc::default() }
    }
}

impl Health {
    /// Records that every watch was listed.
    pub fn set_listed(&self) {
        self.state.is_listed.store(true, Ordering::Relaxed);
    }

    /// Records that the control loop runs.
    pub fn beat(&self) {
        self.state.heartbeat_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Records the outcome of a write. A conflict and an invalid or missing object are not the process's failure.
    pub fn record_write(&self, error: Option<&kube::Error>) {
        let is_rejected = match error {
            None => false,
            Some(kube::Error::Api(status)) => !matches!(status.code, 404 | 409 | 422),
            Some(_) => true,
        };
        let rejected_ms = if is_rejected { self.now_ms().max(1) } else { 0 };
        self.state.rejected_ms.store(rejected_ms, Ordering::Relaxed);
    }

    /// Records whether the API server rejects what is asked about the Lease, other than for a moment.
    pub fn set_lease_rejected(&self, is_rejected: bool) {
        self.state.is_lease_rejected.store(is_rejected, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }
}

/// Returns whether an answer refuses this one object, as a quota or a webhook does. A right that the operator lacks is
/// another matter: the API server then refuses all objects of the kind, whatever they are.
pub fn refuses_object(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let lacks_right = status.code == 403 && status.message.contains("is forbidden: User ");
    matches!(status.code, 400 | 403 | 413) && !lacks_right
}

impl probes::Health for Health {
    fn healthy(&self) -> Result<(), &'static str> {
        let heartbeat_ms = self.state.heartbeat_ms.load(Ordering::Relaxed);
        let silent = Duration::from_millis(self.now_ms().saturating_sub(heartbeat_ms));
        let is_stuck = self.state.is_listed.load(Ordering::Relaxed) && silent > STUCK_AFTER;
        if is_stuck { Err("the control loop is stuck") } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if !self.state.is_listed.load(Ordering::Relaxed) {
            return Err("not every watch has been listed yet");
        }
        if self.state.is_lease_rejected.load(Ordering::Relaxed) {
            return Err("the API server rejects requests for the Lease; see the log");
        }
        let rejected_ms = self.state.rejected_ms.load(Ordering::Relaxed);
        if rejected_ms > 0 && self.now_ms().saturating_sub(rejected_ms) < WRITE_ABANDONED_AFTER.as_millis() as u64 {
            return Err("the API server did not accept the last write; see the log");
        }
        self.healthy()
    }
}

#[cfg(test)]
mod tests {
    use sockeye_client::probes::Health as _;

    use super::*;

    fn rejection(code: u16) -> kube::Error {
        let status = kube::core::Status { code, ..kube::core::Status::failure("no", "No") };
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn the_operator_is_ready_once_listed_and_while_writes_are_accepted() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.set_listed();
        assert_eq!(health.ready(), Ok(()));
        health.record_write(Some(&rejection(409)));
        assert_eq!(health.ready(), Ok(()), "a conflict is about the object");
        health.record_write(Some(&rejection(403)));
        assert!(health.ready().is_err());
        assert_eq!(health.healthy(), Ok(()), "a restart would not help");
        health.record_write(None);
        assert_eq!(health.ready(), Ok(()));
        health.set_lease_rejected(true);
        health.record_write(None);
        assert!(health.ready().is_err(), "nobody may lead");
        health.set_lease_rejected(false);
        assert_eq!(health.ready(), Ok(()));
    }
}
