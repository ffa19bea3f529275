//! `Pod`: a pod on this node, as the API server, the runtime or a list describes it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt as _;

/// The labels of one object.
pub type Labels = BTreeMap<String, String>;

/// The annotation of a mirror pod that holds the UID of its static pod. The API server lets nobody add or change it
/// later (`ValidatePodUpdate` in k8s.io/kubernetes/pkg/apis/core/validation).
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The UID in the name of its cgroup.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The names of its containers, by ID: regular, init, sidecar and ephemeral ones.
    pub containers: BTreeMap<String, String>,
    /// The IDs of those that run, according to the kubelet.
    pub running: BTreeSet<String>,
}

impl Pod {
    /// Reads a pod of the API server.
    pub fn read(pod: &core::Pod) -> Self {
        let status = pod.status.as_ref();
        let lists =
            status.map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]);
        let containers = || lists.into_iter().flatten().flatten().flatten();
        let id =
            |status: &core::ContainerStatus| Some(status.container_id.as_deref()?.rsplit_once("://")?.1.to_owned());
        let runs = |status: &&core::ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        // Only the UID of a static pod is a hash, without hyphens: a forged annotation can't name another pod.
        let mirrored = pod.annotations().get(CONFIG_MIRROR).filter(|uid| !uid.contains('-'));
        let uid = mirrored.cloned().or_else(|| pod.uid());
        Self {
            uid: uid.unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            labels: pod.labels().clone(),
            containers: containers().filter_map(|status| Some((id(status)?, status.name.clone()))).collect(),
            running: containers().filter(runs).filter_map(id).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_pod_gets_the_uid_of_its_static_pod() {
        let status = |name: &str, id: Option<&str>| {
            let ready = id.is_some();
            let state = if ready { serde_json::json!({"running": {}}) } else { serde_json::json!({"waiting": {}}) };
            serde_json::json!({
                "name": name, "containerID": id, "image": "", "imageID": "", "ready": ready, "restartCount": 0,
                "state": state,
            })
        };
        let pod = serde_json::json!({
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u",
                "labels": {"a": "b"}, "annotations": {CONFIG_MIRROR: "h"},
            },
            "status": {
                "containerStatuses": [
                    status("app", Some("containerd://1")),
                    status("waits", None),
                ],
                "initContainerStatuses": [{
                    "name": "init", "containerID": "containerd://2", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {"exitCode": 0}},
                }],
            },
        });
        let read = |pod: &serde_json::Value| Pod::read(&serde_json::from_value(pod.clone()).unwrap());
        for annotations in [
            serde_json::json!({"kubernetes.io/config.hash": "h"}),
            serde_json::json!({CONFIG_MIRROR: "0b5c1f9e-5d7a-4a44-9f0e-0e1d2c3b4a59"}),
        ] {
            let mut forged = pod.clone();
            forged["metadata"]["annotations"] = annotations;
            assert_eq!(read(&forged).uid, "u", "no forged UID counts: {forged}");
        }
        let pod = read(&pod);
        assert_eq!((pod.uid.as_str(), pod.labels["a"].as_str()), ("h", "b"));
        let containers = pod.containers.iter().map(|(id, name)| (id.as_str(), name.as_str()));
        assert_eq!(containers.collect::<Vec<_>>(), [("1", "app"), ("2", "init")]);
        assert_eq!(pod.running, ["1".to_owned()].into(), "the other one has ended");
    }
}
