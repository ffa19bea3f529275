//! `Pods`: this node's pods, their cgroups, and the cgroups that a target's selectors pick. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sockeye_crds::target::{AttachTarget, PodsTarget};

pub use super::pod::{Labels, Pod};
use super::{cgroup_path::is_within, kept_pod::KeptByTarget};

/// The cgroups of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's own cgroup, as a path below the cgroup root.
    pub path: String,
    /// The cgroups of its containers, by container ID: those that are asked for, and those outside the pod's own.
    pub containers: BTreeMap<String, String>,
}

/// The parts of a running pod that are in no known cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unlocated {
    /// True if nothing of the pod is in its own cgroup.
    pub whole: bool,
    /// The IDs of its containers that are not found.
    pub containers: BTreeSet<String>,
}

/// The known pods of this node and their cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// The pods.
    pub pods: Arc<Vec<Pod>>,
    /// The labels of namespaces, by name; empty unless a selector uses more of them than the name.
    pub namespaces: Arc<BTreeMap<String, Labels>>,
    /// The pods' cgroups, by pod UID.
    pub cgroups: BTreeMap<String, PodCgroup>,
    /// The pods that run and whose processes are in no known cgroup, by pod UID.
    pub unlocated: BTreeMap<String, Unlocated>,
    /// True if all pods are known; false if they could not be listed, or no target asks for them.
    pub complete: bool,
}

/// The pod or container that owns a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupOwner {
    /// The pod, as `namespace/name`; absent for a pod that ends and is no longer listed.
    pub pod: Option<String>,
    /// The container's name, if the cgroup is a container's.
    pub container: Option<String>,
}

impl Pods {
    /// Returns the cgroups that a target picks, with their owners. `kept` are the pods that it goes on selecting.
    pub fn pick<'a>(
        &'a self,
        target: &'a PodsTarget,
        kept: &'a KeptByTarget<'_>,
    ) -> impl Iterator<Item = (String, CgroupOwner)> + 'a {
        self.selected(target, kept).flat_map(move |pod| self.cgroups_of(pod, &target.containers))
    }

    /// Returns the listed pods that a target selects. `kept` are the pods that it goes on selecting.
    pub fn selected<'a>(
        &'a self,
        target: &'a PodsTarget,
        kept: &'a KeptByTarget<'_>,
    ) -> impl Iterator<Item = &'a Pod> + 'a {
        self.pods.iter().filter(move |pod| kept.contains_key(pod.uid.as_str()) || self.selects(target, pod))
    }

    /// Returns whether a target's selectors match a pod.
    pub fn selects(&self, target: &PodsTarget, pod: &Pod) -> bool {
        target.selects(&pod.namespace, self.namespaces.get(&pod.namespace), &pod.labels) == Some(true)
    }

    /// Returns the kept pods that are no longer listed, and whose cgroups still exist: by UID, the cgroups' paths.
    pub fn unlisted<'a>(&'a self, kept: &KeptByTarget<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut unlisted = kept.clone();
        for pod in self.pods.iter().filter(|_| !kept.is_empty()) {
            unlisted.remove(pod.uid.as_str());
        }
        unlisted.into_keys().filter_map(|uid| Some((uid, self.cgroups.get(uid)?.path.as_str())))
    }

    /// Returns whether a target's selector uses labels of a namespace that are not known.
    pub fn lacks_namespace(&self, target: &PodsTarget, namespace: &str) -> bool {
        target.uses_namespace_labels() && !self.namespaces.contains_key(namespace)
    }

    /// Returns the pods that a target selects or goes on selecting and that are not found, or of which a selected
    /// container is not.
    pub fn unlocated<'a>(
        &'a self,
        target: &'a PodsTarget,
        kept: &'a KeptByTarget<'_>,
    ) -> impl Iterator<Item = &'a Pod> + 'a {
        let pods = (!self.unlocated.is_empty()).then(|| self.selected(target, kept)).into_iter().flatten();
        pods.filter(|pod| {
            self.unlocated.get(&pod.uid).is_some_and(|unlocated| match target.containers.is_empty() {
                true => unlocated.whole,
                false => {
                    let mut names = unlocated.containers.iter().filter_map(|id| pod.containers.get(id));
                    names.any(|name| target.containers.contains(name))
                }
            })
        })
    }

    /// Returns the cgroup of a pod with those of its containers outside of it, or those of its containers with these
    /// names.
    fn cgroups_of(&self, pod: &Pod, names: &[String]) -> Vec<(String, CgroupOwner)> {
        let Some(cgroup) = self.cgroups.get(&pod.uid) else { return Vec::new() };
        let containers = cgroup.containers.iter().map(|(id, path)| (path, pod.containers.get(id)));
        if names.is_empty() {
            // Those among them whose names are not known yet are the pod's, too.
            let outside = containers.filter(|(path, _)| !is_within(path, &cgroup.path));
            let outside = outside.map(|(path, name)| (path.clone(), owner(pod, name)));
            return [(cgroup.path.clone(), owner(pod, None))].into_iter().chain(outside).collect();
        }
        let named = containers.filter(|(_, name)| name.is_some_and(|name| names.contains(name)));
        named.map(|(path, name)| (path.clone(), owner(pod, name))).collect()
    }
}

