//! `Pods`: the pods of this node, as the API server has them and where the kernel has their cgroups, and which of these a
//! target picks. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::ResourceExt as _;
use sockeye_crds::{
    selector::selects,
    target::{CgroupTarget, Scope},
};

/// The label that every namespace carries with its own name; the API server sees to it.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// A mirror pod, which stands for a static one, carries the static one's UID so. The API server lets nobody add it later, or
/// change it (`ValidatePodUpdate` in k8s.io/kubernetes/pkg/apis/core/validation).
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The UID that its cgroup is named by.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its containers' names, by their IDs: of the regular ones, init, sidecar and ephemeral ones.
    pub containers: BTreeMap<String, String>,
}

impl Pod {
    /// What the API server has of it.
    pub fn read(pod: &core::Pod) -> Self {
        let status = pod.status.as_ref();
        let lists =
            status.map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]);
        let containers = lists.into_iter().flatten().flatten().flatten();
        let id = |status: &core::ContainerStatus| {
            let id = status.container_id.as_deref()?.rsplit_once("://")?.1;
            Some((id.to_owned(), status.name.clone()))
        };
        // A static pod's UID is a hash, and no other pod's is: nobody can pass for a pod that the API server made.
        let mirrored = pod.annotations().get(CONFIG_MIRROR).filter(|uid| !uid.contains('-'));
        let uid = mirrored.cloned().or_else(|| pod.uid());
        Self {
            uid: uid.unwrap_or_default(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            labels: pod.labels().clone(),
            containers: containers.filter_map(id).collect(),
        }
    }
}

/// Where the cgroups of pods are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's, as a path below the root.
    pub path: String,
    /// Its containers', by their IDs.
    pub containers: BTreeMap<String, String>,
}

/// What is known of the node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// The pods.
    pub pods: Arc<Vec<Pod>>,
    /// The labels of their namespaces, where anything asks for more of these than their names.
    pub namespaces: Arc<BTreeMap<String, Labels>>,
    /// Their cgroups, by the pods' UIDs.
    pub cgroups: BTreeMap<String, PodCgroup>,
}

/// Whose cgroup it is that a target picks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occupant {
    /// The pod's namespace and name, with a slash between.
    pub pod: String,
    /// The container's name, where it is a container's.
    pub container: Option<String>,
}

impl Pods {
    /// The cgroups that a target picks, each with whose it is.
    pub fn pick<'a>(&'a self, target: &'a CgroupTarget) -> impl Iterator<Item = (String, Occupant)> + 'a {
        let picked = self.pods.iter().filter(move |pod| self.selects(target, pod));
        picked.flat_map(move |pod| self.of(pod, &target.containers))
    }

    /// Whether a target selects a pod, or containers of it.
    pub fn selects(&self, target: &CgroupTarget, pod: &Pod) -> bool {
        let CgroupTarget { pod_selector, namespace_selector, .. } = target;
        selects(pod_selector.as_ref(), &pod.labels)
            && namespace_selector.as_ref().is_none_or(|selector| self.selects_namespace(selector, &pod.namespace))
    }

    /// Whether a target asks for labels of a namespace that are not known.
    pub fn lacks_namespace(&self, target: &CgroupTarget, namespace: &str) -> bool {
        target.namespace_selector.as_ref().is_some_and(asks_for_labels) && !self.namespaces.contains_key(namespace)
    }

    fn selects_namespace(&self, selector: &LabelSelector, namespace: &str) -> bool {
        let name = (NAMESPACE_NAME.to_owned(), namespace.to_owned());
        match self.namespaces.get(namespace) {
            Some(labels) => selects(Some(selector), labels),
            None => !asks_for_labels(selector) && selects(Some(selector), &[name].into()),
        }
    }

    fn of(&self, pod: &Pod, names: &[String]) -> Vec<(String, Occupant)> {
        let Some(cgroup) = self.cgroups.get(&pod.uid) else { return Vec::new() };
        let occupant = |container: Option<&String>| Occupant {
            pod: format!("{}/{}", pod.namespace, pod.name),
            container: container.cloned(),
        };
        if names.is_empty() {
            return vec![(cgroup.path.clone(), occupant(None))];
        }
        let containers = cgroup.containers.iter().filter_map(|(id, path)| Some((path, pod.containers.get(id)?)));
        let named = containers.filter(|(_, name)| names.contains(name));
        named.map(|(path, name)| (path.clone(), occupant(Some(name)))).collect()
    }
}

/// Whether a selector asks for more of a namespace than its name.
pub fn asks_for_labels(selector: &LabelSelector) -> bool {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().flatten().map(|(key, _)| key);
    let mut keys = labels.chain(match_expressions.iter().flatten().map(|expression| &expression.key));
    keys.any(|key| key != NAMESPACE_NAME)
}

