//! `Patience`: how long to wait before asking again an API server that did not answer, or refused. Shared by all that one
//! process asks: of what fails at the same time, one asks and the others wait for what becomes of it.

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

/// The first wait is up to so long. Long enough that a thousand processes whose connections are cut in the same instant do
/// not come back in the same instant.
pub const FIRST: Duration = Duration::from_secs(2);
/// No wait is longer: what there is to tell is told so soon after the API server is back.
pub const LONGEST: Duration = Duration::from_secs(4);
/// Without a failure for so long, the next one waits as the first did.
const CALM: Duration = Duration::from_secs(30);

/// How long to wait before asking again.
#[derive(Debug)]
pub struct Patience {
    waits: Mutex<Waits>,
    turn: tokio::sync::Mutex<()>,
    answers: watch::Sender<()>,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its time had come: the others wait for what becomes of it.
    Own,
    /// Another was answered.
    Followed,
}

/// The last wait, before chance shortened it, and when it began.
#[derive(Debug, Default)]
struct Waits(Option<(Duration, Instant)>);

impl Default for Patience {
    fn default() -> Self {
        Self { waits: Mutex::default(), turn: tokio::sync::Mutex::default(), answers: watch::Sender::new(()) }
    }
}

impl Patience {
    /// Waits until it is time to ask again.
    pub async fn wait(&self) -> Turn {
        let mut answers = self.answers.subscribe();
        let own = async {
            let _turn = self.turn.lock().await;
            let wait = self.waits.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
            let wait = shortened(wait);
            debug!(?wait, "waiting before asking again");
            sleep(wait).await;
        };
        tokio::select! {
            () = own => Turn::Own,
            _ = answers.changed() => Turn::Followed,
        }
    }

    /// Says that one whose turn it was got an answer, if only a refusal: the others need not wait any longer. One that
    /// followed says nothing, or two whose luck does not last could chase each other.
    pub fn answered(&self, turn: Turn) {
        if turn == Turn::Own {
            self.answers.send_replace(());
        }
    }
}

impl Waits {
    /// Twice as long each time.
    fn next(&mut self, now: Instant) -> Duration {
        let wait = match self.0 {
            Some((last, at)) if now.duration_since(at) < CALM => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0 = Some((wait, now));
        wait
    }
}

/// A tenth of it to all of it, by chance.
pub fn shortened(wait: Duration) -> Duration {
    wait.mul_f64(0.1 + 0.9 * chance())
}

/// At least 0, less than 1. Each hasher has keys of its own, which is chance enough to spread what would come at once.
fn chance() -> f64 {
    let hash = RandomState::new().build_hasher().finish();
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_calm_clears_them() {
        let (mut waits, mut now) = (Waits::default(), Instant::now());
        let mut next = |later| {
            now += Duration::from_secs(later);
            waits.next(now).as_secs()
        };
        assert_eq!([next(0), next(2), next(4), next(4)], [2, 4, 4, 4]);
        assert_eq!([next(29), next(30), next(30)], [4, 2, 2]);
    }

    #[test]
    fn chance_spreads() {
        let waits: Vec<f64> = (0..1000).map(|_| shortened(Duration::from_secs(1)).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (0.1..=1.0).contains(wait)));
        for tenth in 1..10 {
            let from = f64::from(tenth) / 10.0;
            let within = waits.iter().filter(|wait| (from..from + 0.1).contains(*wait)).count();
            assert!((60..170).contains(&within), "{within} of 1000 in the tenth from {from}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_asks() {
        let patience = Arc::new(Patience::default());
        let start = Instant::now();
        let waits: Vec<_> = (0..5)
            .map(|_| {
                let patience = Arc::clone(&patience);
                tokio::spawn(async move { patience.wait().await })
            })
            .collect();
        for wait in waits {
            wait.await.unwrap();
        }
        // 2 + 4 + 4 + 4 + 4 seconds, each shortened to a tenth at most.
        assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_sends_the_others_after() {
        let patience = Arc::new(Patience::default());
        let waits: Vec<_> = (0..20)
            .map(|_| {
                let patience = Arc::clone(&patience);
                tokio::spawn(async move {
                    let turn = patience.wait().await;
                    patience.answered(turn);
                    turn
                })
            })
            .collect();
        let start = Instant::now();
        let mut own = 0;
        for wait in waits {
            own += usize::from(wait.await.unwrap() == Turn::Own);
        }
        assert_eq!(own, 1);
        assert!(start.elapsed() <= FIRST);
    }
}
