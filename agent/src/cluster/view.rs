//! `View`: the node's assignment as it follows from the watched objects. Does no IO of its own.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use anyhow::Result;
use kube::{
    ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::reflector::Store,
};
use sockeye_crds::{
    BpfNode, BpfRevision, Reason, Refusal,
    names::{LABEL_PROGRAM, SUSPENSION, SUSPENSION_REASON, is_dns_label},
    node::NodeProgram,
    revision,
};
use tokio::sync::Notify;

use super::{pods::PodWatches, watches::Watches};
use crate::{
    control::{event::Event, run::Events},
    model::{
        architecture::on_this_architecture,
        assignment::{Assignment, ReportedRevision, UnreadableRevision},
    },
};

/// What the API server says of this node.
pub struct View {
    watches: Watches,
    pods: PodWatches,
    namespace: String,
    /// The revisions that were assigned last, by BpfProgram: those that have not changed are the same values again.
    assigned: BTreeMap<String, Arc<BpfRevision>>,
    /// The revisions in effect according to the BpfNode, once it was listed.
    reported: Option<Arc<BTreeMap<String, ReportedRevision>>>,
}

impl View {
    /// Returns the view of these watches; the suspension is in `namespace`.
    pub const fn new(watches: Watches, pods: PodWatches, namespace: String) -> Self {
        Self { watches, pods, namespace, assigned: BTreeMap::new(), reported: None }
    }

    /// Sends an event whenever the assignment or the suspension may have changed. The suspension is sent even before
    /// all lists are complete.
    pub(super) async fn follow(mut self, changed: Arc<Notify>, events: Events) -> Result<Infallible> {
        let mut complete = false;
        let (mut suspended, mut was_assigned) = (None, false);
        loop {
            let now = self.suspended();
            if now != suspended {
                suspended.clone_from(&now);
                events.send(Event::SuspendChanged(now));
            }
            if complete {
                let assignment = self.assignment();
                let is_assigned = assignment.is_some();
                match assignment {
                    Some(assignment) => events.send(Event::AssignmentChanged(Arc::new(assignment))),
                    None if was_assigned => events.send(Event::AssignmentLost),
                    None => {}
                }
                was_assigned = is_assigned;
            }
            tokio::select! {
                () = changed.notified() => {}
                ready = self.watches.ready(), if !complete => {
                    ready?;
                    complete = true;
                }
            }
        }
    }

    /// Returns what this node is to run; nothing while its Node object is gone, for its labels are unknown then.
    fn assignment(&mut self) -> Option<Assignment> {
        let node = self.watches.node.state().into_iter().next()?;
        let revisions = self.watches.revisions.state();
        let (mut unreadable, mut complete) = (BTreeMap::new(), true);
        let mut readable = Vec::new();
        for guard in &revisions {
            match &guard.0 {
                Ok(revision) => readable.push(revision),
                Err(error) => match unreadable_revision(error) {
                    Some((program, revision)) => drop(unreadable.insert(program, revision)),
                    // It may be any BpfProgram's, so that none may be removed.
                    None => complete = false,
                },
            }
        }
        let same = |known: &BpfRevision, revision: &BpfRevision| {
            (&known.metadata.uid, &known.metadata.resource_version)
                == (&revision.metadata.uid, &revision.metadata.resource_version)
        };
        let assign = |(name, revision): (&str, &BpfRevision)| match self.assigned.get(name) {
            Some(known) if same(known, revision) => (name.to_owned(), Arc::clone(known)),
            _ => (name.to_owned(), Arc::new(on_this_architecture(revision.clone()))),
        };
        self.assigned = revision::assigned(readable, node.labels()).into_iter().map(assign).collect();
        let revisions = self.assigned.clone();
        // Before this agent writes it for the first time.
        let bpf_node = &self.watches.bpf_node;
        let reported = Arc::clone(self.reported.get_or_insert_with(|| Arc::new(reported(bpf_node))));
        let mut assignment = Assignment { revisions, unreadable, complete, reported, ..Assignment::default() };
        self.pods.requirement().require(assignment.required_inputs());
        if assignment.names_pods() {
            self.pods.requirement().want_pods();
        }
        (assignment.pods, assignment.namespaces) = (self.pods.pods(), self.pods.namespaces());
        Some(assignment)
    }

    /// Returns why nothing at all is to be attached, where someone suspended the whole cluster.
    fn suspended(&self) -> Option<String> {
        let suspension = self.watches.suspension.state().into_iter().next()?;
        let reason = suspension.data.as_ref().and_then(|data| data.get(SUSPENSION_REASON));
        let reason = reason.map_or("no reason given", |reason| reason.trim());
        Some(format!("ConfigMap {}/{SUSPENSION}: {reason}", self.namespace))
    }
}

/// Returns a revision that can't be read, and the name of its BpfProgram, if it says that.
fn unreadable_revision(InvalidObject { error, metadata }: &InvalidObject) -> Option<(String, UnreadableRevision)> {
    let program = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_PROGRAM));
    let program = program.filter(|program| is_dns_label(program))?.clone();
    let name = metadata.name.clone();
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.name == program);
    let message = format!(
        "BpfRevision {} can't be read, is it a newer operator's? Upgrade the agents: {error}",
        name.as_deref().unwrap_or_default()
    );
    let why = Refusal { reason: Reason::AgentTooOld, message };
    Some((program, UnreadableRevision { name, uid: owner.map(|owner| owner.uid.clone()), why }))
}

/// Returns the revisions in effect according to the BpfNode, by BpfProgram.
fn reported(bpf_node: &Store<DeserializeGuard<BpfNode>>) -> BTreeMap<String, ReportedRevision> {
    let found = bpf_node.state().into_iter().next();
    let status = found.as_ref().and_then(|found| found.0.as_ref().ok()?.status.as_ref());
    let revision = |program: &NodeProgram| {
        let revision = program.revision.clone().or_else(|| program.known_good_revision.clone())?;
        Some((program.name.clone(), ReportedRevision { uid: program.uid.clone(), revision }))
    };
    status.into_iter().flat_map(|status| &status.programs).filter_map(revision).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn a_revision_that_can_not_be_read_says_by_its_metadata_whose_it_is() {
        let read = |label: &str| {
            let owners = json!([{"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "name": "p", "uid": "u"}]);
            let metadata = json!({"name": "p-2", "labels": {LABEL_PROGRAM: label}, "ownerReferences": owners});
            let error = "unknown variant `Tomorrow`, expected one of `Node`, `AllPods`".to_owned();
            unreadable_revision(&InvalidObject { error, metadata: serde_json::from_value(metadata).unwrap() })
        };
        let (program, UnreadableRevision { name, uid, why }) = read("p").unwrap();
        assert_eq!((&*program, name.as_deref(), uid.as_deref()), ("p", Some("p-2"), Some("u")));
        assert_eq!(why.reason, Reason::AgentTooOld);
        provoked(why.reason, &why.message);
        assert_eq!(read("../p"), None);
    }
}