fn owner(pod: &Pod, container: Option<&String>) -> CgroupOwner {
    let pod = Some(format!("{}/{}", pod.namespace, pod.name));
    CgroupOwner { pod, container: container.cloned() }
}

/// The inputs that are needed to resolve targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequiredInputs {
    /// The cgroup that holds all pods.
    pub root: bool,
    /// The pods.
    pub pods: bool,
    /// The labels of namespaces.
    pub namespaces: bool,
    /// The cgroups of containers.
    pub containers: bool,
}

impl RequiredInputs {
    /// Returns the inputs that either needs.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            root: self.root || other.root,
            pods: self.pods || other.pods,
            namespaces: self.namespaces || other.namespaces,
            containers: self.containers || other.containers,
        }
    }

    /// Returns the inputs that targets need.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a AttachTarget>) -> Self {
        let of = |target: &AttachTarget| match target {
            AttachTarget::AllPods => Self { root: true, ..Self::default() },
            AttachTarget::Pods { pods } => Self {
                root: false,
                pods: true,
                namespaces: pods.uses_namespace_labels(),
                containers: !pods.containers.is_empty(),
            },
            AttachTarget::Node | AttachTarget::CgroupPath { .. } | AttachTarget::Map { .. } => Self::default(),
        };
        targets.into_iter().map(of).fold(Self::default(), Self::union)
    }
}

