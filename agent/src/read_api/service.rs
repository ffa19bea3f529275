//! `Service`: a request, its route, and the bounds on all requests together.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;
use sockeye_read_api::{Failure, FailureReason, JSON, JSON_LINES, Route, TEXT};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    activity::Progress,
    answers::{json, off_thread, unexpected},
    body::{Body, Content},
    entries, failures,
    inquirer::Inquirer,
    node,
    objects::{KnownObjects, Objects},
    records::RecordStreams,
    references,
};
use crate::{
    control::inspection::{Inquiry, Inspection, MapName},
    kernel::statistics::RunProbe,
};

/// Requests at a time, of all connections; streams of records do not count.
const MAX_REQUESTS: usize = 16;
/// Streams of records at a time.
const MAX_STREAMS: usize = 32;
/// The longest time until an answer begins.
const ANSWER: Duration = Duration::from_secs(20);

/// Answers requests.
pub(super) struct Service {
    node_name: String,
    inquirer: Inquirer,
    objects: Arc<KnownObjects>,
    records: RecordStreams,
    run_probe: Arc<RunProbe>,
    requests: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// An answer: its media type, and its content.
type Answer = (&'static str, Content);

impl Service {
    pub(super) fn new(node_name: String, inquirer: Inquirer, objects: Arc<dyn Objects>) -> Self {
        let [requests, readers] = [MAX_REQUESTS, MAX_STREAMS].map(|most| Arc::new(Semaphore::new(most)));
        let objects = Arc::new(KnownObjects::new(objects));
        let records = RecordStreams::new(inquirer.clone(), Arc::clone(&objects));
        Self { node_name, inquirer, objects, records, run_probe: Arc::default(), requests, readers }
    }

    /// Answers a request.
    pub(super) async fn answer<B>(self: Arc<Self>, request: &Request<B>, progress: Progress) -> Response<Body> {
        let (status, (media, content), permit) = match self.permitted(request).await {
            Ok((answer, permit)) => (StatusCode::OK, answer, Some(permit)),
            Err(failure) => {
                let status = StatusCode::from_u16(failure.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, (JSON, Content::Whole(json(&failure).unwrap_or_default())), None)
            }
        };
        let mut response = Response::new(Body::new(content, progress, permit));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn permitted<B>(self: Arc<Self>, request: &Request<B>) -> Result<(Answer, OwnedSemaphorePermit), Failure> {
        if request.method() != Method::GET {
            let message = format!("{} is no method of this API: everything is asked by GET", request.method());
            return Err(failures::failure(FailureReason::BadRequest, message));
        }
        let route = Route::parse(request.uri().path(), request.uri().query())?;
        let (free, most) = match route {
            Route::Records { .. } => (&self.readers, MAX_STREAMS),
            _ => (&self.requests, MAX_REQUESTS),
        };
        let permit = Arc::clone(free).try_acquire_owned().map_err(|_| {
            let message = format!("{most} readers are there already, as many as the agent serves: ask again later");
            failures::failure(FailureReason::TooManyReaders, message)
        })?;
        let answer = timeout(ANSWER, self.route(route)).await.map_err(|_| {
            failures::failure(FailureReason::TimedOut, format!("it took longer than {} s", ANSWER.as_secs()))
        })?;
        Ok((answer?, permit))
    }

    async fn route(self: Arc<Self>, route: Route) -> Result<Answer, Failure> {
        match route {
            Route::Node => {
                let parts = node::node(&self.inquirer, &self.node_name, Arc::clone(&self.run_probe)).await?;
                Ok((JSON, Content::Parts(parts)))
            }
            Route::Program { program } => whole(node::program(&self.inquirer, program).await?),
            Route::VerifierLog { program } => self.verifier_log(program).await,
            Route::Entries { program, map, query } => {
                let name = MapName { program, map };
                let inspected = match self.inquirer.ask(Inquiry::Map(name.clone())).await? {
                    Inspection::Map(map) => *map,
                    other => return Err(no_map(&other, &name)),
                };
                let object = self.objects.bytes(inspected.object.clone()).await;
                blocking(move || entries::entries(&inspected, object, &query)).await
            }
            Route::References { program, map } => {
                let name = MapName { program, map };
                let inspected = match self.inquirer.ask(Inquiry::References(name.clone())).await? {
                    Inspection::References(references) => *references,
                    other => return Err(no_map(&other, &name)),
                };
                blocking(move || Ok(references::references(inspected))).await
            }
            Route::Records { program, map } => {
                let parts = self.records.subscribe(MapName { program, map }).await?;
                Ok((JSON_LINES, Content::Parts(parts)))
            }
        }
    }

    async fn verifier_log(&self, program: String) -> Result<Answer, Failure> {
        match self.inquirer.ask(Inquiry::VerifierLog(program.clone())).await? {
            Inspection::VerifierLog(log) => Ok((TEXT, Content::Whole(Bytes::from_owner(LogBytes(log))))),
            Inspection::Missing(missing) => Err(failures::missing(missing, &program, None)),
            other => Err(unexpected(&other)),
        }
    }
}

/// A log as bytes, without a copy.
struct LogBytes(Arc<str>);

impl AsRef<[u8]> for LogBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn no_map(inspection: &Inspection, name: &MapName) -> Failure {
    match inspection {
        Inspection::Missing(missing) => failures::missing(*missing, &name.program, Some(&name.map)),
        other => unexpected(other),
    }
}

fn whole(bytes: Bytes) -> Result<Answer, Failure> {
    Ok((JSON, Content::Whole(bytes)))
}

async fn blocking<T: Serialize + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<Answer, Failure> {
    whole(off_thread(move || work().and_then(|value| json(&value))).await??)
}
