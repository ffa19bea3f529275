//! Reconciliation of one BpfProgram, a file per step. The data flows from the top to the bottom of this table:
//!
//! | step | result | IO |
//! |---|---|---|
//! | [`gather`](mod@gather) | [`Gathered`]: the [`intent`], its [`bytecode`], its revisions and the nodes | reads |
//! | [`validate`](mod@validate) | [`Validated`]: the latest spec, checked | none |
//! | [`plan`](mod@plan) | [`Plan`]: the [`step`]s that dispatch it | none |
//! | [`apply`] | the steps are done | writes |
//! | [`update_status`](mod@update_status) | the steps that fold the nodes' reports into the status | none |
//! | [`apply`] | the steps are done | writes |
//!
//! Between two reconciliations the [`cache`] keeps the last check, and the [`throttle`] the time of the last status.

pub mod apply;
pub mod bytecode;
pub mod cache;
pub mod finalizer_patch;
pub mod gather;
pub mod intent;
pub mod plan;
pub mod step;
pub mod throttle;
pub mod update_status;
pub mod validate;

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{BpfProgramStatus, Reason, Refusal};
use tokio::time::timeout;
use tracing::warn;

use crate::reconcile::{
    apply::Writer,
    cache::{ProgramCache, WrittenStatus},
    gather::{Gathered, Reader, list_revisions},
    intent::Intent,
    plan::{Plan, plan},
    step::Step,
    update_status::update_status,
    validate::{CheckOutcome, Validated, validate},
};

/// A reconciliation that takes longer hangs in a request, and is cancelled.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads from the API server, and writes to it.
#[derive(Clone)]
pub struct Context {
    /// Does the reads.
    pub reader: Reader,
    /// Does the writes.
    pub writer: Writer,
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
    let result = timeout(TIMEOUT, run_steps(context, name, cache)).await.unwrap_or(Err(Error::Timeout));
    result.unwrap_or_else(|error| {
        warn!(program = name, step = error.step(), %error, "reconciliation failed; retrying later");
        if error.is_transient() { Outcome::Transient } else { Outcome::Failed }
    })
}

async fn run_steps(context: &Context, name: &str, cache: &mut ProgramCache) -> Result<Outcome, Error> {
    let Context { reader, writer } = context;
    let Some(object) = reader.stores.program(name) else { return Ok(Outcome::Gone) };
    let mut gathered = reader.gather(object, cache).await?;
    let mut validated = validate(&mut gathered, cache).await?;
    let Plan { steps, mut dispatched } = plan_on_fresh_revisions(reader, &mut gathered, &validated).await?;
    let program = gathered.intent.program.clone();
    let failure = match writer.apply(&program, steps).await.map_err(|error| (error.rejection(), error)) {
        Ok(_) => None,
        Err((None, error)) => return Err(error.into()),
        Err((Some(message), error)) => {
            // The status tells the user why, and a retry may help nevertheless.
            validated.outcome = CheckOutcome::Rejected(Refusal { reason: Reason::DispatchFailed, message });
            dispatched = gathered.revisions.newest().cloned();
            Some(error)
        }
    };
    let drift = cache.drift.observe(&program, &gathered.nodes.views(), now());
    writer.apply(&program, drift.into_iter().map(Step::PublishEvent).collect()).await?;
    let steps = update_status(&gathered, &validated, dispatched.as_ref(), now());
    if failure.is_none()
        && let Some(until) = throttled_until(&gathered, &steps, cache)
    {
        return Ok(Outcome::Throttled(until));
    }
    write_status(writer, &gathered.intent, steps, cache).await?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Outcome::Done),
    }
}

/// Plans. A plan that creates a revision is made again with the API server's revisions: the watched ones may be old.
async fn plan_on_fresh_revisions(
    reader: &Reader,
    gathered: &mut Gathered,
    validated: &Validated,
) -> Result<Plan, gather::Error> {
    let planned = plan(gathered, validated);
    if !planned.creates_revision() {
        return Ok(planned);
    }
    gathered.revisions = list_revisions(&reader.client, &gathered.intent.program).await?;
    Ok(plan(gathered, validated))
}

/// Returns the time at which the status may be written, if it may not be now. The last status before the finalizer is
/// removed does not wait.
fn throttled_until(gathered: &Gathered, steps: &[Step], cache: &ProgramCache) -> Option<Instant> {
    let is_last = steps.iter().any(|step| matches!(step, Step::RemoveFinalizer { .. }));
    let status = status_in(steps).filter(|_| !is_last)?;
    let earliest = cache.throttle.earliest(&gathered.intent.status, status, gathered.nodes.len());
    earliest.filter(|earliest| *earliest > Instant::now())
}

/// Runs the steps of `update_status`, and caches the status until the watch brings it back.
async fn write_status(
    writer: &Writer,
    intent: &Intent,
    steps: Vec<Step>,
    cache: &mut ProgramCache,
) -> Result<(), apply::Error> {
    let status = status_in(&steps).cloned();
    let version = writer.apply(&intent.program, steps).await?;
    if let Some(status) = status {
        cache.throttle.record(&intent.status, &status, Instant::now());
        let uid = intent.program.uid.clone();
        cache.written = version.map(|resource_version| WrittenStatus { uid, resource_version, status });
    }
    Ok(())
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
