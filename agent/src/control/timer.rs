//! `Timer`: when the next pass over the BpfPrograms and the next poll of attachments are due. Pure.

use std::time::{Duration, Instant};

/// Every BpfProgram is observed again at this interval, whether or not anything is known to have happened to it.
const SWEEP: Duration = Duration::from_secs(300);
/// The sweep interval while inotify does not report every change.
const SWEEP_BLIND: Duration = Duration::from_secs(4);
/// Attachments are polled at this interval.
const POLL: Duration = Duration::from_secs(2);
/// During a pass the node's own suspension note is read at this interval.
const SUSPEND_CHECK: Duration = Duration::from_millis(100);

/// The times of passes, polls and checks.
#[derive(Debug)]
pub struct Timer {
    next_sweep: Instant,
    next_poll: Instant,
    next_suspend_check: Instant,
    /// Something happened that needs a pass.
    pub pass_due: bool,
    /// A pass that is going on is to begin anew for that.
    pub restart_due: bool,
    /// Inotify does not report every change.
    blind: bool,
}

impl Timer {
    /// Starts with everything due.
    pub const fn new(now: Instant) -> Self {
        Self {
            next_sweep: now,
            next_poll: now,
            next_suspend_check: now,
            pass_due: true,
            restart_due: false,
            blind: false,
        }
    }

    /// Records whether some changes go unreported; sweeps are then frequent.
    pub fn set_blind(&mut self, blind: bool, now: Instant) {
        self.blind = blind;
        if blind {
            self.next_sweep = self.next_sweep.min(now + SWEEP_BLIND);
        }
    }

    /// Returns whether a pass is due, if none is going on, given when the next retry is.
    pub fn is_pass_due(&self, retry: Option<Instant>, now: Instant) -> bool {
        self.pass_due || self.next_sweep <= now || retry.is_some_and(|retry| retry <= now)
    }

    /// Begins a pass; returns whether it is a sweep.
    pub fn begin_pass(&mut self, now: Instant) -> bool {
        let sweep = self.next_sweep <= now;
        if sweep {
            self.next_sweep = now + if self.blind { SWEEP_BLIND } else { SWEEP };
        }
        (self.pass_due, self.restart_due) = (false, false);
        self.next_suspend_check = now + SUSPEND_CHECK;
        sweep
    }

    /// Schedules the next poll of attachments if one is due now. Returns whether it is.
    pub fn start_poll_if_due(&mut self, now: Instant) -> bool {
        is_over(&mut self.next_poll, POLL, now)
    }

    /// Schedules the next read of the node's suspension note if one is due now. Returns whether it is.
    pub fn start_suspend_check_if_due(&mut self, now: Instant) -> bool {
        is_over(&mut self.next_suspend_check, SUSPEND_CHECK, now)
    }

    /// Returns when something is due at the latest.
    pub fn wake(&self, retry: Option<Instant>, now: Instant) -> Instant {
        if self.pass_due {
            return now;
        }
        let wake = self.next_sweep.min(self.next_poll);
        retry.map_or(wake, |retry| wake.min(retry))
    }

    /// Returns when to look again while it is not known what the node is to run.
    pub fn wake_unassigned(&self) -> Instant {
        self.next_poll
    }
}

fn is_over(next: &mut Instant, interval: Duration, now: Instant) -> bool {
    let over = *next <= now;
    if over {
        *next = now + interval;
    }
    over
}
