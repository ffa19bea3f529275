//! Reconciliation of one BpfProgram, a file per step. The data flows from the top to the bottom of this table:
//!
//! | step | result | IO |
//! |---|---|---|
//! | [`gather`](mod@gather) | [`Gathered`]: the [`intent`], its [`bytecode`], its revisions and the nodes | reads |
//! | [`validate`](mod@validate) | [`Validated`](validate::Validated): the latest spec, [`check`](mod@check)ed | none |
//! | [`sharing`] | the spec is refused if it borrows a map that is not shared | none |
//! | [`plan`](mod@plan) | [`Plan`]: the [`step`]s that dispatch it | none |
//! | [`apply`] | the steps are done | writes |
//! | [`update_status`](mod@update_status) | the steps that fold the nodes' reports into the status | none |
//! | [`apply`] | the steps are done | writes |
//!
//! The writes are [`requests`] that name the version they are based on. If another writer was quicker, they change
//! nothing, and the next reconciliation plans again.
//!
//! Between two reconciliations the [`cache`] keeps the last check and write, and the [`throttle`] the time of the last
//! status. [`stored_object`] remembers which ConfigMaps hold the bytes that their names say.

pub mod apply;
pub mod bytecode;
pub mod cache;
pub mod check;
pub mod gather;
mod image_bytecode;
pub mod image_content;
pub mod intent;
pub mod material;
pub mod plan;
pub mod requests;
pub mod sharing;
pub mod step;
pub mod stored_object;
pub mod throttle;
pub mod update_status;
pub mod validate;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{BpfProgramStatus, Reason, Refusal, names, revision::ProgramRef};
use sockeye_metrics::OperatorMetrics;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{
    events::{budget::EventBudget, drift::DriftTracker},
    reconcile::{
        apply::Writer,
        cache::ProgramCache,
        gather::{Gathered, Reader},
        intent::Intent,
        plan::{Plan, plan},
        sharing::refuse_unshared,
        step::{ObjectVersion, Step},
        update_status::update_status,
        validate::{CheckOutcome, validate},
    },
    signing::Signing,
};

/// A reconciliation that takes longer hangs in a request, and is cancelled.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A log line has at most this many bytes of an error. An API server's answer may quote what was written.
const MAX_LOGGED_ERROR: usize = 1000;

/// Reads from the API server, and writes to it.
#[derive(Clone)]
pub struct Context {
    /// Does the reads.
    pub reader: Reader,
    /// Does the writes.
    pub writer: Writer,
    /// Bounds the Events that quote nodes.
    pub event_budget: Arc<Mutex<EventBudget>>,
    /// The policy for signatures.
    pub signing: Signing,
    /// Counts what happens.
    pub metrics: OperatorMetrics,
}

/// The outcome of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Everything was written but the status, which may be written at this time.
    Throttled(Instant),
    /// The BpfProgram no longer exists.
    Gone,
    /// A step failed.
    Failed,
    /// A step failed because the API server is away or overloaded, or another writer was quicker.
    Transient,
}

impl Outcome {
    /// Returns the name that metrics give it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Throttled(_) => "throttled",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Transient => "transient",
        }
    }
}

/// A step failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("gather: {0}")]
    Gather(#[from] gather::Error),
    #[error("validate: {0}")]
    Validate(#[from] validate::Error),
    #[error("apply: {0}")]
    Apply(#[from] apply::Error),
    #[error("cancelled after {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// Names the step, for logs and metrics.
    const fn step(&self) -> &'static str {
        match self {
            Self::Gather(_) => "gather",
            Self::Validate(_) => "validate",
            Self::Apply(_) => "apply",
            Self::Timeout => "timeout",
        }
    }

    /// Returns whether another writer was quicker, or the watch lags behind. That is nobody's error.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Apply(error) if error.is_conflict())
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Gather(error) => error.is_transient(),
            Self::Apply(error) => error.is_transient(),
            Self::Validate(_) => false,
            Self::Timeout => true,
        }
    }
}

/// Reconciles the BpfProgram of this name.
pub async fn reconcile(context: &Context, name: &str, cache: &mut ProgramCache) -> Outcome {
    let start = Instant::now();
    let result = timeout(TIMEOUT, run_steps(context, name, cache)).await.unwrap_or(Err(Error::Timeout));
    let outcome = result.unwrap_or_else(|error| {
        context.metrics.errors.inc(&[if error.is_conflict() { "conflict" } else { error.step() }]);
        let (step, text) = (error.step(), names::line(&error.to_string(), MAX_LOGGED_ERROR));
        if error.is_conflict() {
            debug!(program = name, step, error = text, "another write was quicker; reconciling again");
        } else {
            warn!(program = name, step, error = text, "reconciliation failed; retrying later");
        }
        if error.is_transient() { Outcome::Transient } else { Outcome::Failed }
    });
    context.metrics.reconciled(outcome.as_str(), start.elapsed());
    outcome
}

