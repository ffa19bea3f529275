//! Probes of the API server, for connectivity trials. Does IO: requests.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context as _, Result};
use kube::{Client, Config};
use tokio::{sync::mpsc, time::timeout};

use crate::control::{event::Event, run::Events};

/// A probe that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers every request for a probe.
pub(super) async fn answer(
    client: Client,
    config: Option<Config>,
    mut requests: mpsc::UnboundedReceiver<()>,
    events: Events,
) -> Result<Infallible> {
    loop {
        requests.recv().await.context("nobody asks for probes any more")?;
        events.send(Event::ProbeAnswered(is_reachable(&client, config.clone()).await));
    }
}

/// Reports whether the API server answers, whatever it says, on a connection of its own: an open one may outlive what
/// lets no new connection through.
async fn is_reachable(client: &Client, config: Option<Config>) -> bool {
    let version = async {
        match config {
            Some(config) => sockeye_client::client(config)?.apiserver_version().await,
            None => client.apiserver_version().await,
        }
    };
    matches!(timeout(TIMEOUT, version).await, Ok(Ok(_) | Err(kube::Error::Api(_))))
}
