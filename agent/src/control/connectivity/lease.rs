//! `LeaseWatch`: what one trial has seen of the Lease that the node's kubelet renews. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// A kubelet has fallen silent if it has not renewed its Lease for this long: by default it renews it every ten
/// seconds, and the node turns NotReady 40 to 50 seconds after the last time.
const SILENCE: Duration = Duration::from_secs(30);
/// A kubelet whose Lease has another duration has fallen silent after this many quarters of it. It lets one quarter
/// pass between two renewals.
const SILENT_QUARTERS: u32 = 3;
/// This many renewals are no accident.
const ENOUGH: u32 = 2;

/// The node's Lease in `kube-node-lease`, as one probe found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseReading {
    /// It could not be read this time.
    Unread,
    /// There is none, or nobody has ever renewed it.
    Absent,
    /// The agent may not read it.
    Forbidden,
    /// It was read.
    Renewed(Renewal),
}

/// The last renewal of a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The time that the kubelet gave. Another time is another renewal, and nothing else is made of it.
    pub time: Timestamp,
    /// The duration of the Lease.
    pub duration: Duration,
}

impl Renewal {
    /// Returns how long the Lease may go without another renewal.
    fn silence(&self) -> Duration {
        SILENCE.max(self.duration * SILENT_QUARTERS / 4)
    }
}

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A program was attached.
    Attached,
    /// A program was detached because the Lease, which was there, was not renewed.
    Reverted,
    /// A program was attached again, and before that the Lease was not renewed without the program either.
    Excused,
}

/// What can be said of the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was renewed often enough.
    Renewed,
    /// It may still be renewed.
    Awaited,
    /// It has not been renewed for long.
    Silent,
    /// It says nothing about the kubelet: it is absent or forbidden, or nobody renews it.
    Unusable,
}

/// What one trial has seen of the Lease.
#[derive(Clone, Debug)]
pub struct LeaseWatch {
    beginning: Beginning,
    /// The last renewal that was read.
    last: Option<Renewal>,
    /// The number of renewals since the beginning.
    renewals: u32,
    /// When the last of them was seen, or the Lease for the first time, or the beginning; or, if that is later, when
    /// the Lease could not be read last: where the API server's storage is away, no kubelet can renew it either.
    quiet_since: Instant,
    /// The last answer says nothing about the kubelet.
    unusable: bool,
}

impl LeaseWatch {
    /// Returns a watch that begins now.
    pub const fn new(beginning: Beginning, now: Instant) -> Self {
        let unusable = matches!(beginning, Beginning::Excused);
        Self { beginning, last: None, renewals: 0, quiet_since: now, unusable }
    }

    /// Records a reading that was made after the beginning.
    pub fn read(&mut self, reading: LeaseReading, now: Instant) {
        self.unusable = match reading {
            LeaseReading::Unread => {
                self.quiet_since = now;
                self.unusable
            }
            LeaseReading::Forbidden => true,
            // A kubelet that is well soon makes a Lease again that somebody deleted.
            LeaseReading::Absent => self.last.is_none() && self.beginning != Beginning::Reverted,
            LeaseReading::Renewed(renewal) => {
                let last = self.last.replace(renewal);
                if last.is_none_or(|last| last.time != renewal.time) {
                    self.renewals += u32::from(last.is_some());
                    self.quiet_since = now;
                }
                self.beginning == Beginning::Excused && self.renewals == 0
            }
        };
    }

    /// Returns what can be said now.
    pub fn finding(&self, now: Instant) -> Finding {
        let silence = self.last.map_or(SILENCE, |renewal| renewal.silence());
        match self.renewals {
            ENOUGH.. => Finding::Renewed,
            _ if self.unusable => Finding::Unusable,
            _ if now.duration_since(self.quiet_since) >= silence => Finding::Silent,
            _ => Finding::Awaited,
        }
    }

