//! The server of `/metrics`. IO: one listening socket.
//!
//! Connections are few and short: a scraper comes about twice a minute. Those beyond the bound wait, and none lasts
//! longer than [`CONNECTION_TIMEOUT`], whatever its client does.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    request::Parts,
};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    access::{Access, Refused},
    certificate::{self, Certificate},
    exposition::Format,
    families::Scrape,
};

/// The longest time of a connection: a scraper's own limit is usually ten seconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// So many connections are served at once.
const MAX_CONNECTIONS: usize = 16;
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The answer of whoever knows what is the case now.
pub type Asked = Pin<Box<dyn Future<Output = Scrape> + Send>>;

/// The sources of the metrics.
pub struct Source {
    /// What was counted.
    pub counters: Registry,
    /// Asks for the rest, at each scrape.
    pub ask: Box<dyn Fn() -> Asked + Send + Sync>,
}

/// How the server is protected.
pub enum Protection {
    /// Not at all: over plain HTTP, to everybody who gets there.
    None,
    /// Over TLS, to those whose token allows it.
    Secure(Box<Secure>),
}

/// The certificate, and who decides.
pub struct Secure {
    certificate: Certificate,
    access: Access,
}

/// The server's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The port; 0 for none.
    pub port: u16,
    /// Plain HTTP, and no token.
    pub plain: bool,
    /// The folder of a mounted Secret with tls.crt and tls.key; absent for a certificate of the server's own making.
    pub certificate: Option<PathBuf>,
}

/// The arguments of a process that serves metrics.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricsArgs {
    /// The port of /metrics; 0 for none.
    #[arg(long, default_value_t = 0)]
    metrics_port: u16,
    /// Serve /metrics over plain HTTP, to whoever gets there. Otherwise it is served over TLS, to those whose bearer
    /// token allows `get` on the non-resource URL /metrics.
    #[arg(long)]
    metrics_plain: bool,
    /// A folder with tls.crt and tls.key for /metrics. Absent means a self-signed certificate, made at the start.
    #[arg(long, value_name = "FOLDER", conflicts_with = "metrics_plain")]
    metrics_certificate: Option<PathBuf>,
}

impl From<MetricsArgs> for Settings {
    fn from(MetricsArgs { metrics_port, metrics_plain, metrics_certificate }: MetricsArgs) -> Self {
        Self { port: metrics_port, plain: metrics_plain, certificate: metrics_certificate }
    }
}

/// The metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port can't be opened.
    #[error("serving /metrics on port {port}: {source}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

impl Settings {
    /// Returns the protection that they ask for. The client asks the API server about tokens.
    ///
    /// # Errors
    /// Fails where the certificate can't be read or made.
    pub fn protection(&self, client: Client) -> Result<Protection, Error> {
        if self.plain {
            return Ok(Protection::None);
        }
        let certificate = match &self.certificate {
            Some(folder) => Certificate::mounted(folder)?,
            None => Certificate::self_signed()?,
        };
        Ok(Protection::Secure(Box::new(Secure { certificate, access: Access::new(client) })))
    }
}

/// Serves `/metrics` until the process ends, on IPv6 and IPv4 where there is IPv6, otherwise on IPv4.
///
/// # Errors
/// Fails where the port can't be opened.
pub async fn serve(port: u16, protection: Protection, source: Source) -> Result<Infallible, Error> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(|source| Error::Port { port, source })?
        }
    };
    info!(port, secure = matches!(protection, Protection::Secure(_)), "serving /metrics");
    Ok(serve_on(listener, protection, source).await)
}

/// Serves `/metrics` on a listener.
pub async fn serve_on(listener: TcpListener, protection: Protection, source: Source) -> Infallible {
    let (server, room) = (Arc::new(Server { protection, source }), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if timeout(CONNECTION_TIMEOUT, server.connection(stream)).await.is_err() {
                        debug!("a scraper's connection timed out");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a scraper's connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Server {
    protection: Protection,
    source: Source,
}

impl Server {
    async fn connection(&self, stream: TcpStream) {
        let Protection::Secure(secure) = &self.protection else { return self.requests(stream).await };
        match secure.certificate.acceptor().accept(stream).await {
            Ok(stream) => self.requests(stream).await,
            Err(error) => debug!(%error, "a scraper's connection is no TLS"),
        }
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| async move {
            let (request, _) = request.into_parts();
            Ok::<_, Infallible>(self.answer(&request).await)
        });
        let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            debug!(%error, "a scraper's connection failed");
        }
    }

    async fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        // Who may read nothing is not told what there is, either.
        if let Protection::Secure(secure) = &self.protection
            && let Err(refused) = secure.access.check(text(&request.headers, AUTHORIZATION)).await
        {
            return refusal(refused);
        }
        if request.uri.path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "the path is /metrics\n");
        }
        if request.method != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "the method is GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let format = Format::accepted(text(&request.headers, ACCEPT).unwrap_or_default());
        let scrape = (self.source.ask)().await;
        match format.write(&self.source.counters, &scrape) {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                let content_type = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n"),
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn refusal(refused: Refused) -> Response<Full<Bytes>> {
    match refused {
        Refused::Unauthenticated => {
            let mut response = plain(StatusCode::UNAUTHORIZED, "a bearer token is needed\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Refused::Forbidden => plain(
            StatusCode::FORBIDDEN,
            "get on the non-resource URL /metrics is not allowed: bind the ClusterRole sockeye-metrics-reader\n",
        ),
        Refused::Unavailable => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the API server could not be asked about the token\n")
        }
    }
}
