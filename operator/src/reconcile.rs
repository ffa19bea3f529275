//! `reconcile`: one look at one BpfProgram, and the rhythm of it all:
//! gather (reads) -> validate -> plan (decisions) -> apply (writes) -> summarize -> apply.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use sockeye_client::is_transient;
use sockeye_crds::{BpfProgramStatus, Reason};
use sockeye_ebpf::Refusal;

use crate::{
    apply,
    gather::{self, Gathered, Intent},
    memory::{Memory, Written},
    plan::{self, Plan},
    queue::Ended,
    step::Step,
    stores::Stores,
    summarize,
    validate::{self, Judgement},
};

/// A look that takes longer hangs in some call, and is broken off.
const LATE: Duration = Duration::from_secs(60);

/// What a look is taken with.
#[derive(Clone)]
pub struct Context {
    /// Reads what the watches do not bring.
    pub client: Client,
    /// The namespace sockeye is installed in.
    pub namespace: String,
    /// What the watches brought.
    pub stores: Stores,
    /// Does the writes.
    pub writer: apply::Writer,
}

/// Which step of a look failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading.
    #[error("gather: {0}")]
    Gather(#[from] gather::Error),
    /// Checking.
    #[error("validate: {0}")]
    Validate(#[from] validate::Error),
    /// Writing.
    #[error("apply: {0}")]
    Apply(#[from] apply::Error),
    /// All of it together.
    #[error("broken off after {LATE:?}")]
    Late,
}

impl Error {
    /// The step, for logs and metrics.
    pub const fn step(&self) -> &'static str {
        match self {
            Self::Gather(_) => "gather",
            Self::Validate(_) => "validate",
            Self::Apply(_) => "apply",
            Self::Late => "late",
        }
    }

    /// Whether it passes by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Gather(gather::Error::Bytecode { source, .. } | gather::Error::Revisions { source, .. }) => {
                is_transient(source)
            }
            Self::Apply(error) => error.is_transient(),
            Self::Validate(_) => false,
            Self::Late => true,
        }
    }
}

/// Takes a look at the BpfProgram of that name.
pub async fn reconcile(context: &Context, name: &str, memory: &mut Memory) -> Result<Ended, Error> {
    match tokio::time::timeout(LATE, look(context, name, memory)).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::Late),
    }
}

async fn look(context: &Context, name: &str, memory: &mut Memory) -> Result<Ended, Error> {
    let Context { client, namespace, stores, writer } = context;
    let Some(object) = stores.program(name) else { return Ok(Ended::Gone) };
    let mut gathered = gather::gather(client, namespace, stores, object, memory).await?;
    let mut validated = validate::validate(&mut gathered, memory).await?;
    let mut planned = plan::plan(&gathered, &validated);
    if planned.dispatches() {
        gathered.revisions = gather::revisions(client, &gathered.intent.program).await?;
        planned = plan::plan(&gathered, &validated);
    }
    let Plan { steps, mut dispatched } = planned;
    let program = gathered.intent.program.clone();
    let applied = writer.apply(&program, steps).await.map_err(|error| (error.refusal(), error));
    let failure = match applied {
        Ok(_) => None,
        Err((None, error)) => return Err(error.into()),
        Err((Some(message), error)) => {
            // Worth another try, and worth telling the one who waits for it.
            validated.judgement = Judgement::Refused(Refusal { reason: Reason::DispatchFailed, message });
            dispatched = gathered.revisions.newest().cloned();
            Some(error)
        }
    };
    let drifted = memory.drifted.news(&program, &gathered.cluster.views(), now());
    writer.apply(&program, drifted.into_iter().map(Step::Announce).collect()).await?;
    let steps = summarize::summarize(&gathered, &validated, dispatched.as_ref(), now());
    if failure.is_none()
        && let Some(until) = too_early(&gathered, &steps, memory)
    {
        return Ok(Ended::Untold(until));
    }
    write(writer, &gathered.intent, steps, memory).await?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Ended::Settled),
    }
}

/// When the status may be told, if not now. One that is the last does not wait.
fn too_early(gathered: &Gathered, steps: &[Step], memory: &Memory) -> Option<Instant> {
    let last = steps.iter().any(|step| matches!(step, Step::RemoveFinalizer { .. }));
    let status = written(steps).filter(|_| !last)?;
    memory.told.due(&gathered.intent.status, status, gathered.cluster.len()).filter(|due| *due > Instant::now())
}

/// Writes what the summary says, and remembers the status, which the watch brings back only later.
async fn write(
    writer: &apply::Writer,
    intent: &Intent,
    steps: Vec<Step>,
    memory: &mut Memory,
) -> Result<(), apply::Error> {
    let status = written(&steps).cloned();
    let version = writer.apply(&intent.program, steps).await?;
    if let Some(status) = status {
        memory.told.tell(&intent.status, &status, Instant::now());
        let uid = intent.program.uid.clone();
        memory.written = version.map(|resource_version| Written { uid, resource_version, status });
    }
    Ok(())
}

fn written(steps: &[Step]) -> Option<&BpfProgramStatus> {
    steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => Some(&**status),
        _ => None,
    })
}

/// The time in whole seconds, as Kubernetes writes it.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
