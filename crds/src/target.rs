//! `Attach`: where a program is to be attached: a set of cgroups on each node, or a map. What users write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One place to attach to: exactly one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cgroup) != has(self.map)").message("exactly one of cgroup and map must be set"))]
pub struct Attach {
    /// A set of cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupTarget>,
    /// The name of a sockmap or sockhash in the object (sk_msg and sk_skb programs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub map: Option<String>,
}

/// A set of cgroups on each node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.scope == 'Path' ? has(self.path) : !has(self.path)").message("path must be set with scope Path, and with no other scope").field_path(".path"),
    validation = Rule::new("!has(self.path) || (self.path.startsWith('/') && !self.path.matches('/[.][.]?(/|$)'))")
        .message("path must begin with '/' and hold no '.' or '..': it is taken below the node's cgroup root").field_path(".path"),
    validation = Rule::new("self.scope == 'Pods' || !(has(self.podSelector) || has(self.namespaceSelector) || has(self.containers) || (has(self.strict) && self.strict))")
        .message("podSelector, namespaceSelector, containers and strict go with scope Pods only")
)]
pub struct CgroupTarget {
    /// Node: the node's cgroup root. Pods: pods' cgroups. Path: one cgroup, named by its path.
    pub scope: Scope,
    /// For scope Path: the cgroup, as a path below the node's cgroup root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// For scope Pods: the pods, by their labels; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// For scope Pods: the namespaces whose pods they are, by the namespaces' labels; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// For scope Pods: the containers, by name, init, sidecar and ephemeral ones too; absent means the whole pod. Containers
    /// that are named are attached to each at its own cgroup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub containers: Vec<String>,
    /// For scope Pods: no selected container starts before the program is attached to it. The agent then has to be told by
    /// the container runtime of every start (the chart's agent.nri); where it is not, the program counts as not attached.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub strict: bool,
}

/// Which cgroups of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// The node's cgroup root, so everything on the node.
    Node,
    /// Pods' cgroups.
    Pods,
    /// One cgroup below the root.
    Path,
}

impl CgroupTarget {
    /// All cgroups of a scope that needs nothing more.
    pub const fn whole(scope: Scope) -> Self {
        Self { scope, path: None, pod_selector: None, namespace_selector: None, containers: Vec::new(), strict: false }
    }

    /// One cgroup.
    pub fn at(path: String) -> Self {
        Self { path: Some(path), ..Self::whole(Scope::Path) }
    }

    /// Whether single pods, or containers of pods, are meant: which these are the API server says.
    pub const fn picks(&self) -> bool {
        self.pod_selector.is_some() || self.namespace_selector.is_some() || !self.containers.is_empty()
    }
}
