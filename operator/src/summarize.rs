//! `summarize`: the writes that make the status say what the nodes say, and that let a deleted BpfProgram go. Pure; comes
//! after `apply`, so that a status never claims a dispatch that did not happen. The arithmetic is `sockeye_crds::summary`.

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{
    BpfRevision,
    summary::{self, Acceptance, Subject},
};

use crate::{announce, gather::Gathered, step::Step, validate::Validated};

/// What is left to write once a plan has been applied; `dispatched` is the revision that agents are to run.
pub fn summarize(
    gathered: &Gathered,
    validated: &Validated,
    dispatched: Option<&BpfRevision>,
    now: Timestamp,
) -> Vec<Step> {
    if gathered.is_to_go() { deletion(gathered, now) } else { presence(gathered, validated, dispatched, now) }
}

fn presence(gathered: &Gathered, validated: &Validated, dispatched: Option<&BpfRevision>, now: Timestamp) -> Vec<Step> {
    let intent = &gathered.intent;
    let acceptance = acceptance(validated);
    let subject = Subject {
        program: &intent.program,
        generation: intent.generation(),
        acceptance: &acceptance,
        dispatched,
        users: &gathered.users,
    };
    let status = summary::fold(&subject, &gathered.cluster.views(), &intent.status, now);
    if status == intent.status {
        return vec![];
    }
    let announcements = announce::changes(&intent.status, &status);
    let announcements = announcements.into_iter().map(Step::Announce);
    std::iter::once(Step::WriteStatus(Box::new(status))).chain(announcements).collect()
}

/// The last status is written before the finalizer goes, since nobody could write it afterwards.
fn deletion(gathered: &Gathered, now: Timestamp) -> Vec<Step> {
    let intent = &gathered.intent;
    let Some(index) = intent.finalizer() else { return vec![] };
    let nodes = gathered.cluster.views();
    let status = summary::fold_deletion(&intent.program, intent.generation(), &nodes, &intent.status, now);
    let mut steps = vec![];
    if status != intent.status {
        steps.push(Step::WriteStatus(Box::new(status)));
    }
    if summary::holders(&intent.program, &nodes).is_empty() {
        steps.push(Step::RemoveFinalizer { index });
        let absent = summary::absent_holders(&intent.program, &nodes);
        steps.push(Step::Announce(announce::detached(&absent)));
    }
    steps
}

fn acceptance(validated: &Validated) -> Acceptance {
    if let Some(refusal) = validated.refusal() {
        return Acceptance::Refused { reason: refusal.reason, message: refusal.message.clone() };
    }
    let notes = match validated.accepted() {
        Some(accepted) => accepted.notes.clone(),
        None => vec!["its bytecode is no longer where it came from; what was dispatched keeps running".to_owned()],
    };
    Acceptance::Accepted { notes }
}
