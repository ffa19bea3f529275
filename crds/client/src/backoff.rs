//! [`Backoff`]: the delay before a failed request is sent again. IO: none; time.
//!
//! All requests of a process share one. Of those that fail at the same time one is sent again, and its outcome decides
//! when the others follow.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::debug;

/// The upper bound of the first delay. It spreads a thousand processes whose connections were cut in the same instant.
pub const INITIAL_DELAY: Duration = Duration::from_secs(2);
/// The upper bound of every delay: a process speaks up this soon after the API server is back.
pub const MAX_DELAY: Duration = Duration::from_secs(4);
/// The delay starts over after this long without a failure.
const RESET_AFTER: Duration = Duration::from_secs(30);

/// Delays the retries of one process.
#[derive(Debug)]
pub struct Backoff {
    delays: Mutex<Delays>,
    first: tokio::sync::Mutex<()>,
    answers: watch::Sender<()>,
}

/// The place of a request among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The delay is over for this one. The others wait for its outcome.
    First,
    /// It waited, and the first one got an answer.
    Waiting,
}

/// The last delay, before jitter, and its beginning.
#[derive(Debug, Default)]
struct Delays(Option<(Duration, Instant)>);

impl Default for Backoff {
    fn default() -> Self {
        Self { delays: Mutex::default(), first: tokio::sync::Mutex::default(), answers: watch::Sender::new(()) }
    }
}

impl Backoff {
    /// Waits until the request may be sent again.
    pub async fn wait(&self) -> Turn {
        let mut answers = self.answers.subscribe();
        let lead = async {
            let _first = self.first.lock().await;
            let delay = self.delays.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
            let delay = with_jitter(delay);
            debug!(?delay, "waiting before a retry");
            sleep(delay).await;
        };
        tokio::select! {
            () = lead => Turn::First,
            _ = answers.changed() => Turn::Waiting,
        }
    }

    /// Ends all waits if the request was the first. Call it for every answer, a rejection too.
    ///
    /// The others end no waits: two that succeed in turn and fail again could chase each other without delay.
    pub fn answered(&self, turn: Turn) {
        if turn == Turn::First {
            self.answers.send_replace(());
        }
    }
}

impl Delays {
    /// Doubles the delay, up to [`MAX_DELAY`].
    fn next(&mut self, now: Instant) -> Duration {
        let delay = match self.0 {
            Some((last, at)) if now.duration_since(at) < RESET_AFTER => (last * 2).min(MAX_DELAY),
            _ => INITIAL_DELAY,
        };
        self.0 = Some((delay, now));
        delay
    }
}

/// Returns a random duration between a tenth of `delay` and all of it.
pub fn with_jitter(delay: Duration) -> Duration {
    delay.mul_f64(0.1 + 0.9 * random())
}

/// Returns a random number in `[0, 1)`. Each hasher has keys of its own, which is random enough to spread retries.
fn random() -> f64 {
    let hash = RandomState::new().build_hasher().finish();
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn delays_double_up_to_four_seconds_and_start_over_after_thirty_without_a_failure() {
        let (mut delays, mut now) = (Delays::default(), Instant::now());
        let mut next = |later| {
            now += Duration::from_secs(later);
            delays.next(now).as_secs()
        };
        assert_eq!([next(0), next(2), next(4), next(4)], [2, 4, 4, 4]);
        assert_eq!([next(29), next(30), next(30)], [4, 2, 2]);
    }

    #[test]
    fn jitter_spreads_delays_evenly() {
        let delays: Vec<f64> = (0..1000).map(|_| with_jitter(Duration::from_secs(1)).as_secs_f64()).collect();
        assert!(delays.iter().all(|delay| (0.1..=1.0).contains(delay)));
        for tenth in 1..10 {
            let from = f64::from(tenth) / 10.0;
            let within = delays.iter().filter(|delay| (from..from + 0.1).contains(*delay)).count();
            assert!((60..170).contains(&within), "{within} of 1000 in the tenth from {from}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_retry_one_at_a_time() {
        let backoff = Arc::new(Backoff::default());
        let start = Instant::now();
        let waits: Vec<_> = (0..5)
            .map(|_| {
                let backoff = Arc::clone(&backoff);
                tokio::spawn(async move { backoff.wait().await })
            })
            .collect();
        for wait in waits {
            wait.await.unwrap();
        }
        // 2 + 4 + 4 + 4 + 4 seconds, each with jitter a tenth at least.
        assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_the_leader_ends_all_waits() {
        let backoff = Arc::new(Backoff::default());
        let waits: Vec<_> = (0..20)
            .map(|_| {
                let backoff = Arc::clone(&backoff);
                tokio::spawn(async move {
                    let turn = backoff.wait().await;
                    backoff.answered(turn);
                    turn
                })
            })
            .collect();
        let start = Instant::now();
        let mut firsts = 0;
        for wait in waits {
            firsts += usize::from(wait.await.unwrap() == Turn::First);
        }
        assert_eq!(firsts, 1);
        assert!(start.elapsed() <= INITIAL_DELAY);
    }
}
