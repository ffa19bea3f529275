//! `uninstall`: removes all BpfPrograms, the stored bytes and, on request, the CustomResourceDefinitions. IO: requests.
//!
//! The operator and the agents must still run: only they detach programs and remove pins. Nodes that are not live keep
//! what they run, and a warning names them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use sockeye_crds::names;
use tracing::{info, warn};

use crate::commands::{
    crds,
    delete_programs::{self, delete_programs},
    leftovers::{Leftover, leftovers},
};

/// The options of the command.
#[derive(Clone, Debug)]
pub struct Options {
    /// The release namespace. Without it stored bytes are kept.
    pub namespace: Option<String>,
    /// The time to wait until the BpfPrograms are gone, and again until the definitions are.
    pub timeout: Duration,
    /// True to delete the CustomResourceDefinitions too.
    pub deletes_crds: bool,
}

/// A step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// BpfPrograms are still there.
    #[error(transparent)]
    Programs(#[from] delete_programs::Error),
    /// Stored bytes are still there.
    #[error("deleting the stored bytes: {0}")]
    Bytes(#[source] kube::Error),
    /// A definition is still there.
    #[error(transparent)]
    Definitions(#[from] crds::Error),
}

/// Runs the command.
pub async fn run(client: Client, options: Options) -> Result<(), Error> {
    let Options { namespace, timeout, deletes_crds } = options;
    delete_programs(client.clone(), timeout).await?;
    if let Some(namespace) = namespace {
        delete_stored_bytes(client.clone(), &namespace).await.map_err(Error::Bytes)?;
    }
    info!("no BpfProgram is left");
    warn_of_leftovers(leftovers(client.clone()).await);
    if deletes_crds {
        crds::remove(client, timeout).await?;
    }
    Ok(())
}

async fn delete_stored_bytes(client: Client, namespace: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let stored = ListParams::default().labels(&format!("{}=true", names::LABEL_OBJECT));
    api.delete_collection(&DeleteParams::default(), &stored).await.map(drop)
}

/// Names the nodes whose programs nobody will remove. A failed list is no reason to keep the release.
fn warn_of_leftovers(leftovers: Result<Vec<Leftover>, kube::Error>) {
    match leftovers {
        Ok(leftovers) if leftovers.is_empty() => {}
        Ok(leftovers) => {
            for Leftover { node, programs } in &leftovers {
                warn!(
                    node,
                    programs = programs.join(","),
                    "the node was not live, and ran programs when it last reported"
                );
            }
            let nodes = leftovers.len();
            warn!(
                nodes,
                "rm -r /sys/fs/bpf/sockeye there, or a reboot, removes them; so do the agents of another installation"
            );
        }
        Err(error) => warn!(%error, "cannot list BpfNodes: nodes that are not live may still run programs"),
    }
}
