//! How answers are made: as JSON, and on threads for what takes time.

use bytes::Bytes;
use serde::Serialize;
use sockeye_read_api::Failure;
use tokio::task::spawn_blocking;

use super::failures;
use crate::control::inspection::Inspection;

/// Returns a value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(value).map(Bytes::from).map_err(failures::defect)
}

/// Does on another thread what takes time.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(failures::defect)
}

/// Reports a defect: the controller answered something else than was asked.
pub(super) fn unexpected(_: &Inspection) -> Failure {
    failures::defect("the controller answered another question")
}
