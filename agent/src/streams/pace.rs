//! `Pace`: when a buffer is read next. No IO.
//!
//! To be woken for each record costs whoever writes it a wake-up, so a buffer is read at intervals while records come,
//! and waited for only while none do: the first record after a pause is read at once. The interval follows the fill, so
//! that a buffer is an eighth full when it is read next.

use std::time::Duration;

/// The shortest and the longest interval.
const INTERVALS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));
/// The share of a buffer that is to be full when it is read.
const SHARE: usize = 8;
/// The number of times that a buffer is found empty before it is waited for.
const PATIENCE: u32 = 3;

/// The pause before the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Sleep for a time.
    Sleep(Duration),
    /// Wait for the next record.
    Wait,
}

/// The pace at which one buffer is read.
#[derive(Debug)]
pub struct Pace {
    capacity: usize,
    interval: Duration,
    empty: u32,
}

impl Pace {
    /// Returns the pace for a buffer of so many bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, interval: INTERVALS.0, empty: PATIENCE }
    }

    /// Records the number of bytes that a look found, and says what to do before the next one.
    pub fn next(&mut self, bytes: usize) -> Pause {
        if bytes == 0 {
            self.empty += 1;
            if self.empty > PATIENCE {
                self.interval = INTERVALS.0;
                return Pause::Wait;
            }
            self.interval = (self.interval * 2).min(INTERVALS.1);
            return Pause::Sleep(self.interval);
        }
        self.empty = 0;
        let target = (self.capacity / SHARE).max(1) as f64;
        // At most twice as long as before: one quiet moment says little.
        let factor = (target / bytes as f64).min(2.0);
        self.interval = self.interval.mul_f64(factor).clamp(INTERVALS.0, INTERVALS.1);
        Pause::Sleep(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_read_as_it_fills_and_waited_for_when_it_is_quiet() {
        let mut pace = Pace::new(256 << 10);
        assert_eq!(pace.next(0), Pause::Wait, "at first");
        // Ten megabytes a second.
        let mut interval = Duration::ZERO;
        let mut fills = Vec::new();
        for _ in 0..50 {
            let bytes = (interval.as_secs_f64() * 1e7) as usize + 88;
            fills.push(bytes);
            let Pause::Sleep(next) = pace.next(bytes) else { panic!("records come") };
            interval = next;
        }
        let last = fills[40..].iter().max().unwrap();
        assert!((16 << 10..64 << 10).contains(last), "{fills:?}");
        assert!(fills.iter().max().unwrap() < &(128 << 10), "{fills:?}");
        // A record now and then.
        let slow: Vec<Pause> = (0..20).map(|_| pace.next(88)).collect();
        assert_eq!(slow[19], Pause::Sleep(INTERVALS.1));
        let quiet: Vec<Pause> = (0..4).map(|_| pace.next(0)).collect();
        assert!(matches!(quiet[..], [Pause::Sleep(_), Pause::Sleep(_), Pause::Sleep(_), Pause::Wait]), "{quiet:?}");
    }
}
