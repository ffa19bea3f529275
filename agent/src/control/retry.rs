//! `Retry`: when a failed BpfProgram is tried again, and when undone attachments are repaired. Pure.

use std::time::{Duration, Instant};

use sockeye_crds::Reason;

/// The first delay after a failure; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// The delay while an object is being fetched. Its arrival triggers the next attempt earlier.
const BYTES_DELAY: Duration = Duration::from_secs(2);
/// External changes are repaired at once this many times in a row.
const IMMEDIATE_REPAIRS: u32 = 3;
/// After this long without external changes the count starts again.
const QUIET: Duration = Duration::from_secs(600);

/// The retries of one BpfProgram.
#[derive(Clone, Debug, Default)]
pub struct Retry {
    failures: u32,
    retry_at: Option<Instant>,
    /// When a repair that was put off is due.
    repair_at: Option<Instant>,
    repairs: u32,
    last_repair: Option<Instant>,
}

fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(LONGEST_DELAY)
}

impl Retry {
    /// Returns when to try again, if at all.
    pub fn due_at(&self) -> Option<Instant> {
        self.repair_at.or(self.retry_at)
    }

    /// Returns whether a repair has been put off.
    pub const fn puts_off_repair(&self) -> bool {
        self.repair_at.is_some()
    }

    /// Schedules the next attempt after a failure. A repair that was put off keeps its time.
    pub fn failed(&mut self, reason: Reason, now: Instant) {
        if self.repair_at.is_some_and(|at| at > now) {
            return;
        }
        let (delay, counts) = match reason {
            // Its delay does not grow, and a load that fails once the object is here is the first to fail.
            Reason::BytecodeUnavailable => (BYTES_DELAY, 0),
            _ => (delay(self.failures), 1),
        };
        self.retry_at = Some(now + delay);
        self.failures = self.failures.saturating_add(counts);
        self.repair_at = None;
    }

    /// Forgets all failures, because an attempt succeeded or the cause of the failure may have changed.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.repair_at = None;
    }

    /// Forgets the failures of another revision.
    pub const fn reset_failures(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Counts an external change. Returns how long the repair is put off, if it is: others change the same again and
    /// again.
    pub fn undone(&mut self, now: Instant) -> Option<Duration> {
        if self.last_repair.is_none_or(|last| now.duration_since(last) > QUIET) {
            self.repairs = 0;
        }
        self.repairs = self.repairs.saturating_add(1);
        self.last_repair = Some(now);
        let put_off = self.repairs.checked_sub(IMMEDIATE_REPAIRS + 1).map(delay)?;
        self.repair_at = Some(now + put_off);
        Some(put_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_success_clears_them() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..12 {
            retry.failed(Reason::LoadFailed, now);
            delays.push(retry.due_at().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(delays[..4], [1, 2, 4, 8]);
        assert_eq!(delays[11], 300);
        retry.reset();
        assert_eq!(retry.due_at(), None);
        for _ in 0..12 {
            retry.failed(Reason::BytecodeUnavailable, now);
            assert!(retry.due_at().unwrap().duration_since(now) <= BYTES_DELAY);
        }
        retry.failed(Reason::LoadFailed, now);
        assert_eq!(
            retry.due_at().unwrap().duration_since(now),
            FIRST_DELAY,
            "the wait for an object is no failed load"
        );
    }

    #[test]
    fn repeated_external_changes_are_repaired_with_growing_delays() {
        let (mut retry, mut now) = (Retry::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..14 {
            let put_off = retry.undone(now);
            let due = retry.due_at().map(|at| at.duration_since(now));
            assert_eq!(put_off, due);
            delays.push(put_off.unwrap_or_default().as_secs());
            retry.reset();
        }
        assert_eq!(delays, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        now += QUIET + Duration::from_secs(1);
        assert_eq!(retry.undone(now), None);
    }
}
