//! `plan`: the writes that make the API say what the latest accepted spec says. Pure: gathered facts in, steps out; when
//! nothing changed, no steps.
//!
//! Bytes come first, then the revision, then the older ones go. Of one BpfProgram exactly one revision is live: the last
//! accepted one. An older one that stayed live would go on running on nodes that the newer no longer selects. It is kept
//! while any node reports that it runs there, live node or not, and deleted when none does. A node on which the newer one
//! does not load keeps the older one attached by itself; it needs no live revision for that.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use sockeye_crds::{
    BpfProgram, BpfRevision, BpfRevisionSpec, names,
    revision::{ProgramRef, is_live},
};
use sockeye_ebpf::Accepted;

use crate::{gather::Gathered, step::Step, validate::Validated};

/// What is to be done, and what agents are to run once it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The writes, in order.
    pub steps: Vec<Step>,
    /// The revision that agents are to run.
    pub dispatched: Option<BpfRevision>,
}

impl Plan {
    /// Whether a revision is to be made.
    pub fn dispatches(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Dispatch(_)))
    }
}

/// Plans for a BpfProgram that is to stay, or is being deleted.
pub fn plan(gathered: &Gathered, validated: &Validated) -> Plan {
    if gathered.is_to_go() {
        return Plan { steps: gathered.revisions.metadata().filter_map(delete).collect(), dispatched: None };
    }
    if gathered.intent.deleting() {
        // Others use its maps: what agents run, they go on running.
        return Plan { steps: vec![], dispatched: gathered.revisions.newest().cloned() };
    }
    let mut steps = Vec::new();
    if gathered.intent.finalizer().is_none() {
        steps.push(Step::AddFinalizer { present: gathered.intent.meta().finalizers.clone().unwrap_or_default() });
    }
    let newest = gathered.revisions.newest();
    let dispatched = match validated.accepted() {
        Some(accepted) => dispatch(gathered, validated, accepted, newest, &mut steps),
        None => newest.cloned(),
    };
    let running = gathered.cluster.running(&gathered.intent.program.uid);
    // What a newer operator has made stays what agents run until this one has something else for them.
    let at_hand = |accepted: &Accepted| gathered.stored.contains(&accepted.digest) || validated.bytes.is_some();
    let replaced = validated.accepted().is_some_and(at_hand);
    let unreadable = gathered.revisions.unreadable.iter().filter(|_| replaced);
    let known = gathered.revisions.known.iter().map(|revision| &revision.metadata);
    steps.extend(retire(known.chain(unreadable), dispatched.as_ref(), &running));
    Plan { steps, dispatched }
}

fn dispatch(
    gathered: &Gathered,
    validated: &Validated,
    accepted: &Accepted,
    newest: Option<&BpfRevision>,
    steps: &mut Vec<Step>,
) -> Option<BpfRevision> {
    let stored = gathered.stored.contains(&accepted.digest);
    if let (false, Some(bytes)) = (stored, &validated.bytes) {
        steps.push(Step::StoreBytes { digest: accepted.digest.clone(), bytes: bytes.clone() });
    }
    let highest = gathered.revisions.known.iter().map(|revision| revision.spec.sequence).max().unwrap_or_default();
    let program = gathered.intent.program.clone();
    let spec = accepted.clone().into_revision_spec(program.clone(), gathered.intent.generation(), highest + 1);
    match newest {
        Some(newest) if same_content(&newest.spec, &spec) => Some(newest.clone()),
        // Without its bytes no agent could run it. They are read again with the next look.
        _ if !stored && validated.bytes.is_none() => newest.cloned(),
        _ => {
            let revision = revision(&program, spec);
            steps.push(Step::Dispatch(Box::new(revision.clone())));
            Some(revision)
        }
    }
}

/// Whether two revisions ask for the same, whenever they were made.
fn same_content(a: &BpfRevisionSpec, b: &BpfRevisionSpec) -> bool {
    // What it requires follows from the rest.
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

/// A live revision, owned by its BpfProgram.
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

/// Withdraws what is live beside the dispatched one, and deletes what is withdrawn and runs nowhere.
fn retire<'a>(
    revisions: impl Iterator<Item = &'a ObjectMeta>,
    dispatched: Option<&BpfRevision>,
    running: &BTreeSet<String>,
) -> impl Iterator<Item = Step> {
    let kept = dispatched.and_then(|revision| revision.metadata.name.as_ref());
    revisions.filter(move |revision| revision.name.as_ref() != kept).filter_map(|revision| {
        if is_live(revision) {
            Some(Step::Withdraw { revision: revision.name.clone()?, uid: revision.uid.clone()? })
        } else if revision.name.as_ref().is_some_and(|name| running.contains(name)) {
            None
        } else {
            delete(revision)
        }
    })
}

fn delete(revision: &ObjectMeta) -> Option<Step> {
    if revision.deletion_timestamp.is_some() {
        return None;
    }
    Some(Step::DeleteRevision { revision: revision.name.clone()?, uid: revision.uid.clone()? })
}
