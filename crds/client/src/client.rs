//! `client`: a client of an API server that asks once, and keeps to `Retry-After`. What is worth asking again, and when, is
//! for those to say who ask: by then there may be something newer to say. IO: requests.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

use crate::patience::shortened;

/// A connection is there so soon, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which something is waited for, and nothing comes for so long, is dead. An API server ends requests that
/// take a minute, and sends a bookmark every minute on every watch, of which a busy one may leave out one.
pub const SILENCE: Duration = Duration::from_secs(130);
/// An API server that wants to be asked again only later than that is asked nevertheless.
const LATEST: Duration = Duration::from_secs(30);

/// A client as `config` says, with this crate's manners.
pub fn client(mut config: Config) -> kube::Result<Client> {
    // It would ask up to 15 times more, the first of them after 5 ms, the last minutes later.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&KeepTo::default()).build())
}

/// Whether a failure passes by itself: it is about the API server, or somebody else was quicker, and not about what was asked.
pub fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
        _ => true,
    }
}

/// Holds requests back until the API server wants to be asked again.
#[derive(Clone, Debug, Default)]
struct KeepTo(Arc<Mutex<Option<Instant>>>);

/// A service that keeps to it.
struct Kept<S> {
    inner: S,
    to: KeepTo,
}

impl<S> Layer<S> for KeepTo {
    type Service = Kept<S>;

    fn layer(&self, inner: S) -> Kept<S> {
        Kept { inner, to: self.clone() }
    }
}

impl KeepTo {
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an answer says of it. All who were refused in the same instant were told the same, so chance adds to it.
    fn take<B>(&self, answer: &Response<B>) {
        let busy = matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let said = answer.headers().get(RETRY_AFTER).filter(|_| busy);
        if let Some(seconds) = said.and_then(|said| said.to_str().ok()?.parse().ok()) {
            let after = Duration::from_secs(seconds).min(LATEST);
            *self.until() = Some(Instant::now() + after + shortened(after / 2));
        }
    }
}

impl<S, B> Service<Request<Body>> for Kept<S>
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
        // Nothing is sent until this is polled.
        let answer = self.inner.call(request);
        let to = self.to.clone();
        Box::pin(async move {
            let until = *to.until();
            if let Some(until) = until {
                sleep_until(until).await;
            }
            let answer = answer.await?;
            to.take(&answer);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What a client sees whose every request is answered so, one after the other.
    fn answering(answers: Vec<(u16, Option<&'static str>)>) -> impl FnMut() -> Pin<Box<dyn Future<Output = u16>>> {
        let mut answers = answers.into_iter();
        let service = tower::util::service_fn(move |_: Request<Body>| {
            let (code, after) = answers.next().expect("an answer");
            let mut answer = Response::builder().status(code);
            if let Some(after) = after {
                answer = answer.header(RETRY_AFTER, after);
            }
            async move { Ok::<_, Infallible>(answer.body(()).expect("a response")) }
        });
        let mut kept = KeepTo::default().layer(service);
        move || {
            let answer = kept.call(Request::new(Body::empty()));
            Box::pin(async move { answer.await.map_or(0, |answer| answer.status().as_u16()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_to() {
        let mut ask = answering(vec![(429, Some("4")), (200, None), (200, None), (503, Some("1000")), (200, None)]);
        let start = Instant::now();
        let mut asked = async || (ask().await, start.elapsed().as_secs());
        assert_eq!(asked().await, (429, 0));
        let (code, after) = asked().await;
        assert!(code == 200 && (4..=6).contains(&after), "after {after} s");
        assert_eq!(asked().await, (200, after), "once");
        asked().await;
        let (code, later) = asked().await;
        assert!(code == 200 && (30..=45).contains(&(later - after)), "bounded: after {} s", later - after);
    }

    #[tokio::test(start_paused = true)]
    async fn other_answers_hold_nothing_back() {
        let mut ask = answering(vec![(429, None), (500, Some("9")), (503, Some("soon")), (200, None)]);
        let start = Instant::now();
        for _ in 0..4 {
            ask().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = client(Config::new(url.parse().unwrap())).unwrap();
        let start = Instant::now();
        assert!(client.apiserver_version().await.is_err());
        assert!(start.elapsed() >= SILENCE && start.elapsed() < SILENCE * 2, "{:?}", start.elapsed());
    }
}
