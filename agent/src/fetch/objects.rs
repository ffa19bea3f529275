//! `Objects`: bytes that were ordered from the Kubernetes API, by digest. A task of its own fetches them, so that no pass waits
//! long for an API server that is away, busy or silent. Does IO: requests.
//!
//! Guarantees:
//! - they are fetched one after the other, and asked for again, while they are wanted, as the process's [`Backoff`] says;
//! - what the API server refuses is asked for again only after a while;
//! - what is here is kept until it is taken, or until nobody has asked for it for a while.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use sockeye_client::{Backoff, backoff::with_jitter, is_transient};
use sockeye_crds::names::{OBJECT_KEY, object_config_map};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::agent::Missing;

/// A pass waits so long.
const WAIT: Duration = Duration::from_secs(2);
/// Once it has waited in vain it does not wait for others for so long.
const IN_VAIN: Duration = Duration::from_secs(1);
/// What is refused is asked for again after so long, or a tenth of it.
const REFUSED: Duration = Duration::from_secs(20);
/// What nobody asks for any more is forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What was ordered.
#[derive(Debug, Default)]
pub struct Objects {
    orders: Mutex<Orders>,
    placed: Notify,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Orders {
    by_digest: BTreeMap<String, Order>,
    in_vain: Option<Instant>,
}

#[derive(Debug)]
struct Order {
    since: Instant,
    asked: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Here(Vec<u8>),
    Refused { words: String, until: Instant },
}

impl Objects {
    /// The bytes of that digest, or why there are none yet.
    pub async fn get(&self, digest: &str) -> Result<Vec<u8>, Missing> {
        let in_vain = self.orders().in_vain.is_some_and(|at| at.elapsed() < IN_VAIN);
        let until = Instant::now() + if in_vain { Duration::ZERO } else { WAIT };
        loop {
            let settled = self.settled.notified();
            if let Some(outcome) = self.look(digest) {
                return outcome;
            }
            if timeout_at(until, settled).await.is_err() {
                self.orders().in_vain = Some(Instant::now());
                return Err(Missing::Awaited);
            }
        }
    }

    /// Fetches what is ordered, for ever.
    pub async fn fetch(&self, api: Api<ConfigMap>, backoff: &Backoff) -> Infallible {
        let mut failing = None;
        loop {
            let Some(digest) = self.next() else {
                self.placed.notified().await;
                continue;
            };
            let name = object_config_map(&digest);
            let state = match api.get(&name).await {
                Ok(map) => match map.binary_data.and_then(|mut data| data.remove(OBJECT_KEY)) {
                    Some(bytes) => State::Here(bytes.0),
                    None => refused(format!("ConfigMap {name} has no binaryData.{OBJECT_KEY}")),
                },
                Err(error) if is_transient(&error) => {
                    tracing::debug!(name, %error, "trying again");
                    failing = Some(backoff.wait().await);
                    // What fails again and again keeps no other from its turn.
                    self.orders().by_digest.entry(digest).and_modify(|order| order.since = Instant::now());
                    continue;
                }
                Err(error) => refused(format!("ConfigMap {name}: {error}")),
            };
            failing.take().into_iter().for_each(|retry| backoff.answered(retry));
            self.orders().by_digest.entry(digest).and_modify(|order| order.state = state);
            self.settled.notify_waiters();
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of an order, which is placed where there is none.
    fn look(&self, digest: &str) -> Option<Result<Vec<u8>, Missing>> {
        let mut orders = self.orders();
        let now = Instant::now();
        if let Some(Order { state: State::Refused { words, until }, asked, .. }) = orders.by_digest.get_mut(digest)
            && *until > now
        {
            *asked = now;
            return Some(Err(Missing::Refused(words.clone())));
        }
        match orders.by_digest.remove(digest) {
            Some(Order { state: State::Here(bytes), .. }) => return Some(Ok(bytes)),
            Some(Order { since, state: State::Open, .. }) => {
                orders.by_digest.insert(digest.to_owned(), Order { since, asked: now, state: State::Open });
            }
            Some(Order { state: State::Refused { .. }, .. }) | None => {
                orders.by_digest.insert(digest.to_owned(), Order { since: now, asked: now, state: State::Open });
                self.placed.notify_one();
            }
        }
        None
    }

    /// The order that waits for longest.
    fn next(&self) -> Option<String> {
        let mut orders = self.orders();
        orders.by_digest.retain(|_, order| order.asked.elapsed() < FORGOTTEN);
        let open = orders.by_digest.iter().filter(|(_, order)| matches!(order.state, State::Open));
        open.min_by_key(|(_, order)| order.since).map(|(digest, _)| digest.clone())
    }
}

/// All nodes are refused the same at the same time, so chance spreads when they ask again.
fn refused(words: String) -> State {
    State::Refused { words, until: Instant::now() + with_jitter(REFUSED) }
}
