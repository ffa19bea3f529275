//! `Health`: whether the process does its work, and the two pages that say so. IO: one listening socket.
//!
//! Ready: every watch has been listed, and the API server took the last write. A user's program that fails is not the
//! process's failure. Healthy: the loop has turned lately.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::{debug, info, warn};

/// A loop that has not turned for so long is stuck: it turns at least every half of this.
pub const STUCK: Duration = Duration::from_secs(60);

/// A refused write that was not tried again for so long was given up.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// How long to wait before another connection is accepted where one could not be: well below a probe's patience, 1 s.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether the process does its work.
#[derive(Clone, Debug)]
pub struct Health {
    start: Instant,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    listed: AtomicBool,
    /// When a write was refused, if none was taken since; 0 otherwise.
    refused_ms: AtomicU64,
    turned_ms: AtomicU64,
}

/// Why health cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("serving health on port {port}: {source}")]
pub struct Error {
    port: u16,
    source: io::Error,
}

impl Default for Health {
    fn default() -> Self {
        Self { start: Instant::now(), state: Arc::default() }
    }
}

impl Health {
    /// Every watch has been listed.
    pub fn listed(&self) {
        self.state.listed.store(true, Ordering::Relaxed);
    }

    /// The loop has turned.
    pub fn turned(&self) {
        self.state.turned_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// A write was tried. Conflicts and what was gone or invalid are about the object, not about this process.
    pub fn wrote<T>(&self, result: &Result<T, kube::Error>) {
        let refused = match result {
            Ok(_) => false,
            Err(kube::Error::Api(status)) => !matches!(status.code, 404 | 409 | 422),
            Err(_) => true,
        };
        let at = if refused { self.now_ms().max(1) } else { 0 };
        self.state.refused_ms.store(at, Ordering::Relaxed);
    }

    /// Why it is not ready, if so.
    pub fn ready(&self) -> Result<(), &'static str> {
        if !self.state.listed.load(Ordering::Relaxed) {
            return Err("not everything has been listed yet");
        }
        let refused_ms = self.state.refused_ms.load(Ordering::Relaxed);
        // What is refused is tried again within a minute, unless it is not wanted any more.
        if refused_ms > 0 && self.now_ms().saturating_sub(refused_ms) < FORGOTTEN.as_millis() as u64 {
            return Err("the API server did not take the last write; see the log");
        }
        self.healthy()
    }

    /// Why it is not healthy, if so. Waiting for the API server is healthy.
    pub fn healthy(&self) -> Result<(), &'static str> {
        let turned_ms = self.state.turned_ms.load(Ordering::Relaxed);
        let still = Duration::from_millis(self.now_ms().saturating_sub(turned_ms));
        if self.state.listed.load(Ordering::Relaxed) && still > STUCK { Err("the loop is stuck") } else { Ok(()) }
    }

    /// Serves `/healthz` and `/readyz`, on IPv6 and IPv4 where there is IPv6.
    pub async fn serve(self, port: u16) -> Result<Infallible, Error> {
        let failed = |source| Error { port, source };
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = match TcpListener::bind(any).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(failed)?,
        };
        info!(port, "serving /healthz and /readyz");
        Ok(self.answer_all(|| listener.accept()).await)
    }

    /// Answers whoever connects. One that cannot be let in, as where no descriptor is free, holds up nobody for long.
    async fn answer_all<A>(self, accept: impl Fn() -> A) -> Infallible
    where
        A: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
    {
        loop {
            let stream = match accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "accepting a health connection");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let health = self.clone();
            let service = service_fn(move |request| {
                let response = health.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            // A connection's failure is its own; one that says nothing for long is closed.
            tokio::spawn(async move {
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).keep_alive(false);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "health connection");
                }
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/healthz" => verdict(self.healthy()),
            "/readyz" => verdict(self.ready()),
            _ => (StatusCode::NOT_FOUND, "there are /healthz and /readyz"),
        };
        let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
        *response.status_mut() = status;
        response
    }
}

fn verdict(result: Result<(), &'static str>) -> (StatusCode, &'static str) {
    match result {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn refusal(code: u16) -> Result<(), kube::Error> {
        let status = kube::core::Status { code, ..kube::core::Status::failure("no", "No") };
        Err(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn ready_once_listed_and_while_writes_are_taken() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.listed();
        assert_eq!(health.ready(), Ok(()));
        health.wrote(&refusal(409));
        assert_eq!(health.ready(), Ok(()), "a conflict is about the object");
        health.wrote(&refusal(403));
        assert!(health.ready().is_err());
        assert_eq!(health.healthy(), Ok(()), "restarting would not help");
        health.wrote::<()>(&Ok(()));
        assert_eq!(health.ready(), Ok(()));
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_accepted_does_not_end_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let full = AtomicBool::new(true);
        let accept = || async {
            if full.swap(false, Ordering::Relaxed) {
                return Err(io::Error::other("no descriptor is free"));
            }
            listener.accept().await
        };
        let ask = async {
            client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            never = Health::default().answer_all(accept) => match never {},
            answer = ask => assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}"),
            () = sleep(Duration::from_secs(10)) => panic!("no answer"),
        }
    }
}
