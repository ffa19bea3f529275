//! Drive: when an agent takes its next pass: when something changed, when an attempt is due again, and from time to time.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    agent::Agent,
    fetch::{cluster::Cluster, folder::Folder},
    health::Ready,
    host::Host,
};

/// Everything is looked at again so often, whether or not anything was said to have changed.
const SWEEP: Duration = Duration::from_secs(10);
/// A write that the API refused is tried again so soon.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A folder is looked at so often.
const SCAN: Duration = Duration::from_millis(250);

/// Runs what the Kubernetes API has for the node. Ready once its lists are complete and its report is written.
pub async fn cluster<H: Host>(
    agent: Agent<H>,
    client: Client,
    node_name: &str,
    namespace: &str,
    ready: Ready,
) -> Result<()> {
    let mut watches = JoinSet::new();
    let cluster = Cluster::watch(client, node_name, namespace, &mut watches);
    tokio::select! {
        ended = follow(agent, cluster, ready) => ended,
        Some(ended) = watches.join_next() => ended?,
    }
}

async fn follow<H: Host>(mut agent: Agent<H>, mut cluster: Cluster, ready: Ready) -> Result<()> {
    cluster.ready().await?;
    let mut next_sweep = Instant::now();
    loop {
        let sweep = next_sweep <= Instant::now();
        if sweep {
            next_sweep = Instant::now() + SWEEP;
        }
        let mut wake = next_sweep;
        if let Some(wants) = cluster.wants() {
            agent.pass(&wants, &cluster, sweep).await;
            wake = agent.next_retry().map_or(wake, |retry| wake.min(retry));
            let written = cluster.write(agent.report()).await;
            ready.set(written.is_ok());
            if let Err(error) = written {
                tracing::warn!("{error:#}");
                wake = wake.min(Instant::now() + WRITE_AGAIN);
            }
        }
        tokio::select! {
            () = cluster.changed() => {}
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// Runs the manifests of a folder, and prints the table of them whenever it says something else.
pub async fn folder<H: Host>(mut agent: Agent<H>, mut folder: Folder) -> Result<()> {
    let mut next_sweep = Instant::now();
    loop {
        let changed = folder.scan()?;
        let now = Instant::now();
        let sweep = next_sweep <= now;
        if changed || sweep || agent.next_retry().is_some_and(|retry| retry <= now) {
            agent.pass(&folder.wants(), &folder, sweep).await;
            if let Some(table) = folder.write(&agent.report(), Timestamp::now())? {
                print!("{table}");
            }
        }
        if sweep {
            next_sweep = Instant::now() + SWEEP;
        }
        sleep(SCAN).await;
    }
}
