//! [`Candidate`]: takes part in the election, and lets the writers run while this process leads. IO: requests about the
//! one Lease.
//!
//! The watch of the Lease only says when to look, so it may fail and wait. [`Requests`] have a client of their own:
//! they wait neither for the process's backoff nor for a `Retry-After`, and no list holds up their one connection.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, core::DeserializeGuard, runtime::watcher};
use sockeye_client::{Backoff, Selection, watch};
use tokio::{
    select,
    sync::watch::{Receiver, Sender, channel},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use crate::leader::{
    election::{Answer, Effect, Election, End, Event, LEASE_DURATION, RENEW_DEADLINE},
    gate::Gate,
    lease::LEASE,
    requests::Requests,
};

/// Bounds the time that the writers take to stop. Then they are dropped, in the middle of a write.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Leadership is lost, and with it the right to write.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The Lease was not renewed in time.
    #[error("lost the Lease {LEASE}: it could not be renewed within {RENEW_DEADLINE:?}")]
    Late,
    /// The Lease is another's.
    #[error("lost the Lease {LEASE} to {0}")]
    Taken(String),
    /// The Lease has no holder, and this process did not release it.
    #[error("lost the Lease {LEASE}: somebody else released it")]
    Released,
}

/// Tells the writers to wait, to write, or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another process leads: be ready, and write nothing.
    StandBy,
    /// Write.
    Lead,
    /// End the writes that are under way, and then end.
    Stop,
}

/// The Lease as the watch showed it last.
#[derive(Clone, Debug)]
enum Watched {
    /// There was no list yet.
    NotListed,
    /// There is none, or one that can't be read, which is as good as none: the candidate reads.
    Missing,
    /// There is one.
    Found(Arc<Lease>),
}

impl Watched {
    fn into_event(self) -> Event {
        match self {
            Self::NotListed => Event::Tick,
            Self::Missing => Event::Watched(None),
            Self::Found(lease) => Event::Watched(Some(lease)),
        }
    }
}

/// A process that takes part in the election.
pub struct Candidate {
    /// The name of this process in the Lease.
    pub identity: String,
    /// Reads and writes the Lease.
    pub requests: Requests,
    /// Watches the Lease.
    pub leases: Api<DeserializeGuard<Lease>>,
    /// Is open while this process leads.
    pub gate: Gate,
}

impl Candidate {
    /// Runs until `stop` ends, or with an error once leadership is lost or the writers fail. The writers follow the
    /// phases.
    pub async fn run<E: From<Lost>>(
        self,
        stop: impl Future<Output = ()>,
        phases: Sender<Phase>,
        writers: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let (sender, watched) = channel(Watched::NotListed);
        let watching = watch_lease(self.leases.clone(), sender);
        let writers = Writers { phases, work: Some(Box::pin(writers)), drop_at: None };
        select! {
            ended = self.stand(stop, writers, watched) => ended,
            never = watching => match never {},
        }
    }

    async fn stand<E: From<Lost>>(
        self,
        stop: impl Future<Output = ()>,
        mut writers: Writers<impl Future<Output = Result<(), E>>>,
        mut watched: Receiver<Watched>,
    ) -> Result<(), E> {
        info!(identity = self.identity, "waiting to lead");
        let mut election = Election::new(self.identity.clone(), Instant::now().into_std());
        let (mut stop, mut asked, mut is_stopping) = (Box::pin(stop), None, false);
        let mut event = Event::Tick;
        loop {
            for effect in election.handle(event, Instant::now().into_std()) {
                match effect {
                    Effect::Send(request) => asked = Some(Box::pin(self.requests.ask(request))),
                    Effect::Lead(until) => {
                        info!(identity = self.identity, "leading");
                        self.gate.open_until(until.into());
                        writers.phases.send_replace(Phase::Lead);
                    }
                    Effect::Renewed(until) => self.gate.open_until(until.into()),
                    Effect::StopWriters => writers.stop(),
                    Effect::End(end) => {
                        self.gate.close();
                        return ended(end).map_err(E::from);
                    }
                }
            }
            let wake_at = election.wake_at().map_or_else(|| Instant::now() + LEASE_DURATION, Instant::from);
            event = select! {
                answer = finished(&mut asked) => Event::Answered(answer),
                ended = writers.ended() => {
                    self.gate.close();
                    ended?;
                    Event::WritersStopped
                }
                () = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    Event::Stop
                }
                Ok(()) = watched.changed() => watched.borrow_and_update().clone().into_event(),
                () = sleep_until(wake_at) => Event::Tick,
            };
        }
    }
}

/// The writers of this process.
struct Writers<W> {
    phases: Sender<Phase>,
    /// Is gone once it has ended.
    work: Option<Pin<Box<W>>>,
    /// The time at which writers that were told to stop are dropped.
    drop_at: Option<Instant>,
}

impl<E, W: Future<Output = Result<(), E>>> Writers<W> {
    fn stop(&mut self) {
        self.phases.send_replace(Phase::Stop);
        self.drop_at = Some(Instant::now() + STOP_TIMEOUT);
    }

    /// Runs the writers to their end, and drops those that do not stop in time.
    async fn ended(&mut self) -> Result<(), E> {
        let Some(work) = &mut self.work else { return pending().await };
        let drop_at = self.drop_at;
        let too_late = async {
            match drop_at {
                Some(drop_at) => sleep_until(drop_at).await,
                None => pending().await,
            }
        };
        let ended = select! {
            ended = work => ended,
            () = too_late => {
                warn!("ending in the middle of a write: it took too long");
                Ok(())
            }
        };
        self.work = None;
        ended
    }
}

/// Watches the Lease for ever.
async fn watch_lease(leases: Api<DeserializeGuard<Lease>>, sender: Sender<Watched>) -> Infallible {
    let selection = Selection { fields: Some(format!("metadata.name={LEASE}")), ..Selection::default() };
    let mut listed = None;
    let on_event = |event| {
        let shown = match event {
            watcher::Event::Init => {
                listed = None;
                return;
            }
            watcher::Event::InitApply(lease) => {
                listed = Some(lease);
                return;
            }
            watcher::Event::InitDone => listed.take(),
            watcher::Event::Apply(lease) => Some(lease),
            watcher::Event::Delete(_) => None,
        };
        let readable = shown.and_then(|lease: DeserializeGuard<Lease>| lease.0.ok().map(Arc::new));
        sender.send_replace(readable.map_or(Watched::Missing, Watched::Found));
    };
    watch(leases, &selection, &Backoff::default(), on_event, |_| ()).await
}

/// Waits for the answer to the request that is under way, if there is one.
async fn finished<F: Future<Output = Answer>>(asked: &mut Option<Pin<Box<F>>>) -> Answer {
    let Some(request) = asked else { return pending().await };
    let answer = request.await;
    *asked = None;
    answer
}

fn ended(end: End) -> Result<(), Lost> {
    let lost = match end {
        End::Stopped => return Ok(()),
        End::Late => Lost::Late,
        End::Taken(Some(other)) => Lost::Taken(other),
        End::Taken(None) => Lost::Released,
    };
    error!("{lost}; ending");
    Err(lost)
}

#[cfg(test)]
mod tests;
