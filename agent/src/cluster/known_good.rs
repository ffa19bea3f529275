//! Known good revisions, read by name: retired ones are not among those that are watched. Does IO: requests.
//!
//! They are tried again with the process's [`Backoff`] while the API server is away.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Context as _, Result};
use kube::Api;
use sockeye_client::{Backoff, is_transient};
use sockeye_crds::BpfRevision;
use tokio::sync::mpsc;

use super::pods::Requirement;
use crate::model::{architecture::on_this_architecture, pods::RequiredInputs};

/// A request for a revision.
pub(super) struct Request {
    /// The BpfProgram.
    pub program: String,
    /// The revision's name.
    pub name: String,
}

/// Reads every revision that is asked for, has watched what its targets require, and calls `fetched` with the answer.
pub(super) async fn fetch(
    api: Api<BpfRevision>,
    backoff: Arc<Backoff>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    requirement: Requirement,
    fetched: impl Fn(Request, Result<Arc<BpfRevision>, String>) + Send + 'static,
) -> Result<Infallible> {
    loop {
        let request = requests.recv().await.context("nobody asks for revisions any more")?;
        let mut failing = None;
        let answer = loop {
            match api.get(&request.name).await {
                Ok(revision) => break Ok(Arc::new(on_this_architecture(revision))),
                Err(error) if is_transient(&error) => {
                    tracing::debug!(request.name, %error, "trying again");
                    failing = Some(backoff.wait().await);
                }
                Err(error) => break Err(format!("BpfRevision {}: {error}", request.name)),
            }
        };
        if let Some(retry) = failing {
            backoff.answered(retry);
        }
        if let Ok(revision) = &answer {
            requirement.require(RequiredInputs::of(revision.spec.template.targets()));
        }
        fetched(request, answer);
    }
}
