//! [`PodEvents`]: writes Events on pods whose connections were refused. IO: requests.
//!
//! A node's word alone makes no Event on a pod: the API server must have the pod on that node, with that UID.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt as _};
use sockeye_client::objects::get;
use sockeye_crds::{names, node::RefusedConnections, revision::ProgramRef};
use tracing::{info, warn};

use crate::events::{
    publisher::Publisher,
    refused::{PodEventBudget, RefusedPod},
};

/// The annotation of a mirror pod that holds the UID of its static pod, which its cgroup has.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Writes Events on pods.
#[derive(Clone)]
pub struct PodEvents {
    client: Client,
    publisher: Publisher,
    budget: Arc<Mutex<PodEventBudget>>,
}

impl PodEvents {
    /// Returns a writer whose budget is full.
    pub fn new(client: Client, publisher: Publisher) -> Self {
        Self { client, publisher, budget: Arc::default() }
    }

    /// Publishes an Event on each of these pods that the budget allows. One that is lost is logged, and fails nothing.
    pub async fn publish(&self, program: &ProgramRef, refused: &[RefusedPod], now: Timestamp) {
        for refused in refused.iter().filter(|refused| self.may(refused, now)) {
            let (node, namespace, pod) = (&refused.node, &refused.pod.namespace, &refused.pod.name);
            let regarding = match self.regarding(refused).await {
                Ok(Some(regarding)) => regarding,
                Ok(None) => {
                    warn!(program = program.name, node, namespace, pod, "a node reports a pod that it does not have");
                    continue;
                }
                Err(error) => {
                    warn!(program = program.name, namespace, pod, %error, "cannot read a refused pod");
                    continue;
                }
            };
            match self.publisher.publish_about(regarding, refused.event(program)).await {
                Ok(()) => info!(program = program.name, namespace, pod, "published an Event on a pod"),
                Err(error) => warn!(program = program.name, namespace, pod, %error, "an Event could not be published"),
            }
        }
    }

    fn may(&self, refused: &RefusedPod, now: Timestamp) -> bool {
        // Names that are none of a pod would be paths of other requests.
        let RefusedConnections { namespace, name, .. } = &refused.pod;
        let is_name = names::is_dns_label(namespace) && !name.is_empty() && name.split('.').all(names::is_dns_label);
        is_name && self.budget.lock().unwrap_or_else(PoisonError::into_inner).allow(refused, now)
    }

    /// Returns the pod that an Event is about, if it is on the node that reports it.
    async fn regarding(&self, RefusedPod { node, pod }: &RefusedPod) -> Result<Option<ObjectReference>, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let found = get(&api, &pod.name).await?;
        Ok(found.filter(|found| is_it(found, node, &pod.uid)).map(|found| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: found.metadata.uid,
            ..ObjectReference::default()
        }))
    }
}

/// Returns whether a pod is on a node, and has this UID in the name of its cgroup. Only the UID of a static pod is a
/// hash, without hyphens: a forged annotation can't name another pod.
fn is_it(pod: &Pod, node: &str, uid: &str) -> bool {
    let mirrored = pod.annotations().get(CONFIG_MIRROR).filter(|uid| !uid.contains('-'));
    let in_cgroup = mirrored.or(pod.metadata.uid.as_ref());
    let on_node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    !uid.is_empty() && on_node == Some(node) && in_cgroup.is_some_and(|known| known == uid)
}
