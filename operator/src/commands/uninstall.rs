//! `uninstall`: removes all BpfPrograms, the stored bytes and, on request, the CustomResourceDefinitions. IO: requests.
//!
//! The operator and the agents must still run: only they detach programs and remove pins. Nodes that are not live keep
//! what they run, and a warning names them. The kill switch stays, however it is labelled.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client, Resource as _,
    api::{DeleteParams, ListParams, Request},
};
use sockeye_client::objects::write_unread;
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

/// Deletes the stored bytes. The answer would list all of them, and is not read.
async fn delete_stored_bytes(client: Client, namespace: &str) -> Result<(), kube::Error> {
    let stored = ListParams::default()
        .labels(&format!("{}=true", names::LABEL_OBJECT))
        .fields(&format!("metadata.name!={}", names::SUSPENSION));
    let config_maps = Request::new(ConfigMap::url_path(&(), Some(namespace)));
    write_unread(&client, config_maps.delete_collection(&DeleteParams::default(), &stored)).await
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Response;
    use kube::client::Body;
    use tower::util::service_fn;

    use super::*;

    #[tokio::test]
    async fn stored_bytes_are_deleted_unread_and_without_the_kill_switch() {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let service = service_fn({
            let requests = Arc::clone(&requests);
            move |request: http::Request<Body>| {
                requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
                async move { Response::builder().body(Body::from(b"as long as it wants to be".to_vec())) }
            }
        });
        delete_stored_bytes(Client::new(service, "default"), "n").await.unwrap();
        let expected = "DELETE /api/v1/namespaces/n/configmaps?&fieldSelector=metadata.name%21%3Dsockeye-suspend\
            &labelSelector=sockeye.dev%2Fobject%3Dtrue";
        assert_eq!(*requests.lock().unwrap(), [expected]);
    }
}