    /// Returns whether the Lease was renewed at all.
    pub const fn was_renewed(&self) -> bool {
        self.renewals > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: u64 = 10;

    /// A watch, and the seconds since it began.
    struct Watched(LeaseWatch, Instant);

    impl Watched {
        fn new(beginning: Beginning) -> Self {
            let start = Instant::now();
            Self(LeaseWatch::new(beginning, start), start)
        }

        fn reads(&mut self, second: u64, reading: LeaseReading) -> Finding {
            let now = self.1 + Duration::from_secs(second);
            self.0.read(reading, now);
            self.0.finding(now)
        }
    }

    /// What is read of a Lease that was renewed in a second, and is renewed after each quarter.
    fn renewed(at: i64, quarter: u64) -> LeaseReading {
        let time = Timestamp::from_second(1_800_000_000 + at).unwrap();
        LeaseReading::Renewed(Renewal { time, duration: Duration::from_secs(4 * quarter) })
    }

    #[test]
    fn the_renewal_that_is_read_first_may_be_older_than_the_attachment_and_does_not_count() {
        let mut watched = Watched::new(Beginning::Attached);
        for (second, at, finding) in [
            (2, -1, Finding::Awaited),
            (10, 9, Finding::Awaited),
            (12, 9, Finding::Awaited),
            (20, 19, Finding::Renewed),
            (60, 19, Finding::Renewed),
        ] {
            assert_eq!(watched.reads(second, renewed(at, QUARTER)), finding, "{second}");
        }
    }

    #[test]
    fn a_lease_is_silent_three_quarters_of_its_duration_after_the_last_renewal() {
        for (quarter, silence) in [(1, 30), (10, 30), (30, 90)] {
            let mut watched = Watched::new(Beginning::Attached);
            let mut reads = |second, at| watched.reads(second, renewed(at, quarter));
            assert_eq!(reads(2, 0), Finding::Awaited);
            assert_eq!(reads(4, 3), Finding::Awaited, "renewed once");
            assert_eq!(reads(3 + silence, 3), Finding::Awaited);
            assert_eq!(reads(4 + silence, 3), Finding::Silent);
        }
    }

    #[test]
    fn a_lease_that_can_not_be_read_says_nothing_and_is_waited_for_anew() {
        let mut watched = Watched::new(Beginning::Attached);
        assert_eq!(watched.reads(2, renewed(1, QUARTER)), Finding::Awaited);
        assert_eq!(watched.reads(90, LeaseReading::Unread), Finding::Awaited);
        assert_eq!(watched.reads(119, renewed(1, QUARTER)), Finding::Awaited);
        assert_eq!(watched.reads(120, renewed(1, QUARTER)), Finding::Silent, "half a minute after it was read again");
        assert_eq!(watched.reads(122, LeaseReading::Forbidden), Finding::Unusable);
        assert_eq!(watched.reads(124, LeaseReading::Unread), Finding::Unusable, "as far as is known");
    }

    #[test]
    fn a_lease_that_is_gone_is_not_renewed_and_one_that_never_was_there_says_nothing() {
        let mut watched = Watched::new(Beginning::Attached);
        assert_eq!(watched.reads(2, LeaseReading::Absent), Finding::Unusable);
        assert_eq!(watched.reads(4, renewed(3, QUARTER)), Finding::Awaited);
        assert_eq!(watched.reads(6, LeaseReading::Absent), Finding::Awaited);
        assert_eq!(watched.reads(34, LeaseReading::Absent), Finding::Silent);
        assert_eq!(Watched::new(Beginning::Excused).reads(2, LeaseReading::Absent), Finding::Unusable);
        assert_eq!(Watched::new(Beginning::Reverted).reads(2, LeaseReading::Absent), Finding::Awaited);
    }

    #[test]
    fn a_lease_that_nobody_renews_says_nothing_until_it_is_renewed() {
        let mut watched = Watched::new(Beginning::Excused);
        assert_eq!(watched.reads(2, LeaseReading::Unread), Finding::Unusable);
        assert_eq!(watched.reads(60, renewed(-300, QUARTER)), Finding::Unusable);
        assert_eq!(watched.reads(62, renewed(61, QUARTER)), Finding::Awaited);
        assert_eq!(watched.reads(92, renewed(61, QUARTER)), Finding::Silent);
    }
}
