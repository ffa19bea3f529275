//! `Start`: a pod or a container that the container runtime is about to start. Values.

use super::pods::Pod;

/// The namespace of the pods that a node and its cluster need to come up.
const KUBE_SYSTEM: &str = "kube-system";

/// Identifies a start while its decision is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartId(pub u64);

/// A pod sandbox or a container that waits for the agent's decision. Its cgroup exists, and nothing runs in it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The pod, as the container runtime knows it: its labels are those of the moment when its sandbox was made.
    pub pod: Pod,
    /// The container; absent where the pod's sandbox itself is about to start.
    pub container: Option<Container>,
}

/// A container, as the container runtime knows it: init, sidecar and ephemeral containers look alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The container runtime's ID.
    pub id: String,
    /// The name in the pod.
    pub name: String,
}

/// Whether a start may go on; else why not, in words that the kubelet shows.
pub type Decision = Result<(), String>;

impl Start {
    /// Reports whether the start is allowed while the agent does not know what the node is to run: the API server
    /// itself may run on this node. Exempt are static pods, which a kubelet starts without an API server, and pods of
    /// kube-system.
    pub fn is_exempt(&self) -> bool {
        // A static pod's UID is a hash without dashes.
        self.pod.namespace == KUBE_SYSTEM || !self.pod.uid.contains('-')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_pods_and_kube_system_are_exempt_and_users_pods_are_not() {
        for (namespace, uid, exempt) in [
            ("edge", "6f1d0b6a3c2e4a55", true),
            (KUBE_SYSTEM, "0b5c1f9e-5d7a-4a44-9f0e-0e1d2c3b4a59", true),
            ("shop", "7c9e6679-7425-40de-944b-e07fc1f90ae7", false),
        ] {
            let pod = Pod { uid: uid.to_owned(), namespace: namespace.to_owned(), ..Pod::default() };
            assert_eq!(Start { pod, container: None }.is_exempt(), exempt, "{namespace}/{uid}");
        }
    }
}