/// What has to be known of pods for targets to be worked out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The cgroup of all of them.
    pub root: bool,
    /// The pods themselves.
    pub pods: bool,
    /// Their namespaces' labels.
    pub namespaces: bool,
    /// Their containers.
    pub containers: bool,
}

impl Needs {
    /// What either needs.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            root: self.root || other.root,
            pods: self.pods || other.pods,
            namespaces: self.namespaces || other.namespaces,
            containers: self.containers || other.containers,
        }
    }

    /// What targets need.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a CgroupTarget>) -> Self {
        let of = |target: &CgroupTarget| Self {
            root: target.scope == Scope::Pods && !target.is_selective(),
            pods: target.is_selective(),
            namespaces: target.namespace_selector.as_ref().is_some_and(asks_for_labels),
            containers: !target.containers.is_empty(),
        };
        targets.into_iter().map(of).fold(Self::default(), Self::and)
    }
}

/// The pods that one source tells of, and what another tells of these or others: the first one's labels count, and both's
/// containers.
pub fn joined(pods: &Arc<Vec<Pod>>, told: &BTreeMap<String, Pod>) -> Arc<Vec<Pod>> {
    if told.is_empty() {
        return Arc::clone(pods);
    }
    let mut others = told.clone();
    let mut all: Vec<Pod> = pods.to_vec();
    for pod in &mut all {
        pod.containers.extend(others.remove(&pod.uid).into_iter().flat_map(|other| other.containers));
    }
    all.extend(others.into_values());
    Arc::new(all)
}

