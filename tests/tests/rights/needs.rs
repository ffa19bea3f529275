//! `NEEDS`: the rights of the chart's identities, as a table.

use sockeye_tests::identity::RELEASE;

/// The namespaces that are asked about: the release's, the one of Events, the one of the nodes' Leases, one of others,
/// and all at once.
pub const NAMESPACES: [&str; 5] = [RELEASE, "default", "kube-node-lease", "kube-system", ""];

/// A right that an identity needs.
#[derive(Clone, Copy)]
pub struct Need {
    pub group: &'static str,
    pub resource: &'static str,
    /// A namespace, or "" for the whole cluster.
    pub namespace: &'static str,
    pub verbs: &'static [&'static str],
}

pub const fn need(
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    verbs: &'static [&'static str],
) -> Need {
    Need { group, resource, namespace, verbs }
}

const SOCKEYE: &str = "sockeye.dev";
pub const LEASES: &str = "coordination.k8s.io";

/// The rights that each identity needs, written by hand from what its code asks the API server for. A new right is a
/// new line.
pub const NEEDS: [(&str, &[Need]); 4] = [
    (
        "sockeye-agent",
        &[
            need(SOCKEYE, "bpfrevisions", "", &["get", "list", "watch"]),
            need(SOCKEYE, "bpfnodes", "", &["get", "list", "watch", "create", "delete"]),
            need(SOCKEYE, "bpfnodes/status", "", &["patch"]),
            need(SOCKEYE, "bpfnodedetails", "", &["get", "list", "watch", "create", "delete"]),
            need(SOCKEYE, "bpfnodedetails/status", "", &["patch"]),
            need("", "nodes", "", &["list", "watch"]),
            // For targets that select pods.
            need("", "pods", "", &["list", "watch"]),
            need("", "namespaces", "", &["list", "watch"]),
            need("", "configmaps", RELEASE, &["get"]),
            // For connectivity trials.
            need(LEASES, "leases", "kube-node-lease", &["get"]),
        ],
    ),
    (
        "sockeye-operator",
        &[
            need(SOCKEYE, "bpfprograms", "", &["list", "watch", "patch"]),
            need(SOCKEYE, "bpfprograms/status", "", &["patch"]),
            need(SOCKEYE, "bpfrevisions", "", &["list", "watch", "create", "patch", "delete"]),
            need(SOCKEYE, "bpfnodes", "", &["list", "watch"]),
            need("", "nodes", "", &["list", "watch"]),
            need("", "configmaps", RELEASE, &["get", "list", "watch", "create", "delete"]),
            need("", "pods", RELEASE, &["list", "watch"]),
            // For Events on pods: operator.podEvents.
            need("", "pods", "", &["get"]),
            need("events.k8s.io", "events", "", &["create", "patch"]),
            // And, of its own Lease alone, get, list, watch and update: `access` tests that.
            need(LEASES, "leases", RELEASE, &["create"]),
        ],
    ),
    // Before an installation or an upgrade. It has rights to single objects only, which `access` tests.
    ("sockeye-crds", &[]),
    // Before an uninstallation.
    (
        "sockeye-uninstall",
        &[
            need(SOCKEYE, "bpfprograms", "", &["list", "delete"]),
            need(SOCKEYE, "bpfnodes", "", &["list"]),
            need("", "configmaps", RELEASE, &["deletecollection"]),
        ],
    ),
];

/// The rights of people, by the ClusterRole that gives them.
pub const PEOPLE: [(&str, &[Need]); 2] = [
    ("sockeye-viewer", &READS),
    (
        "sockeye-editor",
        &[
            READS[0],
            READS[1],
            READS[2],
            READS[3],
            need(SOCKEYE, "bpfprograms", "", &["create", "update", "patch", "delete", "deletecollection"]),
        ],
    ),
];

const READS: [Need; 4] = [
    need(SOCKEYE, "bpfprograms", "", &["get", "list", "watch"]),
    need(SOCKEYE, "bpfrevisions", "", &["get", "list", "watch"]),
    need(SOCKEYE, "bpfnodes", "", &["get", "list", "watch"]),
    need(SOCKEYE, "bpfnodedetails", "", &["get", "list", "watch"]),
];

/// The rights that Kubernetes gives every authenticated user: to ask about oneself.
pub const EVERYBODY: [Need; 3] = [
    need("authentication.k8s.io", "selfsubjectreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectaccessreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectrulesreviews", "", &["create"]),
];

/// The right that Kubernetes gives every service account: to read public certificates.
pub const EVERY_ACCOUNT: [Need; 1] =
    [need("certificates.k8s.io", "clustertrustbundles", "", &["get", "list", "watch"])];

/// The verbs of requests, those that authorizers and admission ask about, the chart's own, and the wildcard, which only
/// a wildcard grants.
pub const VERBS: [&str; 17] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "sign",
    "attest",
    "use",
    "suspend",
    "*",
];

/// Resources that are asked about though discovery does not list them: (group, name, namespaced).
pub const UNLISTED: [(&str, &str, bool); 12] = [
    ("*", "*", true),
    ("", "*", true),
    (SOCKEYE, "*", false),
    ("", "users", false),
    ("", "groups", false),
    ("authentication.k8s.io", "userextras/scopes", false),
    ("certificates.k8s.io", "signers", false),
    ("", "nodes/metrics", false),
    ("", "nodes/stats", false),
    ("", "nodes/log", false),
    ("", "nodes/configz", false),
    ("", "nodes/pods", false),
];
