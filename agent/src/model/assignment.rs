//! `Assignment`: what a node is to run, and what is known of its pods. Values.

use std::{collections::BTreeMap, sync::Arc};

use sockeye_crds::{BpfRevision, Reason, Refusal};

use super::pods::{Labels, Pod, RequiredInputs};

/// A revision that was in effect on the node when its BpfNode was written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRevision {
    /// The BpfProgram's UID.
    pub uid: String,
    /// The revision's name.
    pub revision: String,
}

/// What a node is to run.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The revision to run, by BpfProgram.
    pub revisions: BTreeMap<String, Arc<BpfRevision>>,
    /// BpfPrograms whose revision can't be read, and why. They keep what they have.
    pub unreadable: BTreeMap<String, String>,
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

    /// Reports whether the assignment says what a BpfProgram is to have here, be it nothing.
    pub fn knows(&self, name: &str) -> bool {
        !self.unreadable.contains_key(name) && (self.complete || self.revisions.contains_key(name))
    }

    /// Reports whether no BpfProgram has to be frozen, given what must be known of pods.
    pub fn knows_all(&self, required: RequiredInputs) -> bool {
        self.unreadable.is_empty() && self.complete && self.unknown_inputs(required).is_none()
    }

    /// Returns why a BpfProgram is to be left as it is, if it is; `required` is what its targets ask for.
    pub fn freeze_reason(&self, name: &str, required: RequiredInputs) -> Option<Refusal> {
        if let Some(why) = self.unreadable.get(name) {
            return Some(Refusal { reason: Reason::Unsupported, message: why.clone() });
        }
        let unread = || "not everything that is desired on this node could be read".to_owned();
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
