//! Plan: the writes that dispatch the latest accepted spec. IO: none. When nothing changed, there are none.
//!
//! - Bytes are stored first, then the revision is created, then older revisions are removed. Bytes that were stored
//!   before, for another revision, may have been garbage until then: they are looked at once more.
//! - A BpfProgram has one active revision: the last accepted one. An older one that stayed active would run on nodes
//!   that the newer one no longer selects.
//! - The latest retired revisions are kept, as many as `spec.revisionHistoryLimit` says. An older one is kept while any
//!   node reports that it runs there: an agent that was restarted reads it by its name if a newer one fails.
//! - Sequences go on over all revisions of a name. The watched ones may be old: then a revision with the next sequence
//!   is there already, it is not created, and the next reconciliation plans again.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use sockeye_crds::{
    BpfProgram, BpfProgramSpec, BpfRevision, BpfRevisionSpec, RevisionTemplate, names,
    program::MapSpec,
    revision::{ProgramRef, RevisionState},
};
use sockeye_ebpf::Accepted;

use crate::{
    events::origin::origin_events,
    reconcile::{
        gather::Gathered,
        step::{ObjectVersion, Step},
        validate::Validated,
    },
    watch::revisions::sequence_in,
};

/// The steps, and the revision that agents run once they are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The revision that agents run.
    pub current: Option<BpfRevision>,
}

/// Plans the dispatch of a BpfProgram, or its deletion. `is_stored` is true if the accepted spec's bytes are stored.
pub fn plan(gathered: &Gathered, validated: &Validated, is_stored: bool) -> Plan {
    if gathered.is_finalizing() {
        return Plan { steps: gathered.revisions.metadata().filter_map(delete).collect(), current: None };
    }
    let newest = gathered.revisions.newest().cloned();
    if gathered.intent.is_deleted() {
        // Others use its maps, so agents keep running it.
        return Plan { steps: vec![], current: newest };
    }
    let mut steps = Vec::new();
    if !gathered.intent.has_finalizer() {
        steps.push(Step::AddFinalizer { present: gathered.intent.meta().finalizers.clone().unwrap_or_default() });
    }
    let Some(accepted) = validated.accepted() else {
        steps.extend(remove_superseded(gathered, newest.as_ref(), false));
        return Plan { steps, current: newest };
    };
    if !is_stored {
        let all = read_bytes(accepted, validated);
        steps.extend(all.into_iter().map(|(digest, bytes)| Step::StoreBytes { digest, bytes }));
    }
    let has_bytes = is_stored || validated.bytes.is_some();
    // Without its bytes no agent could run a revision. The next reconciliation reads them again.
    let next = undispatched(gathered, accepted).filter(|_| has_bytes);
    if let Some(next) = &next {
        steps.push(Step::Dispatch(Box::new(next.clone())));
        if is_stored {
            let all = read_bytes(accepted, validated);
            steps.extend(all.into_iter().map(|(digest, bytes)| Step::KeepBytes { digest, bytes }));
        }
        steps.extend(origin_events(newest.as_ref(), next, accepted).into_iter().map(Step::PublishEvent));
    }
    let current = next.or(newest);
    steps.extend(remove_superseded(gathered, current.as_ref(), has_bytes));
    Plan { steps, current }
}

/// Returns the bytes of an accepted spec that were read, with their digests: the objects', those of the proofs, and
/// those of its lists.
fn read_bytes(accepted: &Accepted, validated: &Validated) -> Vec<(String, Vec<u8>)> {
    let Validated { outcome: _, bytes, further, lists } = validated;
    let Some(bytes) = bytes else { return Vec::new() };
    let mut all = vec![(accepted.digest.clone(), bytes.clone())];
    all.extend(further.iter().cloned());
    for (map, list) in lists {
        let spec = accepted.maps.iter().find(|spec| spec.name == *map);
        let digest = spec.and_then(MapSpec::list_digest).filter(|digest| !all.iter().any(|(other, _)| other == digest));
        all.extend(digest.map(|digest| (digest.to_owned(), list.to_vec())));
    }
    all
}

/// Returns the revision of an accepted spec, unless agents run that spec already.
pub fn undispatched(gathered: &Gathered, accepted: &Accepted) -> Option<BpfRevision> {
    let next = next_revision(gathered, accepted);
    let newest = gathered.revisions.newest();
    (!newest.is_some_and(|newest| is_same_content(&newest.spec, &next.spec))).then_some(next)
}

