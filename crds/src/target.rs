//! `Attach`: what a program is attached to on each node, a set of cgroups or a map.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A target that a program is attached to. Exactly one field must be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cgroup) != has(self.map)")
    .message("exactly one of cgroup and map must be set"))]
pub struct Attach {
    /// A set of cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupTarget>,
    /// The name of a sockmap or sockhash in the object, for sk_msg and sk_skb programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub map: Option<String>,
}

/// A set of cgroups on each node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.scope == 'Path' ? has(self.path) : !has(self.path)")
        .message("path must be set with scope Path, and with no other scope").field_path(".path"),
    validation = Rule::new("!has(self.path) || (self.path.startsWith('/') && !self.path.matches('/[.][.]?(/|$)'))")
        .message("path must begin with '/' and hold no '.' or '..': it is taken below the node's cgroup root")
        .field_path(".path"),
    validation = Rule::new("self.scope == 'Pods' || !(has(self.podSelector) || has(self.namespaceSelector) || \
        has(self.containers) || (has(self.strict) && self.strict))")
        .message("podSelector, namespaceSelector, containers and strict go with scope Pods only")
)]
pub struct CgroupTarget {
    /// Node means the node's cgroup root, Pods means the cgroups of pods, and Path means one cgroup.
    pub scope: Scope,
    /// For scope Path, the path of the cgroup below the node's cgroup root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// For scope Pods, the pods, selected by their labels. If absent, all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// For scope Pods, the namespaces of the pods, selected by their labels. If absent, all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// For scope Pods, the names of the containers, which may be init, sidecar and ephemeral ones. The program is
    /// attached to the cgroup of each. If absent, it is attached to the cgroup of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub containers: Vec<String>,
    /// For scope Pods, no selected container starts before the program is attached to it. This needs the agent's hook
    /// into the container runtime (the chart's agent.nri); on a node without the hook, the program is reported as not
    /// attached.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub strict: bool,
}

/// The cgroups of a node that a target means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// The node's cgroup root, which covers everything on the node.
    Node,
    /// The cgroups of pods.
    Pods,
    /// One cgroup below the cgroup root.
    Path,
}

impl CgroupTarget {
    /// Returns the target for all cgroups of a scope.
    pub const fn whole(scope: Scope) -> Self {
        Self { scope, path: None, pod_selector: None, namespace_selector: None, containers: Vec::new(), strict: false }
    }

    /// Returns the target for one cgroup.
    pub fn at(path: String) -> Self {
        Self { path: Some(path), ..Self::whole(Scope::Path) }
    }

    /// Returns whether the target selects individual pods or containers, so that the agent must list pods.
    pub const fn is_selective(&self) -> bool {
        self.pod_selector.is_some() || self.namespace_selector.is_some() || !self.containers.is_empty()
    }
}
