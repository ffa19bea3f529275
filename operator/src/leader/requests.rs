//! [`Requests`]: reads and writes the Lease. IO: requests, each shorter than any of the election's times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use sockeye_client::is_transient;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::{
    config::MANAGER,
    health::Health,
    leader::{
        election::{Answer, Change, LEASE_DURATION, Request},
        lease::{self, LEASE},
    },
};

/// Bounds a request. Within the renew deadline there is time for three.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the Lease in the name of one process.
pub struct Requests {
    leases: Api<Lease>,
    namespace: String,
    identity: String,
    health: Health,
    is_failing: AtomicBool,
}

/// A request had no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
}

impl Requests {
    /// Creates the requests of `identity`. It records in `health` whether the API server rejects them.
    pub fn new(client: Client, namespace: String, identity: String, health: Health) -> Self {
        let leases = Api::namespaced(client, &namespace);
        Self { leases, namespace, identity, health, is_failing: AtomicBool::default() }
    }

    /// Sends a request, and waits for its answer for a bounded time.
    pub async fn ask(&self, request: Request) -> Answer {
        let answered = timeout(REQUEST_TIMEOUT, self.send(request)).await;
        let result = answered.map_err(|_| Error::Timeout).and_then(|result| Ok(result?));
        match result {
            Ok(answer) => {
                self.health.set_lease_rejected(false);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    info!("the Lease {LEASE} can be read or written again");
                }
                debug!(?answer, "asked for the Lease");
                answer
            }
            Err(error) => {
                if let Error::Client(error) = &error {
                    self.health.set_lease_rejected(!is_transient(error));
                }
                if self.is_failing.swap(true, Ordering::Relaxed) {
                    debug!(%error, "the Lease {LEASE} still cannot be read or written");
                } else {
                    warn!(%error, "the Lease {LEASE} cannot be read or written; retrying");
                }
                Answer::Failed
            }
        }
    }

    async fn send(&self, request: Request) -> kube::Result<Answer> {
        let (identity, now) = (self.identity.as_str(), Timestamp::now());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = match request {
            Request::Read => return Ok(Answer::Read(self.leases.get_opt(LEASE).await?.map(Arc::new))),
            Request::Create => {
                let lease = lease::created(&self.namespace, identity, LEASE_DURATION, now);
                self.leases.create(&params, &lease).await
            }
            Request::Replace(base, change) => {
                let lease = match change {
                    Change::Take => lease::taken(&base, identity, LEASE_DURATION, now),
                    Change::Renew => lease::renewed(&base, LEASE_DURATION, now),
                    Change::Release => lease::released(&base, now),
                };
                self.leases.replace(LEASE, &params, &lease).await
            }
        };
        match written {
            Ok(lease) => Ok(Answer::Written(Arc::new(lease))),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Answer::Conflict),
            Err(error) => Err(error),
        }
    }
}
