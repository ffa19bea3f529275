//! [`Gate`]: a client that writes only while this process leads. IO: passes requests on.
//!
//! It holds where the election itself is late: after a pause of the whole process, the writers may run first.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use tokio::time::Instant;
use tower::Service;

/// A write was not sent, because this process does not lead.
#[derive(Debug, thiserror::Error)]
#[error("this process does not lead any more")]
pub struct NotLeading;

/// The time until which this process may write. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    start: Instant,
    /// In microseconds since the start; 0 is closed.
    until: Arc<AtomicU64>,
}

impl Default for Gate {
    /// Creates a closed gate.
    fn default() -> Self {
        Self { start: Instant::now(), until: Arc::default() }
    }
}

impl Gate {
    /// Lets writes pass until this time.
    pub fn open_until(&self, until: Instant) {
        let until = until.saturating_duration_since(self.start);
        self.until.store(micros(until), Ordering::Release);
    }

    /// Lets no write pass.
    pub fn close(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Returns whether writes pass.
    pub fn is_open(&self) -> bool {
        micros(self.start.elapsed()) < self.until.load(Ordering::Acquire)
    }

    /// Returns a client whose writes pass this gate. Its reads always pass.
    pub fn guard(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        ClientBuilder::new(Guarded { client, gate: self.clone() }, namespace).build()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

struct Guarded {
    client: Client,
    gate: Gate,
}

impl Service<Request<Body>> for Guarded {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, gate) = (self.client.clone(), self.gate.clone());
        Box::pin(async move {
            let is_write = request.method() != Method::GET;
            let mut sent = pin!(client.send(request));
            // Nothing is sent before the first poll; a request that waits, as for `Retry-After`, goes with a later one.
            poll_fn(|context| match is_write && !gate.is_open() {
                true => Poll::Ready(Err(NotLeading.into())),
                false => sent.as_mut().poll(context).map_err(Into::into),
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{DeleteParams, PostParams},
    };
    use tokio::time::sleep;
    use tower::util::service_fn;

    use super::*;

    /// Returns an API that answers everything with an empty ConfigMap, behind a gate.
    fn config_maps(gate: &Gate) -> Api<ConfigMap> {
        let service = service_fn(|_: Request<Body>| async { Response::builder().body(Body::from(b"{}".to_vec())) });
        Api::namespaced(gate.guard(Client::new(service, "n")), "n")
    }

    #[tokio::test(start_paused = true)]
    async fn writes_pass_only_while_this_process_leads() {
        let gate = Gate::default();
        let api = config_maps(&gate);
        let writes = async || {
            let created = api.create(&PostParams::default(), &ConfigMap::default()).await;
            let deleted = api.delete("c", &DeleteParams::default()).await;
            assert!(api.get("c").await.is_ok(), "reads always pass");
            assert_eq!(created.is_ok(), deleted.is_ok());
            created.map(drop)
        };
        let refused = writes().await.unwrap_err();
        assert!(refused.to_string().contains("does not lead"), "{refused}");
        tokio::time::advance(Duration::from_secs(100)).await;
        gate.open_until(Instant::now() + Duration::from_secs(7));
        assert!(writes().await.is_ok());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert!(writes().await.is_err(), "the time is over, though nobody closed the gate");
        gate.open_until(Instant::now() + Duration::from_secs(7));
        assert!(writes().await.is_ok());
        gate.close();
        assert!(writes().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waited_for_too_long_is_not_sent() {
        let (gate, is_sent) = (Gate::default(), Arc::new(AtomicBool::new(false)));
        let service = service_fn({
            let is_sent = Arc::clone(&is_sent);
            move |_: Request<Body>| {
                let is_sent = Arc::clone(&is_sent);
                async move {
                    sleep(Duration::from_secs(10)).await;
                    is_sent.store(true, Ordering::Relaxed);
                    Response::builder().body(Body::from(b"{}".to_vec()))
                }
            }
        });
        let api = Api::<ConfigMap>::namespaced(gate.guard(Client::new(service, "n")), "n");
        gate.open_until(Instant::now() + Duration::from_secs(7));
        assert!(api.create(&PostParams::default(), &ConfigMap::default()).await.is_err());
        assert!(!is_sent.load(Ordering::Relaxed));
        gate.open_until(Instant::now() + Duration::from_secs(11));
        assert!(api.create(&PostParams::default(), &ConfigMap::default()).await.is_ok());
    }
}
