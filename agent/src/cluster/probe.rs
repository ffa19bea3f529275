//! Probes of the API server, for connectivity trials. Does IO: requests.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client, Config, Error};
use tokio::{sync::mpsc, time::timeout};

use crate::control::{
    connectivity::{LeaseReading, ProbeResult, Renewal},
    event::Event,
    run::Events,
};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The namespace of the nodes' Leases, which have the nodes' names.
const LEASES: &str = "kube-node-lease";
/// A kubelet's Lease lasts this long by default.
const DURATION: i32 = 40;

/// Probes the API server whenever it is asked to.
pub(super) struct Prober {
    client: Client,
    config: Option<Config>,
    node_name: String,
}

impl Prober {
    pub(super) const fn new(client: Client, config: Option<Config>, node_name: String) -> Self {
        Self { client, config, node_name }
    }

    /// Answers every request for a probe.
    pub(super) async fn run(self, mut requests: mpsc::UnboundedReceiver<()>, events: Events) -> Result<Infallible> {
        loop {
            requests.recv().await.context("nobody asks for probes any more")?;
            events.send(Event::ProbeAnswered(self.probe().await));
        }
    }

    /// Probes on a connection of its own: an open one may outlive what lets no new connection through. The API server
    /// is reached if it answers, whatever it says, so that its storage alone can't make it seem unreachable.
    pub(super) async fn probe(&self) -> ProbeResult {
        let client = match &self.config {
            Some(config) => sockeye_client::client(config.clone()),
            None => Ok(self.client.clone()),
        };
        let Ok(client) = client else { return ProbeResult::Unreached };
        let answer = timeout(TIMEOUT, client.apiserver_version()).await;
        if !matches!(answer, Ok(Ok(_) | Err(Error::Api(_)))) {
            return ProbeResult::Unreached;
        }
        let leases = Api::<Lease>::namespaced(client, LEASES);
        let lease = timeout(TIMEOUT, leases.get(&self.node_name)).await;
        ProbeResult::Reached(lease.map_or(LeaseReading::Unread, reading))
    }
}

/// Returns what an answer says of the kubelet.
fn reading(answer: Result<Lease, Error>) -> LeaseReading {
    let spec = match answer {
        Ok(lease) => lease.spec.unwrap_or_default(),
        Err(Error::Api(status)) if status.code == 404 => return LeaseReading::Absent,
        Err(Error::Api(status)) if status.code == 403 => return LeaseReading::Forbidden,
        Err(_) => return LeaseReading::Unread,
    };
    let LeaseSpec { renew_time, lease_duration_seconds, .. } = spec;
    let Some(time) = renew_time.map(|time| time.0) else { return LeaseReading::Absent };
    let duration = u64::try_from(lease_duration_seconds.unwrap_or(DURATION)).unwrap_or_default();
    LeaseReading::Renewed(Renewal { time, duration: Duration::from_secs(duration) })
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use k8s_openapi::jiff::Timestamp;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::util::service_fn;

    use super::*;

    /// Probes an API server that answers a request for the node's Lease so, or does not answer at all.
    async fn probe(version: u16, lease: Option<(u16, Value)>) -> ProbeResult {
        let service = service_fn(move |request: Request<Body>| {
            let lease = lease.clone();
            async move {
                let failure = |code: u16| {
                    (code, json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code}))
                };
                let answer = match request.uri().path() {
                    "/version" => Some(failure(version)),
                    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n" => {
                        lease.map(|(code, lease)| if lease.is_null() { failure(code) } else { (code, lease) })
                    }
                    _ => None,
                };
                let Some((code, answer)) = answer else { return std::future::pending().await };
                Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()))
            }
        });
        Prober::new(Client::new(service, "default"), None, "n".to_owned()).probe().await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_request_for_the_lease_tells_of_the_kubelet() {
        let time = "2026-11-29T12:00:00.250000Z";
        let renewed = |seconds: u64| {
            let time: Timestamp = time.parse().unwrap();
            LeaseReading::Renewed(Renewal { time, duration: Duration::from_secs(seconds) })
        };
        for (lease, reading) in [
            (Some((200, json!({"spec": {"renewTime": time, "leaseDurationSeconds": 20}}))), renewed(20)),
            (Some((200, json!({"spec": {"renewTime": time}}))), renewed(40)),
            (Some((200, json!({"metadata": {"name": "n"}}))), LeaseReading::Absent),
            (Some((200, json!({"spec": {"renewTime": "yesterday"}}))), LeaseReading::Unread),
            (Some((404, Value::Null)), LeaseReading::Absent),
            (Some((403, Value::Null)), LeaseReading::Forbidden),
            (Some((500, Value::Null)), LeaseReading::Unread),
            (None, LeaseReading::Unread),
        ] {
            assert_eq!(probe(503, lease.clone()).await, ProbeResult::Reached(reading), "{lease:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_not_reached() {
        let service = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Error>>());
        let prober = Prober::new(Client::new(service, "default"), None, "n".to_owned());
        assert_eq!(prober.probe().await, ProbeResult::Unreached);
    }
}
