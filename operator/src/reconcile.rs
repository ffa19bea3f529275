//! `reconcile`: one look at one BpfProgram, and the rhythm of it all:
//! gather (reads) -> validate -> plan (decisions) -> apply (writes) -> summarize -> apply.

use k8s_openapi::jiff::Timestamp;
use kube::Client;

use crate::{
    apply, gather,
    memory::{Memory, Written},
    plan, queue,
    step::Step,
    stores::Stores,
    summarize, validate,
};

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
}

impl Error {
    /// The step, for logs and metrics.
    pub const fn step(&self) -> &'static str {
        match self {
            Self::Gather(_) => "gather",
            Self::Validate(_) => "validate",
            Self::Apply(_) => "apply",
        }
    }
}

/// Takes a look at the BpfProgram of that name.
pub async fn reconcile(context: &Context, name: &str, memory: &mut Memory) -> Result<queue::Ended, Error> {
    let Context { client, namespace, stores, writer } = context;
    let Some(object) = stores.program(name) else { return Ok(queue::Ended::Gone) };
    let mut gathered = gather::gather(client, namespace, stores, &object, memory).await?;
    drop(object);
    let validated = validate::validate(&mut gathered, memory).await?;
    let mut planned = plan::plan(&gathered, &validated);
    if planned.dispatches() {
        gathered.revisions = gather::revisions(client, &gathered.intent.program).await?;
        planned = plan::plan(&gathered, &validated);
    }
    let plan::Plan { steps, dispatched } = planned;
    let program = gathered.intent.program.clone();
    writer.apply(&program, steps).await?;

    let steps = summarize::summarize(&gathered, &validated, dispatched.as_ref(), Timestamp::now());
    let status = steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => Some((**status).clone()),
        _ => None,
    });
    let version = writer.apply(&program, steps).await?;
    if let (Some(status), Some(resource_version)) = (status, version) {
        memory.written = Some(Written { uid: program.uid, resource_version, status });
    }
    Ok(queue::Ended::Settled)
}
