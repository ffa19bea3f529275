//! A connection: HTTP/2 without TLS, from its first byte on.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    activity::{Activity, Ending},
    listener::{Stream, TokioListener},
    service::Service,
};

/// Connections at a time. One more is closed at once.
const MAX_CONNECTIONS: usize = 32;
/// Requests at a time of one connection.
const MAX_REQUESTS: u32 = 8;
/// The most bytes of a request's headers, its path among them.
const MAX_HEADERS: u32 = 16 << 10;
/// The bytes of a request's body that are taken in, though nobody reads them.
const WINDOW: u32 = 16 << 10;
/// The bytes of an answer that are held for a client, beside the one piece.
const SEND_BUFFER: usize = 32 << 10;
/// A client is asked for a sign of life at this interval, and has as long for it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The interval at which connections are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves all connections.
pub(super) async fn accept_all(listener: &TokioListener, service: Arc<Service>) -> Infallible {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok(None) => {}
            Ok(Some(stream)) => match (Arc::clone(&free).try_acquire_owned(), stream) {
                (Ok(permit), Stream::Tcp(stream)) => drop(tokio::spawn(serve(stream, service.clone(), permit))),
                (Ok(permit), Stream::Unix(stream)) => drop(tokio::spawn(serve(stream, service.clone(), permit))),
                (Err(_), _) => tracing::debug!("the read API has as many connections as it takes"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the read API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection until it ends, or is to be ended.
async fn serve<I>(stream: I, service: Arc<Service>, _permit: OwnedSemaphorePermit)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new(Instant::now());
    let of_requests = activity.clone();
    let answer = service_fn(move |request| {
        let (service, progress) = (Arc::clone(&service), of_requests.begin());
        async move { Ok::<_, Infallible>(service.answer(&request, progress).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_REQUESTS as usize)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the read API failed");
                }
                return;
            }
            () = sleep(LOOK) => match activity.ending(Instant::now()) {
                None => {}
                Some(Ending::Idle) => {
                    connection.as_mut().graceful_shutdown();
                    drop(timeout(LOOK, connection).await);
                    return;
                }
                Some(Ending::Stuck) => {
                    tracing::debug!("a reader of the read API does not read: its connection is ended");
                    return;
                }
            }
        }
    }
}
