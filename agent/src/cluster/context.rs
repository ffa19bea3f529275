//! What the tasks around a controller share.

use std::{convert::Infallible, sync::Arc};

use anyhow::Result;
use sockeye_client::{Backoff, Readiness};
use sockeye_metrics::ClientMetrics;
use tokio::{sync::Notify, task::JoinSet};

/// The tasks of a process: each runs as long as the process does.
pub(super) type Tasks = JoinSet<Result<Infallible>>;

/// What every watch is started with.
#[derive(Clone, Default)]
pub(super) struct WatchContext {
    /// Notified whenever something changed that the node's assignment depends on.
    pub changed: Arc<Notify>,
    /// Shared by all requests of the process.
    pub backoff: Arc<Backoff>,
    /// Not ready while a watch is rejected.
    pub readiness: Readiness,
    /// Counts streams of watch events, and failures.
    pub metrics: Option<ClientMetrics>,
}
