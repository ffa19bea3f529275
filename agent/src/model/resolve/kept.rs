//! The links that stay at running pods which no target selects any more. Pure.
//!
//! A note on each link names its keeper. A link stays while the revision has that very keeper for its function, and the
//! cgroup lives. So an edit of the target's selectors counts as another target, and whoever relabels a pod changes
//! nothing; also an agent that starts knows which links to keep.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    cgroup_path::highest,
    desired::{Desired, DesiredProgram},
    kernel::Cgroup,
    observed::{LinkKey, Observed},
    pods::{CgroupOwner, Pods},
};

impl Desired {
    /// Returns the paths of the links that stay, if their cgroups live, although no target selects them.
    pub fn kept_paths<'a>(&'a self, observed: &'a Observed) -> BTreeSet<&'a str> {
        self.kept(observed).map(|(_, path, _)| path).collect()
    }

    /// Adds the cgroups of the links that stay although no target selects them. `cgroups` are the cgroups at
    /// [`kept_paths`](Self::kept_paths) that exist.
    pub fn keep(&mut self, observed: &Observed, pods: &Pods, cgroups: &BTreeMap<String, Cgroup>) {
        let lives = |key: &LinkKey, path: &str| {
            cgroups.get(path).is_some_and(|cgroup| *key == LinkKey::at(&key.function, cgroup))
        };
        let kept = self.kept(observed).filter(|(key, path, _)| lives(key, path)).map(|(key, path, keeper)| {
            let owner = CgroupOwner { keeper: Some(keeper.to_owned()), ..pods.owner(path) };
            (key.function.clone(), path.to_owned(), owner)
        });
        let kept: Vec<_> = kept.collect();
        let functions: BTreeSet<String> = kept.iter().map(|(function, ..)| function.clone()).collect();
        for (function, path, owner) in kept {
            self.functions.entry(function).and_modify(|program| drop(program.paths.insert(path, Some(owner))));
        }
        for function in functions {
            self.functions.entry(function).and_modify(|program| program.paths = highest(&program.paths));
        }
    }

