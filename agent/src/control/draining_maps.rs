//! `DrainingMaps`: the maps that are kept for the sockets in them, and when to look at them again. No IO.

use std::time::{Duration, Instant};

use crate::model::draining_map::DrainingMap;

/// Maps with sockets in them are looked at again after this long.
const INTERVAL: Duration = Duration::from_secs(4);
/// A look counts all sockets: after one that took long, the next comes later by as many times as long.
const SHARE: u32 = 100;

/// The maps that are kept for the sockets in them.
#[derive(Debug)]
pub(super) struct DrainingMaps {
    /// The maps that no BpfProgram has any more, as last looked at.
    pub maps: Vec<DrainingMap>,
    /// This agent has looked at them.
    pub is_known: bool,
    next: Instant,
    /// The time since which sockets are counted for the look that is due.
    since: Option<Instant>,
}

impl DrainingMaps {
    /// Starts with a look that is due: an earlier agent may have left maps.
    pub(super) const fn new(now: Instant) -> Self {
        Self { maps: Vec::new(), is_known: false, next: now, since: None }
    }

    /// Returns whether the next look is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Makes the next look due: a map is kept anew.
    pub(super) const fn hasten(&mut self, now: Instant) {
        self.next = now;
    }

    /// Begins a look. Sockets in the maps of suspended BpfPrograms are counted as these are observed, before all
    /// others.
    pub(super) fn begin(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// Schedules the next look after one that took this long.
    pub(super) fn looked(&mut self, now: Instant, took: Duration) {
        self.since = None;
        self.next = now + INTERVAL.max(took.saturating_mul(SHARE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_takes_long_is_followed_by_a_longer_pause() {
        let now = Instant::now();
        let mut draining = DrainingMaps::new(now);
        assert!(draining.is_due(now));
        draining.looked(now, Duration::from_millis(1));
        assert!(!draining.is_due(now + Duration::from_secs(3)) && draining.is_due(now + INTERVAL));
        draining.looked(now, Duration::from_secs(1));
        assert!(!draining.is_due(now + Duration::from_secs(99)) && draining.is_due(now + Duration::from_secs(100)));
        draining.hasten(now);
        assert!(draining.is_due(now));
    }
}
