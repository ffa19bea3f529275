//! A candidate and its writers, against an API server with one Lease, under the test's clock.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, Request as HttpRequest, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::util::service_fn;

use super::*;
use crate::health::Health;

const SECOND: Duration = Duration::from_secs(1);

/// An API server with one Lease.
#[derive(Default)]
struct Server {
    lease: Mutex<Value>,
    /// True if it answers nothing.
    is_silent: AtomicBool,
}

impl Server {
    fn lease(&self) -> Value {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn holder(&self) -> String {
        self.lease()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    async fn answer(&self, request: HttpRequest<Body>) -> Response<Body> {
        if self.is_silent.load(Ordering::Relaxed) || request.uri().query().unwrap_or_default().contains("watch=true") {
            return pending().await;
        }
        let (head, body) = request.into_parts();
        let sent = serde_json::from_slice::<Value>(&body.collect_bytes().await.unwrap()).unwrap_or_default();
        let mut lease = self.lease.lock().unwrap();
        let version = lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let (code, answer) = match head.method {
            Method::GET if !head.uri.path().ends_with(LEASE) => {
                (200, json!({"metadata": {"resourceVersion": "1"}, "items": []}))
            }
            Method::GET if version.is_none() => (404, json!({"kind": "Status", "reason": "NotFound", "code": 404})),
            Method::GET => (200, lease.clone()),
            Method::POST if version.is_some() => {
                (409, json!({"kind": "Status", "reason": "AlreadyExists", "code": 409}))
            }
            Method::PUT if sent["metadata"]["resourceVersion"].as_str() != version.as_deref() => {
                (409, json!({"kind": "Status", "reason": "Conflict", "code": 409}))
            }
            _ => {
                *lease = sent;
                let next = version.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
                lease["metadata"]["resourceVersion"] = json!(next.to_string());
                (200, lease.clone())
            }
        };
        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }
}

fn candidate(server: &Arc<Server>) -> Candidate {
    let server = Arc::clone(server);
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let client = Client::new(service, "n");
    let requests = Requests::new(client.clone(), "n".to_owned(), "me".to_owned(), Health::default());
    Candidate { identity: "me".to_owned(), requests, leases: Api::namespaced(client, "n"), gate: Gate::default() }
}

/// Writes while this process leads, and then takes a time to stop.
async fn write(mut phase: Receiver<Phase>, stops_in: Duration) -> Result<(), Lost> {
    phase.wait_for(|phase| *phase == Phase::Stop).await.unwrap();
    sleep(stops_in).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gets_no_answer_ends_in_time() {
    let server = Arc::<Server>::default();
    let candidate = candidate(&server);
    let (gate, (phases, phase)) = (candidate.gate.clone(), channel(Phase::StandBy));
    let mut writers = phase.clone();
    let (run, start) = (candidate.run(pending(), phases, write(phase, SECOND)), Instant::now());
    let watch = async {
        writers.wait_for(|phase| *phase == Phase::Lead).await.unwrap();
        assert!(gate.is_open() && server.holder() == "me");
        sleep(SECOND * 20).await;
        assert!(gate.is_open(), "it renews");
        server.is_silent.store(true, Ordering::Relaxed);
        // The last renewal may be two seconds old.
        sleep(RENEW_DEADLINE - SECOND * 5 / 2).await;
        assert!(gate.is_open());
        pending::<()>().await;
    };
    let ended = select! {
        ended = run => ended,
        () = watch => unreachable!(),
    };
    assert!(matches!(ended, Err(Lost::Late)), "{ended:?}");
    assert!(!gate.is_open() && server.holder() == "me");
    let after = start.elapsed() - SECOND * 20;
    assert!(after >= RENEW_DEADLINE - SECOND * 2 && after <= RENEW_DEADLINE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_released_once_the_writers_have_stopped_or_were_dropped() {
    for (stops_in, after) in [(SECOND / 2, SECOND / 2), (SECOND * 100, STOP_TIMEOUT)] {
        let server = Arc::<Server>::default();
        let candidate = candidate(&server);
        let (gate, (phases, phase)) = (candidate.gate.clone(), channel(Phase::StandBy));
        let start = Instant::now();
        let run = candidate.run(sleep(SECOND * 5), phases, write(phase, stops_in));
        let watch = async {
            sleep(SECOND * 5 + after - Duration::from_millis(10)).await;
            assert!(gate.is_open() && server.holder() == "me", "the writers have not stopped yet");
            pending::<()>().await;
        };
        let ended = select! {
            ended = run => ended,
            () = watch => unreachable!(),
        };
        assert!(ended.is_ok() && !gate.is_open());
        assert_eq!((server.holder().as_str(), start.elapsed().as_millis()), ("", (SECOND * 5 + after).as_millis()));
    }
}

#[tokio::test(start_paused = true)]
async fn another_holder_is_waited_for_and_a_candidate_stops_at_once() {
    let server = Arc::<Server>::default();
    *server.lease.lock().unwrap() =
        json!({"metadata": {"name": LEASE, "resourceVersion": "5"}, "spec": {"holderIdentity": "you"}});
    let (phases, phase) = channel(Phase::StandBy);
    let (writers, start) = (phase.clone(), Instant::now());
    let ended = candidate(&server).run(sleep(LEASE_DURATION - SECOND), phases, write(phase, SECOND)).await;
    assert!(ended.is_ok() && *writers.borrow() == Phase::StandBy && server.holder() == "you");
    assert_eq!(start.elapsed(), LEASE_DURATION - SECOND);

    let (phases, phase) = channel(Phase::StandBy);
    let mut writers = phase.clone();
    let run = candidate(&server).run(pending(), phases, write(phase, SECOND));
    let leads =
        async { timeout(LEASE_DURATION + SECOND, writers.wait_for(|phase| *phase == Phase::Lead)).await.is_ok() };
    let has_led = select! {
        _ = run => false,
        leads = leads => leads,
    };
    assert!(has_led && server.holder() == "me");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn failed_writers_end_the_process() {
    let server = Arc::<Server>::default();
    let candidate = candidate(&server);
    let gate = candidate.gate.clone();
    let fail = async {
        sleep(SECOND * 3).await;
        Err(Lost::Released)
    };
    let ended = candidate.run(pending(), channel(Phase::StandBy).0, fail).await;
    assert!(matches!(ended, Err(Lost::Released)) && !gate.is_open());
}
