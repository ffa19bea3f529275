//! [`Link`]: a process's connection to the API server, which delays and loses requests, or is cut; and a kube client
//! over it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request as HttpRequest, Response, header::CONTENT_TYPE};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tower::{BoxError, util::service_fn};

use super::{
    NAMESPACE, Shared,
    answer::{Request, answer},
    kind::Kind,
};
use crate::{fault::Fault, random::Random};

/// Requests of different processes come in different milliseconds, so that their order follows from the seed alone.
const SLOTS: u64 = 16;

/// The state of a connection.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// The time since when it is cut, if it is.
    pub cut_since: Option<Instant>,
    /// The watches that show nothing until these times.
    pub held: BTreeMap<Kind, Instant>,
    /// The number of times that all watches were broken, so that they list anew.
    pub breaks: u64,
    /// So many of a hundred requests get no answer.
    pub loss: u64,
}

/// A process's connection to the API server.
pub struct Link {
    shared: Shared,
    process: String,
    slot: u64,
    start: Instant,
    random: Mutex<Random>,
}

/// What becomes of a request.
struct Fate {
    lands_at: Instant,
    returns_after: Duration,
    is_request_lost: bool,
    is_answer_lost: bool,
}

impl Link {
    /// Returns a kube client for a process. `start` is the time at which the world began.
    pub fn client(shared: &Shared, process: &str, slot: u64, (start, random): (Instant, Random)) -> Client {
        let link = Self {
            shared: shared.clone(),
            process: process.to_owned(),
            slot: slot % SLOTS,
            start,
            random: Mutex::new(random),
        };
        let link = Arc::new(link);
        let service = service_fn(move |request: HttpRequest<Body>| {
            let link = Arc::clone(&link);
            async move { link.carry(request).await }
        });
        Client::new(service, NAMESPACE)
    }

    /// Carries a request. It may come to the API server although its sender no longer waits for the answer, or is dead.
    async fn carry(&self, request: HttpRequest<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await?;
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut request = Request {
            sender: self.process.clone(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            content_type: content_type.to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        };
        {
            let mut api = self.shared.lock();
            if api.fault == Some(Fault::WritesNameNoVersion) {
                request.forget_version();
            }
            api.check_sending(&request);
        }
        let Fate { lands_at, returns_after, is_request_lost, is_answer_lost } = self.fate();
        let (sender, answered) = oneshot::channel();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            sleep_until(lands_at).await;
            let mut api = shared.lock();
            let is_cut = api.links.get(&request.sender).is_some_and(|link| link.cut_since.is_some());
            if !is_cut && !is_request_lost {
                drop(sender.send(answer(&mut api, &request)));
            }
        });
        let outcome = answered.await;
        sleep(returns_after).await;
        match outcome {
            Ok((code, body)) if !is_answer_lost && !self.is_cut() => {
                Ok(Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))?)
            }
            _ => {
                sleep(Duration::from_secs(1)).await;
                Err("the connection is lost".into())
            }
        }
    }

    fn fate(&self) -> Fate {
        let loss = self.shared.lock().links.get(&self.process).map_or(0, |link| link.loss);
        let mut random = self.random.lock().unwrap();
        let is_slow = random.percent(5);
        let delay = if is_slow { random.millis(100, 1_000) } else { random.millis(1, 20) };
        let (is_request_lost, is_answer_lost) = (random.percent(loss), random.percent(loss));
        let returns_after = random.millis(1, 20);
        let at = (Instant::now() + delay).duration_since(self.start).as_millis() as u64;
        // The next millisecond of this process.
        let at = at - at % SLOTS + self.slot + if at % SLOTS > self.slot { SLOTS } else { 0 };
        Fate { lands_at: self.start + Duration::from_millis(at), returns_after, is_request_lost, is_answer_lost }
    }

    fn is_cut(&self) -> bool {
        self.shared.lock().links.get(&self.process).is_some_and(|link| link.cut_since.is_some())
    }
}
