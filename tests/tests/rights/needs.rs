//! `NEEDS`: the rights of the chart's identities, as a table.

use sockeye_tests::identity::RELEASE;

/// The namespaces that are asked about: the release's, the one of Events, one of others, and all at once.
pub const NAMESPACES: [&str; 4] = [RELEASE, "default", "kube-system", ""];

/// A right that an identity needs.
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
/// The rights that each identity needs, written by hand from what its code asks the API server for. A new right is a
/// new line.
pub const NEEDS: [(&str, &[Need]); 4] = [
    (
        "sockeye-agent",
        &[
            need(SOCKEYE, "bpfrevisions", "", &["list", "watch"]),
            need(SOCKEYE, "bpfnodes", "", &["get", "list", "watch", "create", "delete"]),
            need(SOCKEYE, "bpfnodes/status", "", &["patch"]),
            need("", "nodes", "", &["list", "watch"]),
            // For targets that select pods.
            need("", "pods", "", &["list", "watch"]),
            need("", "namespaces", "", &["list", "watch"]),
            need("", "configmaps", RELEASE, &["get"]),
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
            need("events.k8s.io", "events", "default", &["create", "patch"]),
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

/// The rights that Kubernetes gives every authenticated user: to ask about oneself, and to read public certificates.
pub const EVERYBODY: [Need; 4] = [
    need("certificates.k8s.io", "clustertrustbundles", "", &["get", "list", "watch"]),
    need("authentication.k8s.io", "selfsubjectreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectaccessreviews", "", &["create"]),
    need("authorization.k8s.io", "selfsubjectrulesreviews", "", &["create"]),
];

/// The verbs of requests, those that authorizers and admission ask about, and the wildcard, which only a wildcard
/// grants.
pub const VERBS: [&str; 16] = [
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
