//! `Assignment`: what a node is to run, and what is known of its pods. Values.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::{BpfRevision, Reason, Refusal, program::Format};

use super::{
    pods::{Labels, Pod, RequiredInputs},
    refused,
};

/// A revision that was in effect on the node when its BpfNode was written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRevision {
    /// The BpfProgram's UID.
    pub uid: String,
    /// The revision's name.
    pub revision: String,
}

/// A revision that can't be read, as a newer operator may write it. Its BpfProgram keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRevision {
    /// The revision's name; absent where there is none, as of a manifest that was never accepted.
    pub name: Option<String>,
    /// The UID of the BpfProgram that owns it.
    pub uid: Option<String>,
    /// The reason, as the node reports it.
    pub why: Refusal,
}

/// What a node is to run.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The revision to run, by BpfProgram.
    pub revisions: BTreeMap<String, Arc<BpfRevision>>,
    /// The revisions that can't be read, by BpfProgram.
    pub unreadable: BTreeMap<String, UnreadableRevision>,
    /// Whether a BpfProgram that is not named is to have nothing on the node. Otherwise it keeps what it has.
    pub complete: bool,
    /// The node's pods; absent until they have been listed.
    pub pods: Option<Arc<Vec<Pod>>>,
    /// The labels of namespaces, by name; absent until they have been listed.
    pub namespaces: Option<Arc<BTreeMap<String, Labels>>>,
    /// The revisions in effect according to the BpfNode when this agent started, by BpfProgram: a node that was
    /// rebooted since has no notes of them.
    pub reported: Arc<BTreeMap<String, ReportedRevision>>,
    /// The objects that are at hand, by digest. All others are fetched when a load needs them.
    pub objects: BTreeMap<String, Arc<[u8]>>,
}

impl Assignment {
    /// Returns what must be known of pods to work out the targets of all revisions.
    pub fn required_inputs(&self) -> RequiredInputs {
        RequiredInputs::of(self.revisions.values().flat_map(|revision| revision.spec.template.targets()))
    }

    /// Returns whether any revision has a stream that shows pods' names, or a map that counts what it refuses them.
    /// It does without where they are not known.
    pub fn names_pods(&self) -> bool {
        let mut objects = self.revisions.values().map(|revision| &revision.spec.template.object);
        if objects.any(|object| object.maps.iter().any(|map| map.name == refused::COUNTS)) {
            return true;
        }
        let streams = self.revisions.values().flat_map(|revision| &revision.spec.template.maps);
        let mut streams = streams.filter_map(|map| map.stream.as_ref()).filter(|stream| stream.is_agents());
        streams.any(|stream| stream.fields.iter().any(|field| field.format == Format::Pod))
    }

    /// Returns whether the assignment says what a BpfProgram is to have here, be it nothing.
    pub fn knows(&self, name: &str) -> bool {
        !self.unreadable.contains_key(name) && (self.complete || self.revisions.contains_key(name))
    }

    /// Returns whether another assignment differs from this one at most in revisions, and in what is known of pods.
    pub fn knows_like(&self, other: &Self) -> bool {
        self.complete == other.complete && self.unreadable == other.unreadable
    }

    /// Returns the BpfPrograms whose revision is another one in another assignment. Both are sorted by name, so that
    /// one walk along both finds them.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let (mut ours, mut theirs) = (self.revisions.iter().peekable(), other.revisions.iter().peekable());
        let mut names = Vec::new();
        loop {
            let name = match (ours.peek().copied(), theirs.peek().copied()) {
                (None, None) => return names,
                (Some((name, _)), None) | (None, Some((name, _))) => name.as_str(),
                (Some((name, one)), Some((other_name, other))) if name == other_name => {
                    let is_same = Arc::ptr_eq(one, other);
                    ours.next();
                    theirs.next();
                    names.extend((!is_same).then_some(name.as_str()));
                    continue;
                }
                (Some((name, _)), Some((other_name, _))) => name.min(other_name).as_str(),
            };
            names.push(name);
            let _ = ours.next_if(|(next, _)| *next == name);
            let _ = theirs.next_if(|(next, _)| *next == name);
        }
    }

    /// Returns whether no BpfProgram has to be frozen, given what must be known of pods.
    pub fn knows_all(&self, required: RequiredInputs) -> bool {
        self.unreadable.is_empty() && self.complete && self.unknown_inputs(required).is_none()
    }

    /// Returns why a BpfProgram is to be left as it is, if it is; `required` is what its targets ask for.
    pub fn freeze_reason(&self, name: &str, required: RequiredInputs) -> Option<Refusal> {
        if let Some(unreadable) = self.unreadable.get(name) {
            return Some(unreadable.why.clone());
        }
        let unread = || {
            "not everything that is desired on this node could be read, so that the agent changes nothing: upgrade the \
             agents to the operator's version"
                .to_owned()
        };
        let message = if self.knows(name) { self.unknown_inputs(required)? } else { unread() };
        Some(Refusal { reason: Reason::InputsUnavailable, message })
    }

    /// Returns which of the required inputs are unknown for now, in words.
    pub fn unknown_inputs(&self, required: RequiredInputs) -> Option<String> {
        let missing = match (required.pods && self.pods.is_none(), required.namespaces && self.namespaces.is_none()) {
            (true, _) => "this node's pods",
            (_, true) => "namespaces",
            _ => return None,
        };
        Some(format!(
            "{missing} can't be listed, so that it is not known which pods are selected: the agent's log says why (the \
             chart's agent.podTargets grants the right; without a cluster, --pods names a list)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn what_differs_is_what_a_look_at_each_name_finds(
            names in prop::collection::vec((0..3_usize, 0..3_usize), 8)
        ) {
            let template = json!({"digest": "", "object": {"programs": []}, "programs": []});
            let spec = json!({
                "state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
                "template": template,
            });
            let spec: sockeye_crds::BpfRevisionSpec = serde_json::from_value(spec).unwrap();
            let revisions = [0, 1].map(|_| Arc::new(BpfRevision::of(spec.clone())));
            let assignment = |which: fn(&(usize, usize)) -> usize| {
                let named = names.iter().enumerate();
                let named = named.filter_map(|(i, of)| Some((format!("p{i}"), Arc::clone(revisions.get(which(of))?))));
                Assignment { revisions: named.collect(), ..Assignment::default() }
            };
            let (before, now) = (assignment(|of| of.0), assignment(|of| of.1));
            let differ = names.iter().enumerate().filter(|(_, (before, now))| before != now);
            let differ: BTreeSet<String> = differ.map(|(i, _)| format!("p{i}")).collect();
            let found = before.differing(&now);
            prop_assert_eq!(found.len(), differ.len());
            prop_assert_eq!(found.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), differ);
        }
    }
}
