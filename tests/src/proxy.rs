//! `Proxy`: stands before an API server, injects faults, records requests. Clients reach it by plain HTTP on loopback.
//! Requests keep the clients' own tokens, so that the API server authorizes them as ever.
//!
//! A connection that the API server cuts or refuses ends unanswered here too.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, Config, client::Body, config::AuthInfo};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use crate::traffic::{ApiRequest, Traffic};

/// A fault between clients and the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fault {
    /// Requests reach the API server, and answers come back.
    #[default]
    None,
    /// Connections end as soon as they begin, like those to a closed port.
    Refused,
    /// Requests are accepted and never answered.
    Silent,
    /// Writes reach the API server, and their answers are lost.
    Lost,
    /// Some requests get this status and `Retry-After`, and do not reach the API server.
    Answered(Which, StatusCode, Option<u32>),
    /// Watches get 410 Gone as an event in their stream.
    Expired,
    /// Watches end after this time, as if the API server had ended them.
    Ended(Duration),
    /// Watches are cut after this time, in the middle of a line.
    Cut(Duration),
    /// Lists are cut in the middle.
    Halved,
    /// Every answer takes this much longer.
    Slow(Duration),
}

/// The requests that a fault is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Which {
    /// All requests.
    All,
    /// Requests that change an object.
    Writes,
    /// Lists and watches.
    Views,
    /// Watches alone.
    Watches,
    /// All requests for one resource.
    Resource(&'static str),
}

impl Which {
    fn includes(self, request: &ApiRequest) -> bool {
        match self {
            Self::All => true,
            Self::Writes => request.is_write(),
            Self::Views => matches!(request.verb, "list" | "watch"),
            Self::Watches => request.verb == "watch",
            Self::Resource(resource) => request.resource == resource,
        }
    }
}

/// A proxy before an API server.
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Fault>,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Client,
    traffic: Mutex<Traffic>,
    faults: watch::Receiver<Fault>,
    /// The writes that are held; none while writes pass.
    held: Mutex<Option<Vec<HeldRequest>>>,
}

/// A request that came whole and was not passed on.
struct HeldRequest {
    record: ApiRequest,
    head: Parts,
    body: Bytes,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Proxy {
    /// Starts a proxy before the API server that KUBECONFIG names; it ends with the runtime.
    pub async fn start() -> Result<Self> {
        let mut config = Config::infer().await?;
        // Clients send their own tokens and retry themselves.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, receiver) = watch::channel(Fault::None);
        let (traffic, held) = (Mutex::default(), Mutex::default());
        let shared = Shared { upstream: Client::try_from(config)?, traffic, faults: receiver, held };
        let shared = Arc::new(shared);
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, faults, shared })
    }

    /// Returns the address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces the fault. Every connection ends, so that requests under shared meet the new fault too.
    pub fn set(&self, fault: Fault) {
        self.faults.send_replace(fault);
    }

    /// Holds every write from now on: it gets no answer. Everything else passes, and connections last.
    pub fn hold_writes(&self) {
        self.shared.held().get_or_insert_default();
    }

    /// Passes the held writes on, however late, and returns them with the API server's answers. Writes pass again.
    pub async fn release_writes(&self) -> Result<Vec<(ApiRequest, StatusCode)>> {
        let held = self.shared.held().take().unwrap_or_default();
        let mut answers = Vec::new();
        for HeldRequest { record, head, body } in held {
            answers.push((record, forward(head, body, &self.shared).await?.status()));
        }
        Ok(answers)
    }

    /// Returns the requests so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic().clone()
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Option<Vec<HeldRequest>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a write while writes are held, and returns every other request.
    fn hold(&self, request: HeldRequest) -> Option<HeldRequest> {
        match &mut *self.held() {
            Some(held) if request.record.is_write() => {
                held.push(request);
                None
            }
            _ => Some(request),
        }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

/// Serves a connection until its client ends it or the fault changes.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut faults = shared.faults.clone();
    let fault = faults.borrow_and_update().clone();
    if fault == Fault::Refused {
        shared.traffic().record(ApiRequest::connection());
        return;
    }
    let service = service_fn(|request| answer(request, &shared, &fault));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = served => {}
        _ = faults.changed() => {}
    }
}

/// Answers a request; an error ends the connection unanswered.
async fn answer(request: Request<Incoming>, shared: &Shared, fault: &Fault) -> io::Result<Answer> {
    let record = ApiRequest::read(&request);
    shared.traffic().record(record.clone());
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Slow(longer) => sleep(*longer).await,
        Fault::Answered(which, code, retry_after) if which.includes(&record) => {
            return Ok(refusal(*code, *retry_after));
        }
        Fault::Expired if record.verb == "watch" => return Ok(expired()),
        _ => {}
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = HeldRequest { record: record.clone(), head, body };
    let Some(HeldRequest { head, body, .. }) = shared.hold(request) else { return std::future::pending().await };
    let (head, body) = forward(head, body, shared).await?.into_parts();
    if *fault == Fault::Lost && record.is_write() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if *fault == Fault::Halved && record.verb == "list" {
        return Ok(Response::from_parts(head, half(body).await?));
    }
    let frames = body.into_data_stream().map(|data| data.map(Frame::data).map_err(io::Error::other));
    let body = match fault {
        Fault::Ended(after) if record.verb == "watch" => {
            StreamBody::new(frames.take_until(sleep(*after))).boxed_unsync()
        }
        Fault::Cut(after) if record.verb == "watch" => StreamBody::new(cut(frames, *after)).boxed_unsync(),
        _ => StreamBody::new(frames).boxed_unsync(),
    };
    Ok(Response::from_parts(head, body))
}

/// Returns the first half of a body, then a reset of the connection.
async fn half(body: Body) -> io::Result<UnsyncBoxBody<Bytes, io::Error>> {
    let all = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let half = Ok(Frame::data(all.slice(..all.len() / 2)));
    Ok(StreamBody::new(stream::iter([half, Err(io::Error::from(io::ErrorKind::ConnectionReset))])).boxed_unsync())
}

/// Passes frames on for a time, then half a line, then a reset of the connection.
fn cut<S>(frames: S, after: Duration) -> impl Stream<Item = io::Result<Frame<Bytes>>>
where
    S: Stream<Item = io::Result<Frame<Bytes>>>,
{
    let half = Ok(Frame::data(Bytes::from_static(br#"{"type":"MODIFIED","obj"#)));
    let end = [half, Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    frames.take_until(sleep(after)).chain(stream::iter(end))
}

async fn forward(mut head: Parts, body: Bytes, shared: &Shared) -> io::Result<Response<Body>> {
    head.headers.remove(HOST);
    let request = Request::from_parts(head, Body::from(body));
    shared.upstream.send(request).await.map_err(io::Error::other)
}

fn refusal(code: StatusCode, retry_after: Option<u32>) -> Answer {
    let mut answer = Response::new(whole(status(code, "injected")));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// Answers a watch whose resourceVersion is too old, as the API server does: 410 within the stream.
fn expired() -> Answer {
    let event = json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")});
    let mut answer = Response::new(whole(event));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": format!("injected: {code}"), "code": code.as_u16(),
    })
}

fn whole(value: Value) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(format!("{value}\n"))).map_err(|never: Infallible| match never {}).boxed_unsync()
}
