//! `AttachTarget`: what a program is attached to on each node, a set of cgroups or a map.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{program::MapRef, schema, selector};

/// The label that the API server sets on every namespace, to its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A target that a program is attached to. In JSON, `type` names the one member that is present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", try_from = "Members")]
pub enum AttachTarget {
    /// The node's cgroup root, which covers everything on the node.
    Node,
    /// The cgroup that holds all pods' cgroups, which covers every pod by one link.
    AllPods,
    /// The cgroups of selected pods, or of selected containers in them.
    Pods {
        /// The pods.
        pods: PodsTarget,
    },
    /// One cgroup.
    #[serde(rename_all = "camelCase")]
    CgroupPath {
        /// The path of the cgroup below the node's cgroup root.
        cgroup_path: String,
    },
    /// A sockmap or sockhash, for sk_msg and sk_skb programs.
    Map {
        /// The map.
        map: MapTarget,
    },
}

/// The pods, and the containers in them, that a program is attached to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodsTarget {
    /// The pods, selected by their labels. An empty selector selects every pod.
    #[schemars(schema_with = "schema::pod_selector")]
    pub pod_selector: LabelSelector,
    /// The namespaces of the pods, selected by their labels. If absent, every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// The names of the containers, which may be init, sidecar and ephemeral ones. The program is attached to the
    /// cgroup of each. If absent, it is attached to the cgroup of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub containers: Vec<String>,
    /// The start of a selected container: at once, or once the program is attached to it. If absent, Immediate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<StartPolicy>")]
    pub start_policy: Option<StartPolicy>,
    /// The fate of the attachment to a running pod that is no longer selected. If absent, Detach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<WhenUnselected>")]
    pub when_unselected: Option<WhenUnselected>,
}

/// The start of a selected container: at once, or once the program is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StartPolicy {
    /// The container starts whether or not the program is attached.
    Immediate,
    /// The container starts only once the program is attached. This needs the agent's hook into the container runtime
    /// (the chart's agent.nri). On a node without the hook, the program is reported as not attached.
    WaitForAttachment,
}

/// The fate of the attachment to a running pod that is no longer selected, because its labels or its namespace's
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnselected {
    /// The program is detached from the pod.
    Detach,
    /// The program stays attached until the pod ends, so that whoever may relabel the pod can't take it off.
    KeepUntilPodEnds,
}

/// A sockmap or sockhash: of the object, or one that another BpfProgram shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapTarget {
    /// The name of the map in the ELF object of its BpfProgram.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.]+$"))]
    pub name: String,
    /// The other BpfProgram whose map it is; there the map's `sharing` must be Shared. If absent, this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub program: Option<String>,
}

impl MapTarget {
    /// Returns the reference to the map, if it is another BpfProgram's.
    pub fn map_ref(&self) -> Option<MapRef> {
        let program = self.program.clone()?;
        Some(MapRef { program, name: self.name.clone() })
    }
}

impl AttachTarget {
    /// Returns the target for one cgroup.
    pub fn at(path: impl Into<String>) -> Self {
        Self::CgroupPath { cgroup_path: path.into() }
    }

    /// Returns the target for a map of the object.
    pub fn on_map(name: impl Into<String>) -> Self {
        Self::Map { map: MapTarget { name: name.into(), program: None } }
    }

    /// Returns the selected pods, if the target selects pods.
    pub const fn pods(&self) -> Option<&PodsTarget> {
        match self {
            Self::Pods { pods } => Some(pods),
            Self::Node | Self::AllPods | Self::CgroupPath { .. } | Self::Map { .. } => None,
        }
    }

    /// Returns the map, if the target is one.
    pub const fn map(&self) -> Option<&MapTarget> {
        match self {
            Self::Map { map } => Some(map),
            Self::Node | Self::AllPods | Self::Pods { .. } | Self::CgroupPath { .. } => None,
        }
    }
}

