//! Resolution of kept pods: the pods that keepers select or go on selecting. Pure.
//!
//! A pod is kept from the moment when a keeper selects it and its cgroup exists, until it is neither listed nor has a
//! cgroup. While it is not known which pods exist, those stay that were kept before. An edit of a target's selectors
//! makes another keeper, which keeps none of the former one's pods.

use std::collections::BTreeMap;

use sockeye_crds::{BpfRevisionSpec, target::PodsTarget};

use super::inputs::Inputs;
use crate::model::{desired::Desired, keeper, kept_pod::KeptPod, node_context::NodeContext, observed::Observed};

impl Desired {
    /// Keeps the notes of pods that the keepers of another revision of the BpfProgram go on selecting.
    pub fn keep_noted(&mut self, spec: &BpfRevisionSpec, node_context: &NodeContext, observed: &Observed) {
        let kept = resolve(&Inputs { spec, node_context, observed });
        self.kept_pods.extend(kept.into_iter().filter(|(pod, _)| observed.kept_pods.contains_key(pod)));
    }
}

/// Returns the kept pods of a revision's keepers, suspended or not, each with the path of its cgroup.
pub(super) fn resolve(inputs: &Inputs<'_>) -> BTreeMap<KeptPod, String> {
    let targets = inputs.spec.template.pods_targets();
    targets.filter_map(|target| Some(kept_by(target, &keeper::identity(target)?, inputs))).flatten().collect()
}