async fn run_steps(context: &Context, name: &str, cache: &mut ProgramCache) -> Result<Outcome, Error> {
    let Context { reader, writer, event_budget, signing, metrics } = context;
    let Some(object) = reader.stores.program(name) else {
        reader.images.release(name);
        return Ok(Outcome::Gone);
    };
    let mut gathered = reader.gather(object, cache).await?;
    let mut validated = validate(&mut gathered, cache, signing).await?;
    refuse_unshared(&gathered, &mut validated);
    let is_stored = match validated.accepted() {
        Some(accepted) => reader.are_stored(accepted).await?,
        None => false,
    };
    let Plan { steps, mut current } = plan(&gathered, &validated, is_stored);
    let mut version = gathered.intent.version.clone();
    let applied = writer.apply(&mut version, steps).await;
    if version != gathered.intent.version {
        cache.record_write(&version, &gathered.intent.status);
    }
    let failure = match applied.map_err(|error| (error.rejection(), error)) {
        Ok(()) => None,
        Err((None, error)) => return Err(error.into()),
        Err((Some(message), error)) => {
            // The status tells the user why, and a retry may help nevertheless.
            validated.outcome = CheckOutcome::Rejected(Refusal { reason: Reason::DispatchFailed, message });
            current = gathered.revisions.newest().cloned();
            Some(error)
        }
    };
    let drift = drift_events(&gathered, &mut cache.drift, event_budget);
    writer.apply(&mut version, drift).await?;
    let steps = update_status(&gathered, &validated, current.as_ref(), now());
    if failure.is_none()
        && let Some(until) = throttled_until(&gathered, &steps, cache)
    {
        return Ok(Outcome::Throttled(until));
    }
    let steps = within_budget(steps, &gathered.intent.program, event_budget);
    let dropped = event_budget.lock().unwrap_or_else(PoisonError::into_inner).take_dropped();
    metrics.events.add(&["dropped"], dropped);
    write_status(writer, &gathered.intent, &mut version, steps, cache).await?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Outcome::Done),
    }
}

fn drift_events(gathered: &Gathered, tracker: &mut DriftTracker, budget: &Mutex<EventBudget>) -> Vec<Step> {
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    let events = tracker.observe(&gathered.intent.program, &gathered.nodes.views(), &mut budget, now());
    events.into_iter().map(Step::PublishEvent).collect()
}

/// Drops the Events that quote nodes which have had as many as they may, or of which the BpfProgram has had as many.
fn within_budget(steps: Vec<Step>, program: &ProgramRef, budget: &Mutex<EventBudget>) -> Vec<Step> {
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    let allow = |step| match step {
        Step::PublishEvent(event) => budget.allow(event, program, now()).map(Step::PublishEvent),
        write => Some(write),
    };
    steps.into_iter().filter_map(allow).collect()
}

/// Returns the time at which the status may be written, if it may not be now. The last status before the finalizer is
/// removed does not wait.
fn throttled_until(gathered: &Gathered, steps: &[Step], cache: &ProgramCache) -> Option<Instant> {
    let is_last = steps.iter().any(|step| matches!(step, Step::RemoveFinalizer { .. }));
    let status = status_in(steps).filter(|_| !is_last)?;
    let earliest = cache.throttle.earliest(&gathered.intent.status, status, gathered.nodes.len());
    earliest.filter(|earliest| *earliest > Instant::now())
}

/// Runs the steps of `update_status` on a version of the BpfProgram, and caches the status until the watch brings it
/// back.
async fn write_status(
    writer: &Writer,
    intent: &Intent,
    version: &mut ObjectVersion,
    steps: Vec<Step>,
    cache: &mut ProgramCache,
) -> Result<(), apply::Error> {
    let (status, before) = (status_in(&steps).cloned(), version.clone());
    let result = writer.apply(version, steps).await;
    // The status is written first, so it is written if the version changed, whatever failed then.
    if let Some(status) = status
        && (result.is_ok() || *version != before)
    {
        cache.throttle.record(&intent.status, &status, Instant::now());
        cache.record_write(version, &status);
    }
    result
}

fn status_in(steps: &[Step]) -> Option<&BpfProgramStatus> {
    steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => Some(&**status),
        _ => None,
    })
}

/// Returns the time in whole seconds, as Kubernetes writes it.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::ProgramEvent;

    #[test]
    fn events_of_a_node_that_fails_again_and_again_are_dropped_and_the_status_is_written() {
        let budget = Mutex::default();
        let failure = |n: i32| {
            let (reason, note) = ("LoadFailed".to_owned(), format!("failed for the {n}th time"));
            ProgramEvent { is_warning: true, reason, action: "Attach", note, quoted: vec!["n1".to_owned()] }
        };
        let steps = |n| vec![Step::WriteStatus(Box::default()), Step::PublishEvent(failure(n))];
        let left: Vec<Step> = (0..100).flat_map(|n| within_budget(steps(n), &ProgramRef::default(), &budget)).collect();
        let events = left.iter().filter(|step| matches!(step, Step::PublishEvent(_))).count();
        assert_eq!((left.len() - events, events), (100, 10));
    }
}