impl PodsTarget {
    /// Returns whether selected containers start only once the program is attached.
    pub fn is_strict(&self) -> bool {
        self.start_policy == Some(StartPolicy::WaitForAttachment)
    }

    /// Returns whether the program stays attached to a running pod that is no longer selected.
    pub fn keeps_unselected(&self) -> bool {
        self.when_unselected == Some(WhenUnselected::KeepUntilPodEnds)
    }

    /// Returns whether the selectors match a pod with these labels. `namespace_labels` are the labels of its namespace,
    /// if they are known. None if the answer depends on them and they are not.
    pub fn selects(
        &self,
        namespace: &str,
        namespace_labels: Option<&BTreeMap<String, String>>,
        pod_labels: &BTreeMap<String, String>,
    ) -> Option<bool> {
        if !selector::selects(Some(&self.pod_selector), pod_labels) {
            return Some(false);
        }
        match (&self.namespace_selector, namespace_labels) {
            (None, _) => Some(true),
            (Some(selector), Some(labels)) => Some(selector::selects(Some(selector), labels)),
            (Some(_), None) if self.uses_namespace_labels() => None,
            (Some(selector), None) => {
                let name = (NAMESPACE_NAME.to_owned(), namespace.to_owned());
                Some(selector::selects(Some(selector), &[name].into()))
            }
        }
    }

    /// Returns whether a selector uses labels of a namespace other than its name.
    pub fn uses_namespace_labels(&self) -> bool {
        let Some(LabelSelector { match_labels, match_expressions }) = &self.namespace_selector else { return false };
        let labels = match_labels.iter().flatten().map(|(key, _)| key);
        let mut keys = labels.chain(match_expressions.iter().flatten().map(|expression| &expression.key));
        keys.any(|key| key != NAMESPACE_NAME)
    }
}

impl From<PodsTarget> for AttachTarget {
    fn from(pods: PodsTarget) -> Self {
        Self::Pods { pods }
    }
}

impl JsonSchema for AttachTarget {
    fn schema_name() -> Cow<'static, str> {
        "AttachTarget".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Members::json_schema(generator)
    }
}

impl TryFrom<Members> for AttachTarget {
    type Error = &'static str;

    /// Returns the target that the type and its member make. A node without a cluster has no API server to enforce the
    /// schema's rules, and what reads a tagged enum ignores members that do not go with the type.
    fn try_from(Members { type_, pods, cgroup_path, map }: Members) -> Result<Self, Self::Error> {
        match (type_, pods, cgroup_path, map) {
            (TargetType::Node, None, None, None) => Ok(Self::Node),
            (TargetType::AllPods, None, None, None) => Ok(Self::AllPods),
            (TargetType::Pods, Some(pods), None, None) => Ok(Self::Pods { pods }),
            (TargetType::CgroupPath, None, Some(cgroup_path), None) => Ok(Self::CgroupPath { cgroup_path }),
            (TargetType::Map, None, None, Some(map)) => Ok(Self::Map { map }),
            _ => {
                Err("of pods, cgroupPath and map, only the one that type names must be set, and with Node and AllPods \
                 none")
            }
        }
    }
}

// `AttachTarget` is read from it, and has its schema. A structural schema has no `oneOf` over the members of a union:
// rules say which member goes with which type.
/// A target that a program is attached to. `type` names the one member that is present.
#[derive(Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'Pods') == has(self.pods)")
        .message("pods must be set with type Pods, and with no other type").field_path(".pods"),
    validation = Rule::new("(self.type == 'CgroupPath') == has(self.cgroupPath)")
        .message("cgroupPath must be set with type CgroupPath, and with no other type").field_path(".cgroupPath"),
    validation = Rule::new("(self.type == 'Map') == has(self.map)")
        .message("map must be set with type Map, and with no other type").field_path(".map"),
    validation = Rule::new("!has(self.cgroupPath) || \
        (self.cgroupPath.startsWith('/') && !self.cgroupPath.matches('/[.][.]?(/|$)'))")
        .message("cgroupPath must begin with '/' and hold no '.' or '..': it is taken below the node's cgroup root")
        .field_path(".cgroupPath")
)]
struct Members {
    /// The kind of target. The member of the same name is present for Pods, CgroupPath and Map.
    #[serde(rename = "type")]
    type_: TargetType,
    /// The cgroups of selected pods, or of selected containers in them.
    pods: Option<PodsTarget>,
    /// The path of a cgroup below the node's cgroup root.
    #[schemars(length(min = 1, max = 1024))]
    cgroup_path: Option<String>,
    /// A sockmap or sockhash, for sk_msg and sk_skb programs.
    map: Option<MapTarget>,
}

