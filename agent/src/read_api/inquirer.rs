//! `Inquirer`: asks the controller, and brings its answers back.
//!
//! One inquiry at a time, and not more than one in two milliseconds: an answer takes the controller's thread some tens
//! of microseconds, so whoever asks takes a few percent of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use sockeye_read_api::{Failure, FailureReason};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use crate::control::{
    event::Event,
    inspection::{Inquiry, InquiryId, Inspection},
    run::Events,
};

/// The interval of inquiries.
const INTERVAL: Duration = Duration::from_millis(2);
/// The longest time of an answer: a step of the controller loads one program at most.
const ANSWER: Duration = Duration::from_secs(15);

/// Asks the controller. Clones are the same.
#[derive(Clone, Default)]
pub struct Inquirer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    events: OnceLock<Events>,
    waiting: Mutex<Waiting>,
    /// The time of the next inquiry, once there was one.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Waiting {
    next: InquiryId,
    answers: BTreeMap<InquiryId, oneshot::Sender<Inspection>>,
}

impl Inquirer {
    /// Asks the controller that takes these events, from the first call on.
    pub(super) fn connect(&self, events: Events) {
        drop(self.0.events.set(events));
    }

    /// Handles the controller's answer. One that nobody waits for any more is dropped.
    pub fn answer(&self, id: InquiryId, inspection: Inspection) {
        if let Some(answer) = self.waiting().answers.remove(&id) {
            drop(answer.send(inspection));
        }
    }

    /// Asks the controller.
    pub(crate) async fn ask(&self, inquiry: Inquiry) -> Result<Inspection, Failure> {
        let mut turn = self.0.turn.lock().await;
        if let Some(next) = *turn {
            sleep_until(next).await;
        }
        *turn = Some(Instant::now() + INTERVAL);
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting();
            waiting.next += 1;
            let id = waiting.next;
            // Nobody waits for an answer that came too late.
            waiting.answers.retain(|_, answer| !answer.is_closed());
            waiting.answers.insert(id, answer);
            id
        };
        if let Some(events) = self.0.events.get() {
            events.send(Event::Asked(id, inquiry));
        }
        match timeout(ANSWER, answered).await {
            Ok(Ok(inspection)) => Ok(inspection),
            _ => Err(Failure {
                reason: FailureReason::TimedOut,
                message: format!("the agent is busy and did not answer within {} s: ask again", ANSWER.as_secs()),
            }),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
