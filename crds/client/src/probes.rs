//! The server of `/healthz` and `/readyz`, which the kubelet probes. IO: one listening socket.
//!
//! Each binary decides what healthy and ready mean: see [`Health`]. In both a user's program that fails is not the
//! process's failure, and neither is an API server that is away.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// Bounds the time that one connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted: well below the kubelet's timeout of 1 s.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers probes. An `Err` says why the probe fails.
pub trait Health: Clone + Send + Sync + 'static {
    /// Answers `/healthz`: a restart helps where it fails.
    fn healthy(&self) -> Result<(), &'static str>;

    /// Answers `/readyz`.
    fn ready(&self) -> Result<(), &'static str>;
}

/// A process that is healthy while it answers, and ready once [`Readiness::set`] says so and no watch is rejected.
///
/// Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<ReadinessState>);

#[derive(Debug, Default)]
struct ReadinessState {
    is_ready: AtomicBool,
    rejected_watches: AtomicUsize,
}

impl Readiness {
    /// Sets whether the process is ready.
    pub fn set(&self, is_ready: bool) {
        self.0.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// Counts a watch that the API server starts to reject, or stops rejecting.
    pub fn watch_rejected(&self, is_rejected: bool) {
        let count = &self.0.rejected_watches;
        let _ = if is_rejected { count.fetch_add(1, Ordering::Relaxed) } else { count.fetch_sub(1, Ordering::Relaxed) };
    }
}

impl Health for Readiness {
    fn healthy(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn ready(&self) -> Result<(), &'static str> {
        // Nobody needs to wait for a process that is not allowed to see what it should do.
        if self.0.rejected_watches.load(Ordering::Relaxed) > 0 {
            return Err("the API server rejects a watch; see the log");
        }
        if self.0.is_ready.load(Ordering::Relaxed) { Ok(()) } else { Err("not ready yet, or a write was rejected") }
    }
}

/// The probes' port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("serving /healthz and /readyz on port {port}: {source}")]
pub struct Error {
    port: u16,
    source: io::Error,
}

/// Serves `/healthz` and `/readyz` until the process ends, on IPv6 and IPv4 where there is IPv6, otherwise on IPv4.
pub async fn serve(port: u16, health: impl Health) -> Result<Infallible, Error> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(|source| Error { port, source })?,
    };
    info!(port, "serving /healthz and /readyz");
    Ok(accept_all(health, || listener.accept()).await)
}

/// Answers each connection in a task of its own. A failed accept, as where no descriptor is free, delays the next one
/// only by [`ACCEPT_PAUSE`].
async fn accept_all<A>(health: impl Health, accept: impl Fn() -> A) -> Infallible
where
    A: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    loop {
        match accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, health.clone()))),
            Err(error) => {
                warn!(%error, "cannot accept a probe's connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, health: impl Health) {
    let service = service_fn(|request| {
        let response = answer(&health, &request);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a probe's connection failed"),
        Err(_) => debug!("a probe's connection timed out"),
    }
}

fn answer<B>(health: &impl Health, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/healthz" => status_and_text(health.healthy()),
        "/readyz" => status_and_text(health.ready()),
        _ => (StatusCode::NOT_FOUND, "the paths are /healthz and /readyz"),
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response
}

fn status_and_text(result: Result<(), &'static str>) -> (StatusCode, &'static str) {
    match result {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_process_is_ready_once_set_and_while_no_watch_is_rejected() {
        let readiness = Readiness::default();
        assert!(readiness.ready().is_err());
        readiness.set(true);
        assert_eq!(readiness.ready(), Ok(()));
        readiness.watch_rejected(true);
        readiness.watch_rejected(true);
        readiness.watch_rejected(false);
        assert!(readiness.ready().is_err());
        assert_eq!(readiness.healthy(), Ok(()), "a restart would not help");
        readiness.watch_rejected(false);
        assert_eq!(readiness.ready(), Ok(()));
        readiness.set(false);
        assert!(readiness.ready().is_err());
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_get_a_status_and_a_reason() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, readiness) = (listener.local_addr().unwrap(), Readiness::default());
        let probe = async {
            assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
            let answer = get(address, "/readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("not ready yet"), "{answer}");
            readiness.set(true);
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
            assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 404 "));
        };
        tokio::select! {
            never = accept_all(readiness.clone(), || listener.accept()) => match never {},
            () = probe => {}
            () = sleep(Duration::from_secs(10)) => panic!("no answer"),
        }
    }

    #[tokio::test]
    async fn a_silent_connection_does_not_delay_a_probe_and_is_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = async {
            let mut silent = TcpStream::connect(address).await.unwrap();
            assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        };
        tokio::select! {
            never = accept_all(Readiness::default(), || listener.accept()) => match never {},
            () = probe => {}
            () = sleep(CONNECTION_TIMEOUT * 4) => panic!("the connection stays open"),
        }
    }

    #[tokio::test]
    async fn a_failed_accept_does_not_end_the_server() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let is_full = AtomicBool::new(true);
        let accept = || async {
            if is_full.swap(false, Ordering::Relaxed) {
                return Err(io::Error::other("no descriptor is free"));
            }
            listener.accept().await
        };
        tokio::select! {
            never = accept_all(Readiness::default(), accept) => match never {},
            answer = get(listener.local_addr().unwrap(), "/healthz") => {
                assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            }
            () = sleep(Duration::from_secs(10)) => panic!("no answer"),
        }
    }
}
