//! The notes of kept pods: each is there before anything is attached to its pod. Pure.

use super::step::Step;
use crate::model::{
    desired::Desired,
    observed::{Observed, ObservedKeptPod},
};

/// Notes kept pods; before anything is attached to them, so that an agent that is killed in between leaves no link that
/// the next one would not keep.
pub(super) fn note<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    let is_noted = |path: &str, noted: &ObservedKeptPod| noted.noted && noted.path == path;
    let new = desired
        .kept_pods
        .iter()
        .filter(move |(pod, path)| observed.kept_pods.get(*pod).is_none_or(|noted| !is_noted(path, noted)));
    new.map(|(pod, path)| Step::KeepPod { pod: pod.clone(), path: path.clone() })
}

/// Removes the notes of pods that have ended, and of keepers that the revision does not have; after the links are
/// detached.
pub(super) fn forget<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    let gone = observed.kept_pods.keys().filter(|pod| !desired.kept_pods.contains_key(*pod));
    gone.cloned().map(Step::ForgetPod)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sockeye_crds::revision::ProgramRef;

    use super::*;
    use crate::{
        model::{
            desired::DesiredProgram,
            kept_pod::KeptPod,
            kernel::{Cgroup, LinkInfo, ProgramInfo, ProgramKind},
            observed::{AttachSite, LinkKey, ObservedLink, ObservedProgram},
            pods::CgroupOwner,
        },
        plan::{context::PlanContext, detach, plan, revert},
    };

    fn cgroup() -> Cgroup {
        Cgroup { id: 7, path: "/kubepods/pod1".to_owned() }
    }

    fn link() -> LinkKey {
        LinkKey::at("f", &cgroup())
    }

    fn pod() -> KeptPod {
        KeptPod::new("0123456789abcdef", "1").unwrap()
    }

    /// One function, which is attached to the pod or suspended; the pod is kept or not.
    fn desired(attached: bool, kept: bool) -> Desired {
        let function = DesiredProgram {
            kind: ProgramKind { prog_type: 13, attach_type: 3 },
            paths: attached.then(|| (cgroup().path, Some(CgroupOwner::default()))).into_iter().collect(),
            maps: BTreeSet::new(),
            can_cut_off: false,
            passes_only: false,
        };
        Desired {
            program: ProgramRef { name: "p".to_owned(), uid: "u".to_owned() },
            revision: "p-1".to_owned(),
            load_key: "old".to_owned(),
            digest: String::new(),
            origin: Default::default(),
            functions: [("f".to_owned(), function)].into(),
            maps: BTreeMap::new(),
            kept_pods: kept.then(|| (pod(), cgroup().path)).into_iter().collect(),
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended: !attached,
            force_detach: false,
        }
    }

    /// The revision, loaded as "old", with or without its link at the pod; the pod is noted, remembered or neither.
    fn observed(attached: bool, noted: Option<bool>) -> Observed {
        let info = ProgramInfo { id: 1, ..ProgramInfo::default() };
        let function = ObservedProgram { info, load_key: Some("old".to_owned()), pinned: true };
        let info = LinkInfo { id: 2, program_id: 1, cgroup_id: 7, attach_type: 3, ..LinkInfo::default() };
        let made = ObservedLink { info, path: Some(cgroup().path), in_effect: true, believed: false, pinned: true };
        let kept = |noted| (pod(), ObservedKeptPod { path: cgroup().path, noted });
        Observed {
            uid: Some("u".to_owned()),
            revision: Some("p-1".to_owned()),
            functions: [("f".to_owned(), function)].into(),
            links: attached.then(|| (link(), made)).into_iter().collect(),
            kept_pods: noted.map(kept).into_iter().collect(),
            ..Observed::default()
        }
    }

    fn steps(desired: Option<&Desired>, observed: &Observed) -> Vec<Step> {
        let cgroups = [(cgroup().path, cgroup())].into();
        plan(desired, observed, &PlanContext { cgroups, ..PlanContext::default() }).unwrap()
    }

    fn keep() -> Step {
        Step::KeepPod { pod: pod(), path: cgroup().path }
    }

    #[test]
    fn a_pod_is_noted_before_anything_is_attached_to_it() {
        let attach = Step::Attach { function: "f".to_owned(), site: AttachSite::Cgroup(cgroup()), before: Vec::new() };
        let kept = desired(true, true);
        assert_eq!(steps(Some(&kept), &observed(false, None)), [keep(), attach.clone()]);
        // The agent before this one was killed in between.
        assert_eq!(steps(Some(&kept), &observed(false, Some(true))), [attach]);
        assert_eq!(steps(Some(&kept), &observed(true, Some(true))), []);
        assert_eq!(steps(Some(&kept), &observed(true, None)), [keep()], "the target did not keep before");
        assert_eq!(steps(Some(&kept), &observed(true, Some(false))), [keep()], "somebody removed the note");
        let mut moved = observed(true, Some(true));
        moved.kept_pods.values_mut().for_each(|noted| noted.path = "/kubepods.slice/pod1".to_owned());
        assert_eq!(steps(Some(&kept), &moved), [keep()], "somebody changed it, or the cgroup has another path");
    }

    #[test]
    fn a_pod_is_forgotten_after_its_links_are_detached() {
        let forget = Step::ForgetPod(pod());
        assert_eq!(steps(Some(&desired(true, false)), &observed(true, Some(true))), std::slice::from_ref(&forget));
        let nowhere = Desired { suspended: false, ..desired(false, false) };
        assert_eq!(steps(Some(&nowhere), &observed(true, Some(true))), [Step::Detach(link()), forget.clone()]);
        assert_eq!(steps(Some(&nowhere), &observed(false, Some(false))), [forget]);
    }

    #[test]
    fn notes_stay_while_everything_is_detached() {
        let attached = observed(true, Some(true));
        assert_eq!(steps(Some(&desired(false, true)), &attached), [Step::Detach(link())], "spec.suspend");
        assert_eq!(detach(&attached), [Step::Detach(link())], "the kill switch");
        assert_eq!(revert(&attached), [Step::Detach(link())], "a revert without a predecessor");
    }

    #[test]
    fn all_notes_go_with_the_bpfprogram() {
        let gone = steps(None, &observed(false, Some(true)));
        assert!(gone.contains(&Step::ForgetPod(pod())) && gone.last() == Some(&Step::Leave), "{gone:?}");
        let mut recreated = desired(true, false);
        recreated.program.uid = "another".to_owned();
        let steps = steps(Some(&recreated), &observed(true, Some(true)));
        let at = |step: &Step| steps.iter().position(|other| other == step).unwrap();
        let claim = at(&Step::Claim { uid: "another".to_owned() });
        assert!(at(&Step::Detach(link())) < at(&Step::ForgetPod(pod())) && at(&Step::ForgetPod(pod())) < claim);
    }
}
