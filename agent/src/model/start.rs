//! `Start`: a pod or a container that the container runtime is about to start. Values.

use sockeye_crds::target::PodsTarget;

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
    /// Returns whether the start is allowed while the agent does not know what the node is to run: the API server
    /// itself may run on this node, and sockeye's own Job may have to install the definitions that the agent waits for.
    /// Exempt are static pods, which a kubelet starts without an API server, and pods of kube-system and of the
    /// namespace that sockeye is installed in.
    pub fn is_exempt(&self, release_namespace: Option<&str>) -> bool {
        // A static pod's UID is a hash without dashes.
        self.is_of_the_system(release_namespace) || !self.pod.uid.contains('-')
    }

    /// Returns whether a target may hold back or refuse the start, if it selects the pod. A strict target that says
    /// nothing of namespaces does so to no pod that the cluster or sockeye itself needs: a program that is not attached
    /// for whatever reason would keep those away that could attach it. They are attached to as soon as possible.
    pub fn can_be_held_by(&self, target: &PodsTarget, release_namespace: Option<&str>) -> bool {
        target.is_strict() && (target.namespace_selector.is_some() || !self.is_of_the_system(release_namespace))
    }

    fn is_of_the_system(&self, release_namespace: Option<&str>) -> bool {
        let namespace = self.pod.namespace.as_str();
        namespace == KUBE_SYSTEM || release_namespace == Some(namespace)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use sockeye_crds::target::StartPolicy;

    use super::*;

    const USERS: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    const RELEASE: Option<&str> = Some("sockeye");

    fn start(namespace: &str, uid: &str) -> Start {
        let pod = Pod { uid: uid.to_owned(), namespace: namespace.to_owned(), ..Pod::default() };
        Start { pod, container: None }
    }

    #[test]
    fn static_pods_and_those_of_the_system_are_exempt_and_users_pods_are_not() {
        for (namespace, uid, release, exempt) in [
            ("edge", "6f1d0b6a3c2e4a55", RELEASE, true),
            (KUBE_SYSTEM, USERS, RELEASE, true),
            (KUBE_SYSTEM, USERS, None, true),
            ("sockeye", USERS, RELEASE, true),
            ("sockeye", USERS, None, false),
            ("shop", USERS, RELEASE, false),
        ] {
            assert_eq!(start(namespace, uid).is_exempt(release), exempt, "{namespace}/{uid}, {release:?}");
        }
    }

    #[test]
    fn a_strict_target_holds_pods_of_the_system_only_if_it_selects_namespaces() {
        let strict = PodsTarget { start_policy: Some(StartPolicy::WaitForAttachment), ..PodsTarget::default() };
        let of_namespaces = PodsTarget { namespace_selector: Some(LabelSelector::default()), ..strict.clone() };
        let immediate = PodsTarget { start_policy: Some(StartPolicy::Immediate), ..of_namespaces.clone() };
        for (namespace, by_strict, by_namespaces) in
            [("shop", true, true), (KUBE_SYSTEM, false, true), ("sockeye", false, true), ("edge", true, true)]
        {
            let start = start(namespace, USERS);
            assert_eq!(start.can_be_held_by(&strict, RELEASE), by_strict, "{namespace}");
            assert_eq!(start.can_be_held_by(&of_namespaces, RELEASE), by_namespaces, "{namespace}");
            assert!(!start.can_be_held_by(&immediate, RELEASE), "{namespace}");
        }
        assert!(
            start("edge", "6f1d0b6a3c2e4a55").can_be_held_by(&strict, RELEASE),
            "a static pod is held as any other"
        );
    }
}
