//! `Proxy`: a way to the API server that can be told to misbehave, and counts what comes along it. IO: plain HTTP on loopback
//! towards clients. Their requests go on with their own tokens, so that the API server judges them as ever.
//!
//! What a client sees of a connection that the API server cuts or refuses it sees here too: the connection ends, unanswered.

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

use crate::traffic::{Asked, Traffic};

/// What is wrong with the way to the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Connections end as soon as they begin, as those to a port where nobody listens.
    Refused,
    /// Requests are taken, and nothing comes back.
    Silent,
    /// Writes are taken, and what comes back is lost.
    Lost,
    /// Some requests are answered so, and not by the API server.
    Answered(Which, StatusCode, Option<u32>),
    /// Watches are told in their streams that what they begin from is too old.
    Expired,
    /// Watches end so long after they began, as if all had been said.
    Ended(Duration),
    /// Watches are cut so long after they began, in the middle of a line.
    Cut(Duration),
    /// Lists are cut in the middle.
    Halved,
    /// Every answer takes so much longer.
    Slow(Duration),
}

/// Which requests a fault is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Which {
    /// All.
    All,
    /// What changes something.
    Writes,
    /// Lists and watches.
    Views,
    /// Watches alone.
    Watches,
    /// Everything about one resource.
    Resource(&'static str),
}

impl Which {
    fn is(self, asked: &Asked) -> bool {
        match self {
            Self::All => true,
            Self::Writes => asked.is_write(),
            Self::Views => matches!(asked.verb, "list" | "watch"),
            Self::Watches => asked.verb == "watch",
            Self::Resource(resource) => asked.resource == resource,
        }
    }
}

/// A way to the API server.
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Fault>,
    way: Arc<Way>,
}

struct Way {
    upstream: Client,
    traffic: Mutex<Traffic>,
    faults: watch::Receiver<Fault>,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Proxy {
    /// A way to the API server that KUBECONFIG names; it ends with the runtime.
    pub async fn start() -> Result<Self> {
        let mut config = Config::infer().await?;
        // Who asks is the client's to say, and whether to ask again too.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, receiver) = watch::channel(Fault::None);
        let way = Way { upstream: Client::try_from(config)?, traffic: Mutex::default(), faults: receiver };
        let way = Arc::new(way);
        tokio::spawn(accept(listener, Arc::clone(&way)));
        Ok(Self { address, faults, way })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on that is wrong, and nothing else. Every connection ends, so that what is under way meets it too.
    pub fn set(&self, fault: Fault) {
        self.faults.send_replace(fault);
    }

    /// What has come along it.
    pub fn traffic(&self) -> Traffic {
        self.way.traffic().clone()
    }
}

impl Way {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&way)));
    }
}

/// A connection lasts until its client ends it, or until something else is wrong.
async fn connection(stream: TcpStream, way: Arc<Way>) {
    let mut faults = way.faults.clone();
    let fault = faults.borrow_and_update().clone();
    if fault == Fault::Refused {
        way.traffic().note(Asked::connection());
        return;
    }
    let service = service_fn(|request| answer(request, &way, &fault));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = served => {}
        _ = faults.changed() => {}
    }
}

/// An error is a connection that ends unanswered.
async fn answer(request: Request<Incoming>, way: &Way, fault: &Fault) -> io::Result<Answer> {
    let asked = Asked::read(&request);
    way.traffic().note(asked.clone());
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Slow(longer) => sleep(*longer).await,
        Fault::Answered(which, code, retry_after) if which.is(&asked) => return Ok(refusal(*code, *retry_after)),
        Fault::Expired if asked.verb == "watch" => return Ok(expired()),
        _ => {}
    }
    let (head, body) = forward(request, way).await?.into_parts();
    if *fault == Fault::Lost && asked.is_write() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if *fault == Fault::Halved && asked.verb == "list" {
        return Ok(Response::from_parts(head, half(body).await?));
    }
    let frames = body.into_data_stream().map(|data| data.map(Frame::data).map_err(io::Error::other));
    let body = match fault {
        Fault::Ended(after) if asked.verb == "watch" => {
            StreamBody::new(frames.take_until(sleep(*after))).boxed_unsync()
        }
        Fault::Cut(after) if asked.verb == "watch" => StreamBody::new(cut(frames, *after)).boxed_unsync(),
        _ => StreamBody::new(frames).boxed_unsync(),
    };
    Ok(Response::from_parts(head, body))
}

/// Half of what there is, then no end.
async fn half(body: Body) -> io::Result<UnsyncBoxBody<Bytes, io::Error>> {
    let all = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let half = Ok(Frame::data(all.slice(..all.len() / 2)));
    Ok(StreamBody::new(stream::iter([half, Err(io::Error::from(io::ErrorKind::ConnectionReset))])).boxed_unsync())
}

/// So long, then half a line, then no end.
fn cut<S>(frames: S, after: Duration) -> impl Stream<Item = io::Result<Frame<Bytes>>>
where
    S: Stream<Item = io::Result<Frame<Bytes>>>,
{
    let half = Ok(Frame::data(Bytes::from_static(br#"{"type":"MODIFIED","obj"#)));
    let end = [half, Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    frames.take_until(sleep(after)).chain(stream::iter(end))
}

async fn forward(request: Request<Incoming>, way: &Way) -> io::Result<Response<Body>> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(HOST);
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request::from_parts(head, Body::from(body));
    way.upstream.send(request).await.map_err(io::Error::other)
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

/// What the API server says in a stream that begins too far back.
fn expired() -> Answer {
    let event = json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")});
    let mut answer = Response::new(whole(event));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("injected: {code}"),
        "reason": reason, "code": code.as_u16(),
    })
}

fn whole(value: Value) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(format!("{value}\n"))).map_err(|never: Infallible| match never {}).boxed_unsync()
}