/// Joins the pods of the API server with those that the container runtime reported, by UID.
///
/// Of a pod that both have, the API server's labels count, and the containers of both.
pub fn joined(pods: &Arc<Vec<Pod>>, reported: &BTreeMap<String, Pod>) -> Arc<Vec<Pod>> {
    if reported.is_empty() {
        return Arc::clone(pods);
    }
    let mut reported = reported.clone();
    let mut all: Vec<Pod> = pods.to_vec();
    for pod in &mut all {
        pod.containers.extend(reported.remove(&pod.uid).into_iter().flat_map(|same| same.containers));
    }
    all.extend(reported.into_values());
    Arc::new(all)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use sockeye_crds::target::NAMESPACE_NAME;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
        LabelSelector { match_labels: Some(labels(pairs)), match_expressions: None }
    }

    /// Four pods, of which u4 has no cgroup; the labels of namespace bank are not known.
    fn pods() -> Pods {
        let pod = |uid: &str, namespace: &str, app: &str| Pod {
            uid: uid.into(),
            namespace: namespace.into(),
            name: format!("{app}-{uid}"),
            labels: labels(&[("app", app)]),
            containers: labels(&[(&format!("{uid}-1"), "app"), (&format!("{uid}-2"), "proxy")]),
            ..Pod::default()
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
            unlocated: BTreeMap::new(),
            complete: true,
        }
    }

    fn picked(edit: impl FnOnce(&mut PodsTarget)) -> Vec<String> {
        let mut target = PodsTarget::default();
        edit(&mut target);
        let pods = pods();
        let shown = |(path, CgroupOwner { pod, container }): (String, CgroupOwner)| {
            format!("{path} {} {container:?}", pod.unwrap())
        };
        pods.pick(&target, &KeptByTarget::new()).map(shown).collect()
    }

    #[test]
    fn pod_selectors_pick_pods_that_have_a_cgroup() {
        assert_eq!(
            picked(|t| t.pod_selector = selector(&[("app", "web")])),
            ["/pods/u1 shop/web-u1 None", "/pods/u3 bank/web-u3 None"]
        );
        assert_eq!(picked(|_| ()).len(), 3, "an empty selector means all");
    }

    #[test]
    fn namespace_selectors_pick_by_label_and_by_name() {
        assert_eq!(picked(|t| t.namespace_selector = Some(selector(&[("team", "a")]))).len(), 2);
        assert_eq!(
            picked(|t| t.namespace_selector = Some(selector(&[(NAMESPACE_NAME, "bank")]))),
            ["/pods/u3 bank/web-u3 None"]
        );
        assert_eq!(picked(|t| t.namespace_selector = Some(selector(&[("team", "b")]))).len(), 0);
        let not_in = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
            key: "team".into(),
            operator: "DoesNotExist".into(),
            values: None,
        };
        let absent = Some(LabelSelector { match_labels: None, match_expressions: Some(vec![not_in]) });
        assert_eq!(picked(|t| t.namespace_selector = absent).len(), 0, "an unknown label does not count as absent");
    }

    #[test]
    fn container_names_pick_containers_and_never_the_sandbox() {
        assert_eq!(
            picked(|t| {
                t.pod_selector = selector(&[("app", "db")]);
                t.containers = vec!["app".into(), "other".into()];
            }),
            ["/pods/u2/u2-1 shop/db-u2 Some(\"app\")"]
        );
    }

    #[test]
    fn containers_outside_their_pods_cgroup_are_picked_with_it() {
        let mut pods = pods();
        let outside = "/system.slice/containerd.service/kubepods-podu2.slice:cri-containerd:u2-1";
        pods.cgroups.get_mut("u2").unwrap().containers.insert("u2-1".into(), outside.into());
        let target = PodsTarget { pod_selector: selector(&[("app", "db")]), ..PodsTarget::default() };
        let kept = KeptByTarget::new();
        let picked: Vec<_> = pods.pick(&target, &kept).map(|(path, owner)| (path, owner.container)).collect();
        assert_eq!(picked, [("/pods/u2".to_owned(), None), (outside.to_owned(), Some("app".to_owned()))]);
        assert_eq!(pods.unlocated(&target, &kept).count(), 0);
        let unlocated = |uid: &str| Unlocated { whole: true, containers: [format!("{uid}-2")].into() };
        pods.unlocated = ["u2", "u3"].map(|uid| (uid.to_owned(), unlocated(uid))).into();
        let names = |target: &PodsTarget| pods.unlocated(target, &kept).map(|pod| pod.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&target), ["db-u2"], "u3 is not selected");
        assert_eq!(names(&PodsTarget { containers: vec!["proxy".into()], ..target.clone() }), ["db-u2"]);
        assert!(names(&PodsTarget { containers: vec!["app".into()], ..target }).is_empty(), "that one is found");
    }

    #[test]
    fn kept_pods_are_picked_whatever_their_labels_are() {
        let mut target = PodsTarget { pod_selector: selector(&[("app", "none")]), ..PodsTarget::default() };
        let kept = KeptByTarget::from([("u2", "/pods/u2"), ("u4", "/pods/u4"), ("u9", "/pods/u9")]);
        let pods = Pods { pods: Arc::new(pods().pods[1..].to_vec()), ..pods() };
        let picked = |target: &PodsTarget| pods.pick(target, &kept).map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(picked(&target), ["/pods/u2"], "u4 has no cgroup");
        target.containers = vec!["proxy".into()];
        assert_eq!(picked(&target), ["/pods/u2/u2-2"]);
        assert_eq!(pods.unlisted(&kept).count(), 0, "u9 has no cgroup");
        let unlisted = KeptByTarget::from([("u1", "/pods/u1"), ("u2", "/pods/u2")]);
        assert_eq!(pods.unlisted(&unlisted).collect::<Vec<_>>(), [("u1", "/pods/u1")]);
    }

    #[test]
    fn required_inputs_follow_from_the_targets() {
        let none = RequiredInputs::default();
        let of = |target: AttachTarget| RequiredInputs::of([&target]);
        assert_eq!(of(AttachTarget::AllPods), RequiredInputs { root: true, ..none });
        for other in [AttachTarget::Node, AttachTarget::at("/a"), AttachTarget::on_map("m")] {
            assert_eq!(of(other), none);
        }
        let pods = |edit: fn(&mut PodsTarget)| {
            let mut pods = PodsTarget::default();
            edit(&mut pods);
            of(pods.into())
        };
        assert_eq!(pods(|_| ()), RequiredInputs { pods: true, ..none }, "an empty selector selects single pods too");
        assert_eq!(
            pods(|t| t.namespace_selector = Some(selector(&[(NAMESPACE_NAME, "x")]))),
            RequiredInputs { pods: true, ..none }
        );
        assert!(pods(|t| t.namespace_selector = Some(selector(&[("team", "x")]))).namespaces);
        assert!(pods(|t| t.containers = vec!["a".into()]).containers);
    }

    #[test]
    fn joined_pods_take_labels_from_the_api_server_and_containers_from_both() {
        let pods = pods();
        let reported = |uid: &str| Pod {
            uid: uid.into(),
            labels: labels(&[("app", "new")]),
            containers: labels(&[("9", "late")]),
            ..Pod::default()
        };
        let joined = joined(&pods.pods, &["u1", "u9"].map(|uid| (uid.to_owned(), reported(uid))).into());
        let of = |uid: &str| joined.iter().find(|pod| pod.uid == uid).unwrap();
        assert_eq!((of("u1").labels["app"].as_str(), of("u1").containers.len()), ("web", 3));
        assert_eq!((of("u9").labels["app"].as_str(), joined.len()), ("new", 5));
    }
}
