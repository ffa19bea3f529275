//! Plan: the writes that dispatch the latest accepted spec. IO: none. When nothing changed, there are none.
//!
//! - Bytes are stored first, then the revision is created, then older revisions are removed.
//! - A BpfProgram has one live revision: the last accepted one. An older one that stayed live would run on nodes that
//!   the newer one no longer selects.
//! - A withdrawn revision is kept while any node reports that it runs there, and then deleted. A node on which the
//!   newer one fails to load keeps running the older one without it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use sockeye_crds::{
    BpfProgram, BpfRevision, BpfRevisionSpec, names,
    revision::{ProgramRef, is_live},
};
use sockeye_ebpf::Accepted;

use crate::reconcile::{gather::Gathered, step::Step, validate::Validated};

/// The steps, and the revision that agents run once they are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The revision that agents run.
    pub dispatched: Option<BpfRevision>,
}

impl Plan {
    /// Reports whether the plan creates a revision.
    pub fn creates_revision(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Dispatch(_)))
    }
}

/// Plans the dispatch of a BpfProgram, or its deletion.
pub fn plan(gathered: &Gathered, validated: &Validated) -> Plan {
    if gathered.is_finalizing() {
        return Plan { steps: gathered.revisions.metadata().filter_map(delete).collect(), dispatched: None };
    }
    let newest = gathered.revisions.newest().cloned();
    if gathered.intent.is_deleted() {
        // Others borrow its maps, so agents keep running it.
        return Plan { steps: vec![], dispatched: newest };
    }
    let mut steps = Vec::new();
    if gathered.intent.finalizer_index().is_none() {
        steps.push(Step::AddFinalizer { present: gathered.intent.meta().finalizers.clone().unwrap_or_default() });
    }
    let Some(accepted) = validated.accepted() else {
        steps.extend(remove_superseded(gathered, newest.as_ref(), false));
        return Plan { steps, dispatched: newest };
    };
    let is_stored = gathered.stored_digests.contains(&accepted.digest);
    if let (false, Some(bytes)) = (is_stored, &validated.bytes) {
        steps.push(Step::StoreBytes { digest: accepted.digest.clone(), bytes: bytes.clone() });
    }
    let has_bytes = is_stored || validated.bytes.is_some();
    let next = next_revision(gathered, accepted);
    let dispatched = match newest {
        Some(newest) if is_same_content(&newest.spec, &next.spec) => Some(newest),
        // No agent could run it without its bytes. The next reconciliation reads them again.
        newest if !has_bytes => newest,
        _ => {
            steps.push(Step::Dispatch(Box::new(next.clone())));
            Some(next)
        }
    };
    steps.extend(remove_superseded(gathered, dispatched.as_ref(), has_bytes));
    Plan { steps, dispatched }
}

/// Builds the live revision of an accepted spec.
fn next_revision(gathered: &Gathered, accepted: &Accepted) -> BpfRevision {
    let highest = gathered.revisions.readable.iter().map(|revision| revision.spec.sequence).max().unwrap_or_default();
    let program = &gathered.intent.program;
    let spec = accepted.clone().into_revision_spec(program.clone(), gathered.intent.generation(), highest + 1);
    revision(program, spec)
}

/// Reports whether two revisions ask agents for the same.
fn is_same_content(a: &BpfRevisionSpec, b: &BpfRevisionSpec) -> bool {
    // `requires` follows from the other fields.
    let BpfRevisionSpec {
        program,
        generation: _,
        sequence: _,
        digest,
        object,
        node_selector,
        requires: _,
        programs,
        maps,
        globals,
        priority,
        suspend,
    } = a;
    *program == b.program
        && *digest == b.digest
        && *object == b.object
        && *node_selector == b.node_selector
        && *programs == b.programs
        && *maps == b.maps
        && *globals == b.globals
        && *priority == b.priority
        && *suspend == b.suspend
}

/// Builds a live revision that the BpfProgram owns.
fn revision(program: &ProgramRef, spec: BpfRevisionSpec) -> BpfRevision {
    let mut revision = BpfRevision::named(spec);
    let labels = [(names::LABEL_PROGRAM, program.name.as_str()), (names::LABEL_LIVE, "true")];
    revision.metadata.labels = Some(BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value.to_owned()))));
    revision.metadata.owner_references = Some(vec![OwnerReference {
        api_version: BpfProgram::api_version(&()).into_owned(),
        kind: BpfProgram::kind(&()).into_owned(),
        name: program.name.clone(),
        uid: program.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    revision
}

/// Withdraws live revisions other than the dispatched one, and deletes withdrawn ones that no node runs.
///
/// Agents keep running a revision that this operator cannot read. It is removed only with a replacement: once the
/// latest spec is accepted and its bytes are there.
fn remove_superseded(gathered: &Gathered, dispatched: Option<&BpfRevision>, has_replacement: bool) -> Vec<Step> {
    let running = gathered.nodes.running_revisions(&gathered.intent.program);
    let readable = gathered.revisions.readable.iter().map(|revision| &revision.metadata);
    let unreadable = gathered.revisions.unreadable.iter().filter(|_| has_replacement);
    let kept = dispatched.and_then(|revision| revision.metadata.name.as_ref());
    let superseded = readable.chain(unreadable).filter(|revision| revision.name.as_ref() != kept);
    superseded.filter_map(|revision| remove(revision, &running)).collect()
}

fn remove(revision: &ObjectMeta, running: &BTreeSet<String>) -> Option<Step> {
    if is_live(revision) {
        Some(Step::Withdraw { revision: revision.name.clone()?, uid: revision.uid.clone()? })
    } else if revision.name.as_ref().is_some_and(|name| running.contains(name)) {
        None
    } else {
        delete(revision)
    }
}

fn delete(revision: &ObjectMeta) -> Option<Step> {
    if revision.deletion_timestamp.is_some() {
        return None;
    }
    Some(Step::DeleteRevision { revision: revision.name.clone()?, uid: revision.uid.clone()? })
}
