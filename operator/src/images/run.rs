//! [`Images`]: the images that BpfPrograms want, shared by the reconciliations and the task that pulls them. IO: what
//! the given function does.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sockeye_client::backoff::with_jitter;
use sockeye_crds::{Reason, Refusal};
use sockeye_metrics::OperatorMetrics;
use tokio::{
    sync::{Notify, mpsc::WeakUnboundedSender},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    images::{
        key::Want,
        pulled::Outcome,
        pulls::{Answer, Effect, Event, Job, Pulls},
    },
    watch::trigger::{Pace, Trigger},
};

/// A pull takes at most this long, whatever the registry does. The client's own bounds are below it.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(240);

/// The images that BpfPrograms want. Clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    pulls: Arc<Mutex<Pulls>>,
    /// Wakes the task that pulls.
    wanted: Arc<Notify>,
    metrics: OperatorMetrics,
}

impl Images {
    /// Creates an empty state. A tag that is followed is resolved again every `interval`.
    pub fn new(interval: Duration) -> Self {
        let pulls = Arc::new(Mutex::new(Pulls::new(interval, with_jitter)));
        Self { pulls, wanted: Arc::default(), metrics: OperatorMetrics::default() }
    }

    /// Has it count pulls.
    #[must_use]
    pub fn counting(self, metrics: OperatorMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Records what a BpfProgram wants in place of what it wanted before, and returns what is known of that. It waits
    /// for nothing: the BpfProgram is triggered when more is known.
    pub fn want(&self, program: &str, want: Want) -> Answer {
        let mut pulls = self.lock();
        pulls.want(program, want, now());
        self.wanted.notify_one();
        pulls.answer(program)
    }

    /// Returns why the image that a BpfProgram wants could not be pulled the last time.
    pub fn failure(&self, program: &str) -> Option<String> {
        self.lock().answer(program).failure.map(|failure| failure.message)
    }

    /// Records that a BpfProgram no longer wants an image.
    pub fn release(&self, program: &str) {
        self.lock().release(program);
    }

    /// Pulls what is wanted, and triggers the BpfPrograms that it concerns.
    pub async fn run<F>(
        self,
        triggers: WeakUnboundedSender<Trigger>,
        pull: impl Fn(Job) -> F + Send + 'static,
    ) -> Infallible
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let mut event = Event::Tick;
        loop {
            let now = now();
            let (effects, wake) = {
                let mut pulls = self.lock();
                (pulls.step(event, now), pulls.wake(now))
            };
            for effect in effects {
                match effect {
                    Effect::Pull(job) => {
                        let key = job.key.clone();
                        debug!(reference = key.reference, "pulling");
                        let pulled = pull(job);
                        running.spawn(async move {
                            let outcome = guard(key.registry(), pulled).await;
                            (key, outcome)
                        });
                    }
                    Effect::Changed(programs) => {
                        // Sending fails only while the process ends.
                        let trigger = Trigger::Programs(programs, Pace::Immediate);
                        let _ = triggers.upgrade().map(|triggers| triggers.send(trigger));
                    }
                }
            }
            let tick = wake.map_or(PULL_TIMEOUT, |wake| wake.saturating_duration_since(now));
            event = tokio::select! {
                // A pull is guarded, so that none panics.
                Some(Ok((key, outcome))) = running.join_next() => {
                    log(&key.reference, &outcome);
                    self.metrics.pulls.inc(&[outcome.as_str()]);
                    Event::Finished(key, outcome)
                }
                () = self.wanted.notified() => Event::Tick,
                () = sleep(tick) => Event::Tick,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pulls> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time by the runtime's clock, which tests move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ends a pull that takes too long, and takes one that panics for a failed one.
async fn guard(registry: &str, pull: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
    let mut task = JoinSet::new();
    task.spawn(pull);
    let what = match timeout(PULL_TIMEOUT, task.join_next()).await {
        Ok(Some(Ok(outcome))) => return outcome,
        Ok(_) => "gave something on which the client of sockeye gave up; please report it".to_owned(),
        Err(_) => format!("did not give the image within {} s; it is tried again", PULL_TIMEOUT.as_secs()),
    };
    let message = format!("spec.bytecode.image: registry {registry} {what}");
    Outcome::Failed { refusal: Refusal { reason: Reason::ImagePullFailed, message }, retry_after: None }
}

fn log(reference: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Known(digest) => debug!(reference, digest, "resolved as before"),
        Outcome::Pulled(image) => info!(reference, digest = image.digest, bytes = image.size(), "pulled"),
        Outcome::Failed { refusal, .. } => warn!(reference, error = refusal.message, "pulling failed; retrying later"),
    }
}