/// The kinds of [`AttachTarget`].
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum TargetType {
    /// The node's cgroup root, which covers everything on the node.
    Node,
    /// The cgroup that holds all pods' cgroups, which covers every pod by one link.
    AllPods,
    /// The cgroups of selected pods, or of selected containers in them.
    Pods,
    /// One cgroup.
    CgroupPath,
    /// A sockmap or sockhash.
    Map,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(target: Value) -> Result<AttachTarget, String> {
        serde_json::from_value(target).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for target in [
            AttachTarget::Node,
            AttachTarget::AllPods,
            PodsTarget { containers: vec!["app".into()], ..PodsTarget::default() }.into(),
            AttachTarget::at("/a"),
            AttachTarget::on_map("sockets"),
        ] {
            assert_eq!(read(serde_json::to_value(&target).unwrap()).as_ref(), Ok(&target));
        }
        let path = serde_json::to_value(AttachTarget::at("/a")).unwrap();
        assert_eq!(path, json!({"type": "CgroupPath", "cgroupPath": "/a"}));
    }

    #[test]
    fn a_pod_is_selected_by_what_is_known_of_its_namespace() {
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let selector = |key: &str, value: &str| {
            Some(LabelSelector { match_labels: Some(labels(key, value)), ..LabelSelector::default() })
        };
        let web = labels("app", "web");
        let target = |namespace_selector| PodsTarget {
            pod_selector: selector("app", "web").unwrap(),
            namespace_selector,
            ..PodsTarget::default()
        };
        assert_eq!(target(None).selects("shop", None, &web), Some(true));
        let named = target(selector(NAMESPACE_NAME, "shop"));
        assert_eq!(named.selects("shop", None, &web), Some(true), "the name is known without the labels");
        assert_eq!(named.selects("bank", None, &web), Some(false));
        let of_team = target(selector("team", "a"));
        assert_eq!(of_team.selects("shop", None, &web), None);
        assert_eq!(of_team.selects("shop", None, &labels("app", "db")), Some(false), "whatever its namespace is");
        assert_eq!(of_team.selects("shop", Some(&labels("team", "a")), &web), Some(true));
        assert_eq!(of_team.selects("shop", Some(&labels("team", "b")), &web), Some(false));
    }

    #[test]
    fn a_target_with_another_types_member_is_refused() {
        let pods = json!({"podSelector": {}});
        for target in [
            json!({"type": "Node", "pods": pods}),
            json!({"type": "AllPods", "pods": pods}),
            json!({"type": "Pods"}),
            json!({"type": "Pods", "pods": pods, "cgroupPath": "/a"}),
            json!({"type": "CgroupPath", "map": {"name": "m"}}),
            json!({"type": "Map", "map": {"name": "m"}, "pods": pods}),
        ] {
            let error = read(target.clone()).unwrap_err();
            assert!(error.starts_with("of pods, cgroupPath and map"), "{target}: {error}");
        }
        assert!(read(json!({"pods": pods})).unwrap_err().contains("missing field `type`"));
        assert!(read(json!({"type": "Pods", "pods": {}})).unwrap_err().contains("missing field `podSelector`"));
        assert!(read(json!({"type": "Host"})).unwrap_err().contains("`AllPods`"));
    }
}