/// Builds the active revision of an accepted spec.
fn next_revision(gathered: &Gathered, accepted: &Accepted) -> BpfRevision {
    let program = &gathered.intent.program;
    // Somebody may have deleted the current revision. Its name is not used again, because nodes report names.
    let current = gathered.intent.status.current_revision.as_ref();
    let current = current.and_then(|current| sequence_in(&current.name, &program.name)).unwrap_or_default();
    let sequence = gathered.revisions.highest_sequence.max(current).saturating_add(1);
    let spec = accepted.clone().into_revision_spec(program.clone(), gathered.intent.generation(), sequence);
    revision(program, spec)
}

/// Returns whether two revisions ask agents for the same.
fn is_same_content(a: &BpfRevisionSpec, b: &BpfRevisionSpec) -> bool {
    let BpfRevisionSpec { state, program_ref, program_generation: _, sequence: _, template } = a;
    // `requires` follows from the other fields, and agents do not read who signed.
    let RevisionTemplate { requires, signed_by, .. } = template.clone();
    let other = RevisionTemplate { requires, signed_by, ..b.template.clone() };
    *state == b.state && *program_ref == b.program_ref && *template == other
}

/// Returns whether a revision that exists is the one to create: it has the same name, content and owner.
pub fn is_same_revision(existing: &BpfRevision, new: &BpfRevision) -> bool {
    existing.is_live()
        && is_same_content(&existing.spec, &new.spec)
        && existing.spec.sequence == new.spec.sequence
        && existing.labels().get(names::LABEL_PROGRAM) == new.labels().get(names::LABEL_PROGRAM)
        && existing.metadata.owner_references == new.metadata.owner_references
}

/// Builds an active revision that the BpfProgram owns.
fn revision(program: &ProgramRef, spec: BpfRevisionSpec) -> BpfRevision {
    let mut revision = BpfRevision::of(spec);
    revision.metadata.labels = Some(BTreeMap::from([(names::LABEL_PROGRAM.to_owned(), program.name.clone())]));
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

/// Retires active revisions other than the current one, and deletes retired ones that no node runs and that are not
/// among the latest.
///
/// Agents may run a revision that this operator can't read. It is removed only with a replacement: once the latest spec
/// is accepted and its bytes are there. Then it is deleted at once, because its state is not known. To agents that is
/// the same: they see active revisions alone.
fn remove_superseded(gathered: &Gathered, current: Option<&BpfRevision>, has_replacement: bool) -> Vec<Step> {
    let running = gathered.nodes.running_revisions(&gathered.intent.program);
    let kept = current.and_then(|revision| revision.metadata.name.as_ref());
    let mut readable: Vec<&BpfRevision> = gathered.revisions.readable.iter().collect();
    readable.retain(|revision| revision.metadata.name.as_ref() != kept);
    readable.sort_by_key(|revision| std::cmp::Reverse(revision.spec.sequence));
    let unreadable = gathered.revisions.unreadable.iter().filter(|_| has_replacement);
    let unreadable = unreadable.filter(|metadata| metadata.name.as_ref() != kept);
    let limit = gathered.intent.spec().map_or(BpfProgramSpec::REVISION_HISTORY_LIMIT, |s| s.revision_history_limit());
    let is_history = |place: usize, revision: &BpfRevision| {
        place < limit || revision.metadata.name.as_ref().is_some_and(|name| running.contains(name))
    };
    let removed = readable.into_iter().enumerate();
    let removed = removed.filter_map(|(place, revision)| remove(revision, is_history(place, revision)));
    removed.chain(unreadable.filter_map(delete)).collect()
}

/// Returns the step that retires an active revision, or deletes a retired one that is not kept.
fn remove(revision: &BpfRevision, is_kept: bool) -> Option<Step> {
    let is_deleted = revision.metadata.deletion_timestamp.is_some();
    if revision.spec.state == RevisionState::Active && !is_deleted {
        ObjectVersion::of(&revision.metadata).map(Step::Retire)
    } else if is_kept {
        None
    } else {
        delete(&revision.metadata)
    }
}

fn delete(revision: &ObjectMeta) -> Option<Step> {
    ObjectVersion::of(revision).filter(|_| revision.deletion_timestamp.is_none()).map(Step::DeleteRevision)
}
