//! [`client()`]: a client of an API server that sends each request once, and honours `Retry-After`. IO: requests.
//! [`urgent_client`] is one that waits for nothing.
//!
//! The caller decides when to send a request again: by then there may be something newer to send.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use sockeye_metrics::ClientMetrics;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

use crate::backoff::with_jitter;

/// Bounds the time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds the time between two reads of a pending answer.
///
/// The API server ends requests after a minute. On a watch it sends a bookmark every minute, and may skip one.
pub const READ_TIMEOUT: Duration = Duration::from_secs(130);
/// Bounds the `Retry-After` that the client honours.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Builds a client of the API server in `config`.
pub fn client(config: Config) -> kube::Result<Client> {
    counting_client(config, None)
}

/// Builds a client like [`client()`], whose answers are counted.
pub fn counting_client(mut config: Config, metrics: Option<ClientMetrics>) -> kube::Result<Client> {
    // kube would retry up to 15 times, the first time after 5 ms and the last time minutes later.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&RetryAfterLayer { metrics, ..RetryAfterLayer::default() }).build())
}

/// Builds a client for requests that can't wait: it ignores `Retry-After`. The caller bounds the time of a request.
///
/// It has connections of its own, so that no other request of the process holds up its requests.
pub fn urgent_client(mut config: Config, connect_timeout: Duration) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(connect_timeout);
    Client::try_from(config)
}

/// Returns whether the same request may succeed later. Then the API server failed, or another writer was quicker.
pub fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
        _ => true,
    }
}

/// Delays requests until the time that the API server's last `Retry-After` names.
#[derive(Clone, Debug, Default)]
struct RetryAfterLayer {
    not_before: Arc<Mutex<Option<Instant>>>,
    /// Counts the answers.
    metrics: Option<ClientMetrics>,
}

/// The service that [`RetryAfterLayer`] adds.
struct RetryAfterService<S> {
    inner: S,
    layer: RetryAfterLayer,
}

impl<S> Layer<S> for RetryAfterLayer {
    type Service = RetryAfterService<S>;

    fn layer(&self, inner: S) -> RetryAfterService<S> {
        RetryAfterService { inner, layer: self.clone() }
    }
}

impl RetryAfterLayer {
    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an answer's `Retry-After`. Jitter is added, because all clients that failed at once got the same one.
    fn observe<B>(&self, answer: &Response<B>) {
        let is_busy = matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let header = answer.headers().get(RETRY_AFTER).filter(|_| is_busy);
        if let Some(seconds) = header.and_then(|value| value.to_str().ok()?.parse().ok()) {
            let delay = Duration::from_secs(seconds).min(MAX_RETRY_AFTER);
            *self.not_before() = Some(Instant::now() + delay + with_jitter(delay / 2));
        }
    }
}

impl<S, B> Service<Request<Body>> for RetryAfterService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = verb(&request);
        // Nothing is sent before this future is polled.
        let answer = self.inner.call(request);
        let layer = self.layer.clone();
        Box::pin(async move {
            let not_before = *layer.not_before();
            if let Some(instant) = not_before {
                sleep_until(instant).await;
            }
            let answer = answer.await;
            if let Some(metrics) = &layer.metrics {
                metrics.answered(verb, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            }
            let answer = answer?;
            layer.observe(&answer);
            Ok(answer)
        })
    }
}

/// Returns what a request asks for, nearly in the API server's words: a list is a `get`.
fn verb<B>(request: &Request<B>) -> &'static str {
    let parameter = |wanted: &str| request.uri().query().is_some_and(|query| query.split('&').any(|one| one == wanted));
    match *request.method() {
        Method::GET if parameter("watch=true") => "watch",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use sockeye_metrics::OperatorMetrics;

    use super::*;

    /// Returns a function that sends a request and returns the next of the `answers`, by its code.
    fn requests_answered(
        answers: Vec<(u16, Option<&'static str>)>,
    ) -> impl FnMut() -> Pin<Box<dyn Future<Output = u16>>> {
        let mut answers = answers.into_iter();
        let service = tower::util::service_fn(move |_: Request<Body>| {
            let (code, retry_after) = answers.next().expect("an answer");
            let mut answer = Response::builder().status(code);
            if let Some(seconds) = retry_after {
                answer = answer.header(RETRY_AFTER, seconds);
            }
            async move { Ok::<_, Infallible>(answer.body(()).expect("a response")) }
        });
        let mut service = RetryAfterLayer::default().layer(service);
        move || {
            let answer = service.call(Request::new(Body::empty()));
            Box::pin(async move { answer.await.map_or(0, |answer| answer.status().as_u16()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_retry_after_up_to_a_bound() {
        let mut send =
            requests_answered(vec![(429, Some("4")), (200, None), (200, None), (503, Some("1000")), (200, None)]);
        let start = Instant::now();
        let mut answer = async || (send().await, start.elapsed().as_secs());
        assert_eq!(answer().await, (429, 0));
        let (code, first) = answer().await;
        assert!(code == 200 && (4..=6).contains(&first), "after {first} s");
        assert_eq!(answer().await, (200, first), "once");
        answer().await;
        let (code, second) = answer().await;
        assert!(code == 200 && (30..=45).contains(&(second - first)), "bounded: after {} s", second - first);
    }

    #[tokio::test]
    async fn answers_are_counted_by_verb_and_code() {
        let metrics = OperatorMetrics::default().client;
        let layer = RetryAfterLayer { metrics: Some(metrics.clone()), ..RetryAfterLayer::default() };
        let service = tower::util::service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::builder().status(404).body(()).expect("a response"))
        });
        let mut service = layer.layer(service);
        for uri in ["/api/v1/nodes?limit=50", "/api/v1/nodes?allowWatchBookmarks=true&watch=true", "/api/v1/nodes/n"] {
            let request = Request::get(uri).body(Body::empty()).expect("a request");
            service.call(request).await.expect("an answer");
        }
        assert_eq!((metrics.answers("get", 404), metrics.answers("watch", 404)), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_without_a_valid_retry_after_delay_nothing() {
        let mut send = requests_answered(vec![(429, None), (500, Some("9")), (503, Some("soon")), (200, None)]);
        let start = Instant::now();
        for _ in 0..4 {
            send().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_after_the_read_timeout() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = client(Config::new(url.parse().unwrap())).unwrap();
        let start = Instant::now();
        assert!(client.apiserver_version().await.is_err());
        assert!(start.elapsed() >= READ_TIMEOUT && start.elapsed() < READ_TIMEOUT * 2, "{:?}", start.elapsed());
    }
}
