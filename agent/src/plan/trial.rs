//! The connectivity trial in a plan: a trial begins before a risky attachment, and a reverted revision is refused.
//! Pure.

use std::collections::BTreeSet;

use sockeye_crds::Reason;

use super::{context::PlanContext, desired_attachments::detach_order, remove::detach, step::Step};
use crate::model::{
    desired::Desired,
    observed::{LinkKey, Observed, Predecessor},
    refusal::Refusal,
    trial::{Trial, TrialState},
};

/// Refuses a revision that was reverted and must not be attached again, or not yet.
pub(super) fn check(desired: &Desired, observed: &Observed) -> Result<(), Refusal> {
    let lost = |state| {
        let lost = match state {
            TrialState::SuspectedByLease | TrialState::RevertedByLease => {
                "the Lease of this node's kubelet was then not renewed"
            }
            _ => "this node then lost the API server",
        };
        format!("revision {} was attached, {lost}", desired.revision)
    };
    match state(desired, observed) {
        Some(state @ (TrialState::Reverted | TrialState::RevertedByLease)) => Err(Refusal {
            reason: Reason::ConnectivityLost,
            message: format!(
                "{} until the revision was reverted: correct it; the next revision gets a new trial",
                lost(state)
            ),
        }),
        Some(state @ (TrialState::Suspected | TrialState::SuspectedByLease)) => Err(Refusal {
            reason: Reason::NotInEffect,
            message: format!(
                "{}, and the revision was reverted: it is not known yet whether the revision is to blame; if it is \
                 not, the agent attaches it again",
                lost(state)
            ),
        }),
        None
        | Some(
            TrialState::Open
            | TrialState::Reprieved
            | TrialState::Reopened
            | TrialState::Passed
            | TrialState::PassedWithoutLease,
        ) => Ok(()),
    }
}

/// Begins a trial if the steps of `attach`, or other entries of maps, may cut the node off; before these, so that a
/// restarted agent finds the trial.
///
/// An open trial of another revision goes on with this one, if this one may cut the node off too.
pub(super) fn begin(
    desired: &Desired,
    observed: &Observed,
    attach: &[Step],
    PlanContext { changes_entries, .. }: &PlanContext,
) -> Option<Step> {
    let next = match state(desired, observed) {
        None => TrialState::Open,
        // Detached everywhere since it passed, by a suspension for instance: what it denies may have changed meanwhile.
        // A repair, or the attachment to another pod, needs no new trial.
        Some(state) if state.has_passed() && observed.links.is_empty() => TrialState::Open,
        Some(TrialState::Reprieved) => TrialState::Reopened,
        Some(_) => return None,
    };
    let goes_on = another_is_open(desired, observed) && is_risky(desired);
    let mut attached = observed.links.keys().map(|key| &key.function);
    let is_changed = *changes_entries && attached.any(|function| can_cut_off(desired, function));
    let begins = goes_on || is_changed || attach.iter().any(|step| may_cut_off(desired, step));
    begins.then(|| set_trial(desired, next))
}

/// Ends the open trial of another revision if this one can't cut the node off.
pub(super) fn end(desired: &Desired, observed: &Observed) -> Option<Step> {
    let ends = another_is_open(desired, observed) && !is_risky(desired);
    ends.then(|| set_trial(desired, TrialState::Passed))
}

/// Returns the steps that revert the revision on trial: its predecessor's programs run again, and all other links are
/// detached.
///
/// The predecessor counts as in effect again only if all its links are there.
pub fn revert(observed: &Observed) -> Vec<Step> {
    let Some(Predecessor { revision, functions, links }) = &observed.previous else { return detach(observed) };
    let (former, new): (Vec<&LinkKey>, Vec<&LinkKey>) = detach_order(observed).partition(|key| links.contains(key));
    let replaced: Vec<&LinkKey> = former.into_iter().filter(|key| functions.contains(&key.function)).collect();
    let restored: BTreeSet<&String> = replaced.iter().map(|key| &key.function).collect();
    let is_whole = links.iter().all(|key| observed.links.contains_key(key));
    let detach = new.into_iter().cloned().map(Step::Detach);
    let restore = restored.into_iter().cloned().map(Step::Restore);
    let update = replaced.into_iter().cloned().map(Step::Update);
    let revision = revision.clone().filter(|_| is_whole).map(|revision| Step::SetRevision(Some(revision)));
    detach.chain(restore).chain(update).chain(revision).collect()
}

/// Returns the state of this revision's own trial.
fn state(desired: &Desired, observed: &Observed) -> Option<TrialState> {
    observed.trial.as_ref().filter(|trial| trial.revision == desired.revision).map(|trial| trial.state)
}

/// Returns whether the trial of another revision is open.
fn another_is_open(desired: &Desired, observed: &Observed) -> bool {
    observed.trial.as_ref().is_some_and(|trial| trial.revision != desired.revision && trial.state.is_open())
}

/// Returns whether any program of the revision can cut the node off.
fn is_risky(desired: &Desired) -> bool {
    desired.functions.values().any(|function| function.can_cut_off)
}

/// Returns whether a step runs a program anew that can cut the node off.
fn may_cut_off(desired: &Desired, step: &Step) -> bool {
    let function = match step {
        Step::Attach { function, .. } => function,
        Step::Update(key) | Step::Move { key, .. } => &key.function,
        _ => return false,
    };
    can_cut_off(desired, function)
}

fn can_cut_off(desired: &Desired, function: &str) -> bool {
    desired.functions.get(function).is_some_and(|function| function.can_cut_off)
}

fn set_trial(desired: &Desired, state: TrialState) -> Step {
    Step::SetTrial(Trial { revision: desired.revision.clone(), state })
}
