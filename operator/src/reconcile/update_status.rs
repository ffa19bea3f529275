//! Update status: folds the nodes' reports into the status, and lets a deleted BpfProgram go. IO: none.
//!
//! It follows `apply`, so a status claims no dispatch that did not happen. `sockeye_crds::summary` does the folding.

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{
    BpfProgramStatus, BpfRevision, ConditionType, condition, names,
    summary::{self, Acceptance, Subject},
};
use sockeye_ebpf::Accepted;

use crate::{
    events::{
        origin::warning_event,
        transitions::{detached, transitions},
    },
    reconcile::{gather::Gathered, plan::undispatched, step::Step, validate::Validated},
};

/// Plans the writes that follow an applied plan. `current` is the revision that agents run.
pub fn update_status(
    gathered: &Gathered,
    validated: &Validated,
    current: Option<&BpfRevision>,
    now: Timestamp,
) -> Vec<Step> {
    if gathered.is_finalizing() {
        return finalize(gathered, now);
    }
    let intent = &gathered.intent;
    let acceptance = acceptance(gathered, validated);
    // A revision stays when only the policy changes, and then says who signed by the policy of its time.
    let dispatched = validated.accepted().filter(|accepted| undispatched(gathered, accepted).is_none());
    let current = current.map(|current| with_signers(current, dispatched));
    let current = current.as_ref();
    let subject = Subject {
        program: &intent.program,
        generation: intent.generation(),
        acceptance: &acceptance,
        current,
        users: &gathered.borrowers,
    };
    let status = summary::fold(&subject, &gathered.nodes.views(), &intent.status, now);
    if status == intent.status {
        return vec![];
    }
    let warning = dispatched.and_then(|accepted| accepted.origin.warning.as_deref());
    let warning = warning.filter(|warning| !says(&intent.status, warning)).map(warning_event);
    let events = transitions(&intent.status, &status).into_iter().chain(warning).map(Step::PublishEvent);
    std::iter::once(Step::WriteStatus(Box::new(status))).chain(events).collect()
}

/// Returns a revision with the signers that the present policy accepts, if its spec was checked.
fn with_signers(revision: &BpfRevision, checked: Option<&Accepted>) -> BpfRevision {
    let mut revision = revision.clone();
    if let Some(accepted) = checked {
        revision.spec.template.signed_by.clone_from(&accepted.origin.signed_by);
    }
    revision
}

/// Reports whether a status has a warning already.
fn says(status: &BpfProgramStatus, warning: &str) -> bool {
    let accepted = condition::find(&status.conditions, ConditionType::Accepted);
    accepted.is_some_and(|accepted| accepted.message.contains(warning))
}

/// Plans the end of a deletion. The last status precedes the removal of the finalizer, which removes the object.
fn finalize(gathered: &Gathered, now: Timestamp) -> Vec<Step> {
    let intent = &gathered.intent;
    if !intent.has_finalizer() {
        return vec![];
    }
    let nodes = gathered.nodes.views();
    let status = summary::fold_deletion(&intent.program, intent.generation(), &nodes, &intent.status, now);
    let mut steps = vec![];
    if status != intent.status {
        steps.push(Step::WriteStatus(Box::new(status)));
    }
    if summary::holders(&intent.program, &nodes).is_empty() {
        let finalizers = intent.meta().finalizers.iter().flatten();
        let others = finalizers.filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect();
        steps.push(Step::RemoveFinalizer { others });
        let absent = summary::absent_holders(&intent.program, &nodes);
        steps.push(Step::PublishEvent(detached(&absent)));
    }
    steps
}

fn acceptance(gathered: &Gathered, validated: &Validated) -> Acceptance {
    if let Some(refusal) = validated.refusal() {
        return Acceptance::Refused { reason: refusal.reason, message: refusal.message.clone() };
    }
    let mut notes = match validated.accepted() {
        Some(accepted) => {
            let warning = accepted.origin.warning.as_ref();
            let warning = warning.map(|warning| format!("{warning}; it runs, because the policy only warns"));
            accepted.notes.iter().cloned().chain(warning).collect()
        }
        None => vec!["its bytecode is no longer where it came from; what was dispatched stays dispatched".to_owned()],
    };
    let failure = gathered.image_failure.as_ref();
    notes.extend(failure.map(|failure| format!("{failure}; what it meant before stays dispatched")));
    Acceptance::Accepted { notes }
}