/// Whether a cgroup is that one, or lies below it.
pub fn is_within(path: &str, above: &str) -> bool {
    above == "/" || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Of several cgroups, those that lie below no other: a program attached to both would run twice for the lower one.
pub fn highest<T: Clone>(paths: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let all: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let is_below_another = |path: &str| {
        let above = path.match_indices('/').map(|(end, _)| if end == 0 { "/" } else { &path[..end] });
        path != "/" && above.into_iter().any(|above| all.contains(above))
    };
    paths.iter().filter(|(path, _)| !is_below_another(path)).map(|(path, of)| (path.clone(), of.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockeye_crds::target::Scope;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> Option<LabelSelector> {
        Some(LabelSelector { match_labels: Some(labels(pairs)), match_expressions: None })
    }

    /// Two pods, of which one has no cgroup any more, and one is in a namespace whose labels are known.
    fn pods() -> Pods {
        let pod = |uid: &str, namespace: &str, app: &str| Pod {
            uid: uid.into(),
            namespace: namespace.into(),
            name: format!("{app}-{uid}"),
            labels: labels(&[("app", app)]),
            containers: labels(&[(&format!("{uid}-1"), "app"), (&format!("{uid}-2"), "proxy")]),
        };
        let cgroup = |uid: &str| {
            let containers = ["1", "2", "sandbox"].map(|id| (format!("{uid}-{id}"), format!("/pods/{uid}/{uid}-{id}")));
            (uid.to_owned(), PodCgroup { path: format!("/pods/{uid}"), containers: containers.into() })
        };
        Pods {
            pods: Arc::new(vec![
                pod("u1", "shop", "web"),
                pod("u2", "shop", "db"),
                pod("u3", "bank", "web"),
                pod("u4", "shop", "web"),
            ]),
            namespaces: Arc::new([("shop".to_owned(), labels(&[(NAMESPACE_NAME, "shop"), ("team", "a")]))].into()),
            cgroups: ["u1", "u2", "u3"].map(cgroup).into(),
        }
    }

    fn picked(edit: impl FnOnce(&mut CgroupTarget)) -> Vec<String> {
        let mut target = CgroupTarget::whole(Scope::Pods);
        edit(&mut target);
        let pods = pods();
        pods.pick(&target).map(|(path, Occupant { pod, container })| format!("{path} {pod} {container:?}")).collect()
    }

    #[test]
    fn labels_pick_pods_that_have_a_cgroup() {
        assert_eq!(
            picked(|t| t.pod_selector = selector(&[("app", "web")])),
            ["/pods/u1 shop/web-u1 None", "/pods/u3 bank/web-u3 None"]
        );
        assert_eq!(picked(|t| t.pod_selector = Some(LabelSelector::default())).len(), 3, "an empty selector means all");
    }

    #[test]
    fn namespaces_are_picked_by_their_labels_and_names() {
        assert_eq!(picked(|t| t.namespace_selector = selector(&[("team", "a")])).len(), 2);
        assert_eq!(
            picked(|t| t.namespace_selector = selector(&[(NAMESPACE_NAME, "bank")])),
            ["/pods/u3 bank/web-u3 None"]
        );
        assert_eq!(picked(|t| t.namespace_selector = selector(&[("team", "b")])).len(), 0);
        let not_in = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
            key: "team".into(),
            operator: "DoesNotExist".into(),
            values: None,
        };
        let absent = Some(LabelSelector { match_labels: None, match_expressions: Some(vec![not_in]) });
        assert_eq!(
            picked(|t| t.namespace_selector = absent).len(),
            0,
            "what is not known of a namespace is not taken for absent"
        );
    }

    #[test]
    fn names_pick_containers_and_never_the_sandbox() {
        assert_eq!(
            picked(|t| {
                t.pod_selector = selector(&[("app", "db")]);
                t.containers = vec!["app".into(), "other".into()];
            }),
            ["/pods/u2/u2-1 shop/db-u2 Some(\"app\")"]
        );
    }

    #[test]
    fn what_is_needed_is_what_targets_ask_for() {
        let target = |edit: fn(&mut CgroupTarget)| {
            let mut target = CgroupTarget::whole(Scope::Pods);
            edit(&mut target);
            Needs::of([&target])
        };
        assert_eq!(target(|_| ()), Needs { root: true, ..Needs::default() });
        assert_eq!(target(|t| t.pod_selector = selector(&[])), Needs { pods: true, ..Needs::default() });
        assert_eq!(
            target(|t| t.namespace_selector = selector(&[(NAMESPACE_NAME, "x")])),
            Needs { pods: true, ..Needs::default() }
        );
        assert!(target(|t| t.namespace_selector = selector(&[("team", "x")])).namespaces);
        assert!(target(|t| t.containers = vec!["a".into()]).containers);
    }

    #[test]
    fn a_mirror_pod_has_the_static_pods_uid() {
        let pod = serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}, "annotations": {CONFIG_MIRROR: "h"}},
            "status": {
                "containerStatuses": [
                    {"name": "app", "containerID": "containerd://1", "image": "", "imageID": "", "ready": true, "restartCount": 0},
                    {"name": "waits", "image": "", "imageID": "", "ready": false, "restartCount": 0},
                ],
                "initContainerStatuses": [
                    {"name": "init", "containerID": "containerd://2", "image": "", "imageID": "", "ready": true, "restartCount": 0},
                ],
            },
        });
        let read = |pod: &serde_json::Value| Pod::read(&serde_json::from_value(pod.clone()).unwrap());
        for annotations in [
            serde_json::json!({"kubernetes.io/config.hash": "h"}),
            serde_json::json!({CONFIG_MIRROR: "0b5c1f9e-5d7a-4a44-9f0e-0e1d2c3b4a59"}),
        ] {
            let mut forged = pod.clone();
            forged["metadata"]["annotations"] = annotations;
            assert_eq!(read(&forged).uid, "u", "nobody passes for another pod: {forged}");
        }
        let pod = read(&pod);
        assert_eq!((pod.uid.as_str(), &pod.labels), ("h", &labels(&[("a", "b")])));
        assert_eq!(pod.containers, labels(&[("1", "app"), ("2", "init")]));
    }

    #[test]
    fn what_the_runtime_tells_comes_before_the_api_server_and_goes_behind_it() {
        let pods = pods();
        let told = |uid: &str| Pod {
            uid: uid.into(),
            labels: labels(&[("app", "new")]),
            containers: labels(&[("9", "late")]),
            ..Pod::default()
        };
        let joined = joined(&pods.pods, &["u1", "u9"].map(|uid| (uid.to_owned(), told(uid))).into());
        let of = |uid: &str| joined.iter().find(|pod| pod.uid == uid).unwrap();
        assert_eq!((of("u1").labels["app"].as_str(), of("u1").containers.len()), ("web", 3));
        assert_eq!((of("u9").labels["app"].as_str(), joined.len()), ("new", 5));
    }

    #[test]
    fn within_is_by_whole_names() {
        for (path, above, is) in
            [("/a/b", "/a", true), ("/a", "/a", true), ("/ab", "/a", false), ("/a", "/", true), ("/a", "/a/b", false)]
        {
            assert_eq!(is_within(path, above), is, "{path} {above}");
        }
    }

    #[test]
    fn a_cgroup_below_another_gets_no_link_of_its_own() {
        let highest = |paths: &[&str]| {
            let paths = paths.iter().map(|path| ((*path).to_owned(), ())).collect();
            highest(&paths).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(highest(&["/", "/a", "/a/b"]), ["/"]);
        assert_eq!(highest(&["/a/b", "/a", "/ab", "/a"]), ["/a", "/ab"]);
        assert_eq!(highest(&["/x/y", "/x/z"]), ["/x/y", "/x/z"]);
    }
}
