//! A registry that does whatever a test wants: it reads requests, and writes bytes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// A request that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The method, a space, and the path with its query.
    pub line: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `Host`.
    pub host: String,
    /// The header `Accept`.
    pub accept: String,
}

/// An answer, after which the connection ends.
pub enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then the same piece again and again, with a pause before each.
    Endless { head: Vec<u8>, piece: Vec<u8>, pause: Duration },
    /// These bytes, then nothing, while the connection stays open.
    Stall(Vec<u8>),
    /// These bytes, then a reset.
    Reset(Vec<u8>),
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on loopback, which ends when it is dropped.
pub struct Server {
    /// Its address and port.
    pub authority: String,
    /// How many bytes it could send.
    pub sent: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server that speaks plain HTTP.
    pub async fn plain(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, handler).await
    }

    /// Starts a server that speaks TLS.
    pub async fn tls(config: ServerConfig, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn start(tls: Option<TlsAcceptor>, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (sent, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (of_task, handler): (_, Arc<Handler>) = ((sent.clone(), seen.clone()), Arc::new(handler));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler, (sent, seen)) = (tls.clone(), handler.clone(), of_task.clone());
                tokio::spawn(async move {
                    let reset = linger(&stream);
                    let stream: Pin<Box<dyn Both>> = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::pin(stream),
                            Err(_) => return,
                        },
                        None => Box::pin(stream),
                    };
                    converse(stream, reset, &*handler, &sent, &seen).await;
                });
            }
        });
        Self { authority, sent, seen, task }
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the lines of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// Returns how many bytes it could send.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

trait Both: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Both for S {}

/// Returns what makes the end of a connection a reset.
fn linger(stream: &TcpStream) -> impl FnOnce() + Send + use<> {
    let socket = stream.as_fd_owned();
    move || {
        if let Some(socket) = socket {
            let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
    }
}

trait AsFdOwned {
    fn as_fd_owned(&self) -> Option<std::os::fd::OwnedFd>;
}

impl AsFdOwned for TcpStream {
    fn as_fd_owned(&self) -> Option<std::os::fd::OwnedFd> {
        std::os::fd::AsFd::as_fd(self).try_clone_to_owned().ok()
    }
}

async fn converse(
    mut stream: Pin<Box<dyn Both>>,
    reset: impl FnOnce(),
    handler: &Handler,
    sent: &AtomicU64,
    seen: &Mutex<Vec<Seen>>,
) {
    let Some(request) = read(&mut stream).await else { return };
    seen.lock().unwrap().push(request.clone());
    let mut write = async |bytes: &[u8]| {
        let written = stream.write_all(bytes).await.and(stream.flush().await).is_ok();
        sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        written
    };
    match handler(&request) {
        Reply::Bytes(bytes) => {
            write(&bytes).await;
        }
        Reply::Endless { head, piece, pause } => {
            let mut goes_on = write(&head).await;
            while goes_on {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                goes_on = write(&piece).await;
            }
        }
        Reply::Stall(bytes) => {
            write(&bytes).await;
            sleep(Duration::from_secs(600)).await;
        }
        Reply::Reset(bytes) => {
            write(&bytes).await;
            sleep(Duration::from_millis(20)).await;
            reset();
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
        // What begins as TLS does, a server of plain HTTP answers at once.
        if bytes == [0x16] {
            return Some(Seen::default());
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    Some(Seen {
        line: text.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned(),
        authorization: header("authorization"),
        host: header("host")?,
        accept: header("accept").unwrap_or_default(),
    })
}

/// Returns an answer of success.
pub fn ok(media_type: &str, body: &[u8]) -> Reply {
    answer(200, &[("Content-Type", media_type)], body)
}

/// Returns an answer whose header says how long its body is.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut bytes = head(status, headers, Some(body.len() as u64));
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// Returns the answer to a HEAD.
pub fn of_head(digest: &str) -> Reply {
    Reply::Bytes(head(200, &[("Docker-Content-Digest", digest)], Some(0)))
}

/// Returns an answer that sends on.
pub fn redirect(location: &str) -> Reply {
    answer(307, &[("Location", location)], b"")
}

/// Returns an answer that asks who is there.
pub fn challenge(with: &str) -> Reply {
    answer(401, &[("WWW-Authenticate", with)], br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#)
}

/// Returns the beginning of an answer; without a length, its body goes on to the end of the connection.
pub fn head(status: u16, headers: &[(&str, &str)], length: Option<u64>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Runs work and returns what it gave and how long it took.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = std::time::Instant::now();
    (work.await, start.elapsed())
}
