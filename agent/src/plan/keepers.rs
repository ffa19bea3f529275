//! The notes of links' keepers: each is there before its link, and goes with it. Pure.

use std::collections::BTreeSet;

use super::{desired_attachments::Attachment, step::Step};
use crate::model::observed::{LinkKey, Observed};

/// Notes the keepers of attachments; before these are made, so that an agent that is killed in between leaves no link
/// that the next one would not keep.
pub(super) fn note(attachments: &[Attachment<'_>], observed: &Observed) -> Vec<Step> {
    let kept = attachments.iter().filter_map(|Attachment { key, keeper, .. }| Some((key, (*keeper)?)));
    let new = kept.filter(|(key, keeper)| observed.keepers.get(*key).is_none_or(|noted| noted != keeper));
    new.map(|(key, keeper)| Step::SetKeeper { key: key.clone(), keeper: Some(keeper.to_owned()) }).collect()
}

/// Forgets the keepers of links that have none any more. With a link that is detached its keeper is forgotten, so that
/// only links that stay, and those that are not there, are left: `stays` says which stay.
pub(super) fn forget(observed: &Observed, kept: &BTreeSet<LinkKey>, stays: impl Fn(&LinkKey) -> bool) -> Vec<Step> {
    let noted = observed.keepers.keys().filter(|key| !kept.contains(*key));
    let forgotten = noted.filter(|key| stays(key) || !observed.links.contains_key(*key));
    forgotten.map(|key| Step::SetKeeper { key: key.clone(), keeper: None }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sockeye_crds::revision::ProgramRef;

    use super::*;
    use crate::{
        model::{
            desired::{Desired, DesiredProgram},
            kernel::{Cgroup, LinkInfo, ProgramInfo, ProgramKind},
            observed::{AttachSite, ObservedLink, ObservedProgram},
            pods::CgroupOwner,
        },
        plan::{context::PlanContext, plan},
    };

    fn pod() -> Cgroup {
        Cgroup { id: 7, path: "/kubepods/pod1".to_owned() }
    }

    fn key() -> LinkKey {
        LinkKey::at("f", &pod())
    }

    /// One function, attached to a pod with this keeper, or to none.
    fn desired(load_key: &str, keeper: Option<Option<&str>>) -> Desired {
        let owner = |keeper: Option<&str>| CgroupOwner { keeper: keeper.map(str::to_owned), ..CgroupOwner::default() };
        let function = DesiredProgram {
            kind: ProgramKind { prog_type: 13, attach_type: 3 },
            paths: keeper.map(|keeper| (pod().path, Some(owner(keeper)))).into_iter().collect(),
            keepers: BTreeSet::new(),
            maps: BTreeSet::new(),
            can_cut_off: false,
        };
        Desired {
            program: ProgramRef { name: "p".to_owned(), uid: "u".to_owned() },
            revision: "p-1".to_owned(),
            load_key: load_key.to_owned(),
            digest: String::new(),
            functions: [("f".to_owned(), function)].into(),
            maps: BTreeMap::new(),
            attaches_to_maps: false,
            globals: BTreeMap::new(),
            settings: Vec::new(),
            priority: 500,
            unordered: false,
            suspended: false,
        }
    }

    /// The revision, loaded as "old", with or without its link at the pod, and with this note of a keeper.
    fn observed(attached: bool, keeper: Option<&str>) -> Observed {
        let info = ProgramInfo { id: 1, ..ProgramInfo::default() };
        let function = ObservedProgram { info, load_key: Some("old".to_owned()), pinned: true };
        let info = LinkInfo { id: 2, program_id: 1, cgroup_id: 7, attach_type: 3, ..LinkInfo::default() };
        let link = ObservedLink { info, path: Some(pod().path), in_effect: true, believed: false, pinned: true };
        Observed {
            uid: Some("u".to_owned()),
            revision: Some("p-1".to_owned()),
            functions: [("f".to_owned(), function)].into(),
            links: attached.then(|| (key(), link)).into_iter().collect(),
            keepers: keeper.map(|keeper| (key(), keeper.to_owned())).into_iter().collect(),
            ..Observed::default()
        }
    }

    fn steps(desired: Option<&Desired>, observed: &Observed) -> Vec<Step> {
        let cgroups = [(pod().path, pod())].into();
        plan(desired, observed, &PlanContext { cgroups, ..PlanContext::default() }).unwrap()
    }

    fn set(keeper: Option<&str>) -> Step {
        Step::SetKeeper { key: key(), keeper: keeper.map(str::to_owned) }
    }

    #[test]
    fn a_keeper_is_noted_before_its_link_is_made() {
        let attach = Step::Attach { function: "f".to_owned(), site: AttachSite::Cgroup(pod()), before: None };
        let selected = desired("old", Some(Some("k")));
        assert_eq!(steps(Some(&selected), &observed(false, None)), [set(Some("k")), attach.clone()]);
        // The agent before this one was killed in between.
        assert_eq!(steps(Some(&selected), &observed(false, Some("k"))), [attach]);
        assert_eq!(steps(Some(&selected), &observed(true, Some("k"))), []);
        assert_eq!(steps(Some(&selected), &observed(true, Some("another"))), [set(Some("k"))]);
        assert_eq!(steps(Some(&selected), &observed(true, None)), [set(Some("k"))], "the target did not keep before");
    }

    #[test]
    fn a_kept_link_is_updated_as_any_other() {
        let steps = steps(Some(&desired("new", Some(Some("k")))), &observed(true, Some("k")));
        assert!(steps.contains(&Step::Update(key())) && !steps.contains(&Step::Detach(key())), "{steps:?}");
    }

    #[test]
    fn a_note_goes_with_its_keeper_or_its_link() {
        let selected_only = desired("old", Some(None));
        assert_eq!(steps(Some(&selected_only), &observed(true, Some("k"))), [set(None)]);
        let nowhere = desired("old", None);
        assert_eq!(steps(Some(&nowhere), &observed(true, Some("k"))), [Step::Detach(key())]);
        assert_eq!(steps(Some(&nowhere), &observed(false, Some("k"))), [set(None)], "a killed agent left it");
        let gone = steps(None, &observed(false, Some("k")));
        assert!(gone.contains(&set(None)) && gone.last() == Some(&Step::Leave), "{gone:?}");
    }
}