    /// Returns the noted links at cgroups that are not desired, whose keeper the revision has, with path and keeper.
    /// Links of a deleted BpfProgram of the same name are none of them. Without the note of the UID, which somebody may
    /// have removed, they are this one's.
    fn kept<'a>(&'a self, observed: &'a Observed) -> impl Iterator<Item = (&'a LinkKey, &'a str, &'a str)> {
        let is_ours = observed.uid.as_ref().is_none_or(|uid| *uid == self.program.uid);
        observed.keepers.iter().filter(move |_| is_ours).filter_map(|(key, keeper)| {
            let DesiredProgram { keepers, paths, .. } = self.functions.get(&key.function)?;
            let path = observed.links.get(key)?.path.as_deref()?;
            (keepers.contains(keeper) && !paths.contains_key(path)).then_some((key, path, keeper.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use sockeye_crds::{
        BpfRevision,
        target::{AttachTarget, PodsTarget, StartPolicy, WhenUnselected},
    };

    use super::*;
    use crate::model::{
        keeper::identity,
        kernel::{LinkInfo, Machine, MissingFeatures},
        node_context::NodeContext,
        observed::ObservedLink,
        pods::{Pod, PodCgroup},
    };

    const CGROUP_ID: u64 = 7;

    fn web() -> PodsTarget {
        let selector = json!({"podSelector": {"matchLabels": {"app": "web"}}});
        let target = serde_json::from_value(selector).unwrap();
        PodsTarget { when_unselected: Some(WhenUnselected::KeepUntilPodEnds), ..target }
    }

    /// A node with one pod, with this label or without.
    fn pods(app: &str) -> Pods {
        let labels = [("app".to_owned(), app.to_owned())].into();
        let pod = Pod { uid: "1".into(), namespace: "shop".into(), name: "web-1".into(), labels, ..Pod::default() };
        let cgroup = PodCgroup { path: "/kubepods/pod1".into(), ..PodCgroup::default() };
        Pods { pods: Arc::new(vec![pod]), cgroups: [("1".to_owned(), cgroup)].into(), ..Pods::default() }
    }

    fn resolved(targets: &[AttachTarget], suspend: bool, pods: &Pods) -> Desired {
        let revision: BpfRevision = BpfRevision::of(
            serde_json::from_value(json!({
                "state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
                "template": {
                    "digest": "sha256:0", "suspend": suspend, "programs": [{"name": "f", "attach": targets}],
                    "object": {"programs": [{"name": "f", "section": "sockops"}]},
                },
            }))
            .unwrap(),
        );
        let node_context = NodeContext {
            machine: Machine { page: 4096, cpus: 2 },
            features: Vec::new(),
            missing_features: MissingFeatures::default(),
            pods_root: "/kubepods".to_owned(),
            pods: pods.clone(),
            has_api: false,
        };
        Desired::new(&revision, &node_context).unwrap()
    }

    /// A link at the pod, made while `keeper` selected it.
    fn observed(keeper: &PodsTarget) -> Observed {
        let cgroup = Cgroup { id: CGROUP_ID, path: "/kubepods/pod1".to_owned() };
        let key = LinkKey::at("f", &cgroup);
        let info = LinkInfo { id: 1, cgroup_id: CGROUP_ID, ..LinkInfo::default() };
        let link = ObservedLink { info, path: Some(cgroup.path), in_effect: true, believed: false, pinned: true };
        Observed {
            uid: Some("u".to_owned()),
            links: [(key.clone(), link)].into(),
            keepers: identity(keeper).map(|keeper| (key, keeper)).into_iter().collect(),
            ..Observed::default()
        }
    }

    fn cgroups(id: u64) -> BTreeMap<String, Cgroup> {
        let path = "/kubepods/pod1".to_owned();
        [(path.clone(), Cgroup { id, path })].into()
    }

    /// The desired paths, with whose links they are.
    fn kept(mut desired: Desired, observed: &Observed, pods: &Pods, cgroup: u64) -> Vec<(String, Option<String>)> {
        desired.keep(observed, pods, &cgroups(cgroup));
        let paths = desired.functions.remove("f").unwrap().paths;
        paths.into_iter().map(|(path, owner)| (path, owner.and_then(|owner| owner.pod))).collect()
    }

    #[test]
    fn a_link_stays_at_a_living_pod_that_was_relabelled() {
        let (selected, relabelled) = (pods("web"), pods("other"));
        let kept_at_pod = [("/kubepods/pod1".to_owned(), Some("shop/web-1".to_owned()))];
        let targets = [web().into()];
        let of = |pods: &Pods, cgroup: u64| kept(resolved(&targets, false, pods), &observed(&web()), pods, cgroup);
        assert_eq!(of(&selected, CGROUP_ID), kept_at_pod, "selected");
        assert_eq!(of(&relabelled, CGROUP_ID), kept_at_pod, "kept");
        assert_eq!(of(&relabelled, 8), [], "its cgroup is gone, and another has its path");
        assert_eq!(of(&Pods::default(), CGROUP_ID).len(), 1, "the pod ends: it is not listed, and its cgroup lives");
    }

    #[test]
    fn a_link_without_its_keeper_does_not_stay() {
        let pods = pods("other");
        let detaching = PodsTarget { when_unselected: None, ..web() };
        let edited = PodsTarget { containers: vec!["app".to_owned()], ..web() };
        let of = |targets: &[AttachTarget], suspend: bool, observed: &Observed| {
            kept(resolved(targets, suspend, &pods), observed, &pods, CGROUP_ID)
        };
        for targets in [vec![detaching.clone().into()], vec![edited.into()], vec![AttachTarget::at("/a/b")]] {
            let paths = of(&targets, false, &observed(&web()));
            assert!(paths.iter().all(|(path, _)| path != "/kubepods/pod1"), "{targets:?}");
        }
        assert_eq!(of(&[web().into()], true, &observed(&web())), [], "suspended");
        assert_eq!(of(&[web().into()], false, &observed(&detaching)), [], "made while nothing was kept");
        let unclaimed = Observed { uid: None, ..observed(&web()) };
        assert_eq!(of(&[web().into()], false, &unclaimed).len(), 1, "the note of the UID was removed");
        let of_another = Observed { uid: Some("before".to_owned()), ..observed(&web()) };
        assert_eq!(of(&[web().into()], false, &of_another), [], "of a deleted BpfProgram of the same name");
    }

    #[test]
    fn what_covers_the_pod_takes_the_place_of_a_kept_link() {
        let pods = pods("other");
        let targets = [web().into(), AttachTarget::AllPods];
        let paths = kept(resolved(&targets, false, &pods), &observed(&web()), &pods, CGROUP_ID);
        assert_eq!(paths, [("/kubepods".to_owned(), None)], "the program would run twice in the pod");
    }

    #[test]
    fn a_keepers_identity_is_that_of_its_selectors() {
        let id = |edit: fn(&mut PodsTarget)| {
            let mut target = web();
            edit(&mut target);
            identity(&target)
        };
        let same = id(|_| ());
        assert_eq!(same.as_ref().map(String::len), Some(16));
        assert_eq!(id(|target| target.start_policy = Some(StartPolicy::Immediate)), same);
        assert_ne!(id(|target| target.namespace_selector = Some(Default::default())), same);
        assert_ne!(id(|target| target.pod_selector = Default::default()), same);
        assert_eq!(id(|target| target.when_unselected = Some(WhenUnselected::Detach)), None);
    }
}