fn kept_by(target: &PodsTarget, keeper: &str, inputs: &Inputs<'_>) -> Vec<(KeptPod, String)> {
    let pods = &inputs.node_context.pods;
    let kept = inputs.observed.kept_by(&inputs.spec.program_ref.uid, target);
    if !pods.complete {
        let noted = kept.into_iter();
        return noted.filter_map(|(uid, path)| Some((KeptPod::new(keeper, uid)?, path.to_owned()))).collect();
    }
    let listed = pods.selected(target, &kept).map(|pod| pod.uid.as_str());
    let with_path = |uid: &str| {
        // A listed pod that has ended may have no cgroup any more.
        let path = pods.cgroups.get(uid).map(|cgroup| cgroup.path.as_str()).or_else(|| kept.get(uid).copied())?;
        Some((KeptPod::new(keeper, uid)?, path.to_owned()))
    };
    listed.chain(pods.unlisted(&kept).map(|(uid, _)| uid)).filter_map(with_path).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use sockeye_crds::BpfRevision;

    use crate::model::{
        desired::{Desired, DesiredProgram},
        kept_pod::KeptPod,
        kernel::{Cgroup, LinkInfo},
        node_context::NodeContext,
        observed::{LinkKey, Observed, ObservedKeptPod, ObservedLink},
        pods::{Labels, Pod, PodCgroup, Pods},
        resolve::tests::{node_context, revision},
    };

    const UID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    const POD: &str = "/kubepods/pod1";
    /// The container `app`, before and after its restart.
    const APP: [&str; 2] = ["/kubepods/pod1/app-1", "/kubepods/pod1/app-2"];
    const PROXY: &str = "/kubepods/pod1/proxy-1";
    const GUARDED: [(&str, &str); 1] = [("egress", "guarded")];
    const AUDITED: [(&str, &str); 1] = [("audit", "yes")];

    /// A BpfProgram on a node with one pod, and what it has there.
    struct Scene {
        functions: Vec<&'static str>,
        targets: Vec<Value>,
        suspend: bool,
        context: NodeContext,
        observed: Observed,
    }

    /// The target of the pods with a label, or of one container of them.
    fn target(label: (&str, &str), containers: &[&str], when_unselected: &str) -> Value {
        let mut pods = json!({"podSelector": {"matchLabels": {label.0: label.1}}, "whenUnselected": when_unselected});
        if !containers.is_empty() {
            pods["containers"] = json!(containers);
        }
        json!({"type": "Pods", "pods": pods})
    }

    fn keeper(containers: &[&str]) -> Value {
        target(GUARDED[0], containers, "KeepUntilPodEnds")
    }

    fn audit(containers: &[&str]) -> Value {
        target(AUDITED[0], containers, "Detach")
    }

    fn scene(targets: &[Value]) -> Scene {
        let containers = [("app-1", "app"), ("proxy-1", "proxy")].map(|(id, name)| (id.to_owned(), name.to_owned()));
        let pod = Pod { uid: UID.into(), namespace: "shop".into(), name: "web-1".into(), ..Pod::default() };
        let pod = Pod { labels: labels(&GUARDED), containers: containers.into(), ..pod };
        let containers = [("app-1", APP[0]), ("proxy-1", PROXY)].map(|(id, path)| (id.to_owned(), path.to_owned()));
        let cgroup = PodCgroup { path: POD.to_owned(), containers: containers.into() };
        let pods = Pods {
            pods: Arc::new(vec![pod]),
            cgroups: [(UID.to_owned(), cgroup)].into(),
            complete: true,
            ..Pods::default()
        };
        Scene {
            functions: vec!["f"],
            targets: targets.to_vec(),
            suspend: false,
            context: NodeContext { pods, ..node_context() },
            observed: Observed::default(),
        }
    }

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    impl Scene {
        fn desired(&self) -> Desired {
            Desired::new(&self.revision(), &self.context, &self.observed).unwrap()
        }

        fn revision(&self) -> BpfRevision {
            let attach = |name: &&str| json!({"name": name, "attach": self.targets});
            let info = |name: &&str| json!({"name": name, "section": "sockops"});
            revision(&json!({
                "suspend": self.suspend,
                "programs": self.functions.iter().map(attach).collect::<Vec<_>>(),
                "object": {"programs": self.functions.iter().map(info).collect::<Vec<_>>()},
            }))
        }

        /// Brings the node to what is desired, as a plan does; returns where each function is attached.
        fn settle(&mut self) -> Vec<(String, Vec<String>)> {
            let desired = self.desired();
            let paths = |program: &DesiredProgram| program.paths.keys().cloned().collect();
            let attached: Vec<(String, Vec<String>)> =
                desired.functions.iter().map(|(function, program)| (function.clone(), paths(program))).collect();
            let noted = |(pod, path): (KeptPod, String)| (pod, ObservedKeptPod { path, noted: true });
            let links = attached.iter().flat_map(|(function, paths)| paths.iter().map(|path| link(function, path)));
            self.observed = Observed {
                uid: Some("u".to_owned()),
                links: links.collect(),
                kept_pods: desired.kept_pods.into_iter().map(noted).collect(),
                ..Observed::default()
            };
            attached
        }

        /// Returns where function f is attached once the node is brought to what is desired.
        fn paths(&mut self) -> Vec<String> {
            self.settle().into_iter().find(|(function, _)| function == "f").map(|(_, paths)| paths).unwrap_or_default()
        }

        fn relabel(&mut self, to: &[(&str, &str)]) {
            Arc::make_mut(&mut self.context.pods.pods)[0].labels = labels(to);
        }

        fn cgroup(&mut self) -> &mut PodCgroup {
            self.context.pods.cgroups.get_mut(UID).unwrap()
        }

        /// Restarts container `app`: the new one has another ID and another cgroup.
        fn restart(&mut self) {
            let containers = &mut self.cgroup().containers;
            containers.remove("app-1");
            containers.insert("app-2".to_owned(), APP[1].to_owned());
            let pod = &mut Arc::make_mut(&mut self.context.pods.pods)[0];
            pod.containers.remove("app-1");
            pod.containers.insert("app-2".to_owned(), "app".to_owned());
        }

        /// Takes the pod off the API server's list; its cgroup lives on.
        fn delete_by_force(&mut self) {
            self.context.pods.pods = Arc::default();
        }

        fn kept(&self) -> usize {
            self.observed.kept_pods.len()
        }
    }

    fn link(function: &str, path: &str) -> (LinkKey, ObservedLink) {
        let cgroup = Cgroup { id: path.len() as u64, path: path.to_owned() };
        let info = LinkInfo { id: 1, ..LinkInfo::default() };
        let path = Some(cgroup.path.clone());
        (LinkKey::at(function, &cgroup), ObservedLink { info, path, in_effect: true, believed: false, pinned: true })
    }

    #[test]
    fn a_relabelled_pod_stays_selected_until_it_ends() {
        let mut scene = scene(&[keeper(&[])]);
        assert_eq!((scene.paths(), scene.kept()), (vec![POD.to_owned()], 1));
        let owner = |scene: &Scene| scene.desired().functions["f"].paths[POD].clone().unwrap().pod;
        scene.relabel(&[]);
        assert_eq!((scene.paths(), scene.kept()), (vec![POD.to_owned()], 1));
        assert_eq!(owner(&scene).as_deref(), Some("shop/web-1"));
        scene.delete_by_force();
        assert_eq!((scene.paths(), scene.kept()), (vec![POD.to_owned()], 1), "its cgroup lives");
        assert_eq!(owner(&scene), None);
        scene.context.pods.cgroups.clear();
        assert_eq!((scene.paths(), scene.kept()), (vec![], 0), "the pod has ended");
    }

    #[test]
    fn a_pod_that_never_ran_while_it_was_selected_is_not_kept() {
        let mut scene = scene(&[keeper(&[])]);
        let cgroups = std::mem::take(&mut scene.context.pods.cgroups);
        assert_eq!((scene.paths(), scene.kept()), (vec![], 0));
        scene.relabel(&[]);
        scene.context.pods.cgroups = cgroups;
        assert_eq!(scene.paths(), Vec::<String>::new());
        scene.relabel(&GUARDED);
        assert_eq!((scene.paths(), scene.kept()), (vec![POD.to_owned()], 1));
        scene.context.pods.cgroups.clear();
        scene.relabel(&[]);
        assert_eq!((scene.paths(), scene.kept()), (vec![], 1), "a listed pod has not ended");
        scene.delete_by_force();
        assert_eq!((scene.paths(), scene.kept()), (vec![], 0));
    }

    #[test]
    fn two_relabels_past_another_target_take_no_guard_off() {
        for (keeper, attached) in [(keeper(&[]), POD), (keeper(&["app"]), APP[0])] {
            for audit in [audit(&[]), audit(&["app"])] {
                let mut scene = scene(&[keeper.clone(), audit]);
                assert_eq!(scene.paths(), [attached]);
                scene.relabel(&AUDITED);
                let covering = scene.paths();
                assert!(covering == [attached] || covering == [POD], "{covering:?}");
                scene.relabel(&[]);
                assert_eq!(scene.paths(), [attached]);
            }
        }
    }

    #[test]
    fn a_restarted_container_of_a_relabelled_pod_is_selected() {
        let mut scene = scene(&[keeper(&["app"])]);
        assert_eq!(scene.paths(), [APP[0]]);
        scene.relabel(&[]);
        assert_eq!(scene.paths(), [APP[0]]);
        scene.restart();
        assert_eq!(scene.paths(), [APP[1]]);
    }

    #[test]
    fn what_was_detached_is_attached_to_relabelled_pods_again() {
        let mut scene = scene(&[keeper(&[])]);
        scene.settle();
        scene.relabel(&[]);
        // A kill switch takes the links off.
        scene.observed.links.clear();
        assert_eq!(scene.paths(), [POD]);
        scene.suspend = true;
        assert_eq!((scene.paths(), scene.kept()), (vec![], 1), "spec.suspend keeps the notes");
        scene.suspend = false;
        assert_eq!(scene.paths(), [POD]);
    }

    #[test]
    fn a_pod_that_is_relabelled_while_the_program_is_suspended_is_kept() {
        let mut scene = scene(&[keeper(&[])]);
        scene.suspend = true;
        assert_eq!((scene.paths(), scene.kept()), (vec![], 1));
        scene.relabel(&[]);
        scene.suspend = false;
        assert_eq!(scene.paths(), [POD]);
    }

    #[test]
    fn kept_pods_stay_while_it_is_not_known_which_pods_exist() {
        let mut scene = scene(&[keeper(&[])]);
        scene.settle();
        scene.relabel(&[]);
        scene.suspend = true;
        let pods = std::mem::take(&mut scene.context.pods);
        assert_eq!((scene.paths(), scene.kept()), (vec![], 1));
        scene.context.pods = pods;
        scene.suspend = false;
        assert_eq!(scene.paths(), [POD]);
    }

    #[test]
    fn functions_that_an_edit_adds_reach_relabelled_pods() {
        let mut scene = scene(&[keeper(&[])]);
        scene.settle();
        scene.relabel(&[]);
        scene.functions = vec!["f", "g", "renamed"];
        let attached = scene.settle();
        assert!(attached.len() == 3 && attached.iter().all(|(_, paths)| *paths == [POD]), "{attached:?}");
        assert_eq!(scene.kept(), 1, "one note for all functions");
    }

    #[test]
    fn within_a_pod_that_is_no_longer_listed_links_stay() {
        let mut scene = scene(&[keeper(&["app"])]);
        scene.functions.push("g");
        scene.settle();
        scene.observed.links.extend([link("other", PROXY), link("f", "/elsewhere")]);
        scene.delete_by_force();
        let stays = vec![APP[0].to_owned()];
        assert_eq!(scene.settle(), [("f".to_owned(), stays.clone()), ("g".to_owned(), stays)]);
        // Another target's link at the whole pod covers the containers.
        let mut scene = self::scene(&[keeper(&["app"]), audit(&[])]);
        scene.relabel(&[GUARDED[0], AUDITED[0]]);
        assert_eq!(scene.paths(), [POD]);
        scene.delete_by_force();
        assert_eq!(scene.paths(), [POD]);
    }

    #[test]
    fn an_edit_of_the_keeper_ends_the_keeping() {
        let edited = json!({"type": "Pods", "pods": {
            "podSelector": {"matchLabels": {"egress": "strictly-guarded"}}, "whenUnselected": "KeepUntilPodEnds",
        }});
        let detaching = target(GUARDED[0], &[], "Detach");
        for targets in [vec![edited], vec![detaching], vec![json!({"type": "CgroupPath", "cgroupPath": "/a"})]] {
            let mut scene = scene(&[keeper(&[])]);
            scene.settle();
            scene.relabel(&[]);
            scene.targets = targets;
            let paths = scene.paths();
            assert!(!paths.contains(&POD.to_owned()) && scene.kept() == 0, "{paths:?}");
        }
    }

    #[test]
    fn another_revisions_kept_pods_stay_noted_without_being_selected() {
        let mut scene = scene(&[keeper(&[])]);
        let assigned = scene.revision();
        scene.targets = vec![audit(&[])];
        let mut known_good = scene.desired();
        known_good.keep_noted(&assigned.spec, &scene.context, &scene.observed);
        assert_eq!(known_good.kept_pods.len(), 0, "nothing is noted yet");
        scene.targets = vec![keeper(&[])];
        scene.settle();
        scene.relabel(&[]);
        scene.targets = vec![audit(&[])];
        let mut known_good = scene.desired();
        known_good.keep_noted(&assigned.spec, &scene.context, &scene.observed);
        assert_eq!((known_good.kept_pods.len(), known_good.paths().len()), (1, 0));
    }

    #[test]
    fn notes_of_a_deleted_bpfprogram_of_the_same_name_do_not_count() {
        let mut scene = scene(&[keeper(&[])]);
        scene.settle();
        scene.relabel(&[]);
        scene.observed.uid = None;
        assert_eq!(scene.desired().functions["f"].paths.len(), 1, "the note of the UID was removed");
        scene.observed.uid = Some("before".to_owned());
        assert_eq!((scene.paths(), scene.kept()), (vec![], 0));
    }

    #[test]
    fn a_cgroup_above_takes_the_place_of_a_kept_pods() {
        let mut scene = scene(&[keeper(&[]), json!({"type": "AllPods"})]);
        assert_eq!((scene.paths(), scene.kept()), (vec!["/kubepods".to_owned()], 1));
        scene.relabel(&[]);
        assert_eq!(scene.paths(), ["/kubepods"], "the program would run twice in the pod");
        scene.targets.pop();
        assert_eq!(scene.paths(), [POD]);
    }

    #[test]
    fn a_uid_that_can_be_no_name_is_selected_and_not_noted() {
        let mut scene = scene(&[keeper(&[])]);
        Arc::make_mut(&mut scene.context.pods.pods)[0].uid = "../../x".to_owned();
        let cgroup = scene.context.pods.cgroups.remove(UID).unwrap();
        scene.context.pods.cgroups.insert("../../x".to_owned(), cgroup);
        assert_eq!((scene.paths(), scene.kept()), (vec![POD.to_owned()], 0));
    }
}
