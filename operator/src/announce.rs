//! `announce`: the Events that a change of status is worth. Pure, and told from the two statuses, so that an operator that
//! restarts announces nothing twice.

use std::collections::BTreeSet;

use sockeye_crds::{
    BpfProgramStatus, Condition, ConditionType, Reason,
    condition::{self, Status},
    summary,
};

use crate::step::Announcement;

/// An Event names at most so many nodes.
const MAX_NAMED: usize = 5;

/// What to announce of a change from `old` to `new`: transitions, not messages; but which node fails is one.
pub fn changes(old: &BpfProgramStatus, new: &BpfProgramStatus) -> Vec<Announcement> {
    let pair = |type_| (condition::find(&old.conditions, type_), condition::find(&new.conditions, type_));
    let (was_accepted, accepted) = pair(ConditionType::Accepted);
    let (was_attached, attached) = pair(ConditionType::Attached);
    let (was_ready, ready) = pair(ConditionType::Ready);
    let news = [
        acceptance(was_accepted, accepted, old, new),
        attachment(was_attached, attached, fails_elsewhere(old, new)),
        usage(was_ready, ready),
    ];
    news.into_iter().flatten().collect()
}

/// No live node holds a deleted BpfProgram any more; by their last word the `absent` ones, which are not live, still do.
pub fn detached(absent: &[&str]) -> Announcement {
    let note = match absent {
        [] => "no live node holds it any more".to_owned(),
        absent => format!(
            "no live node holds it any more; not live, and holding it by their last word: {}; there it is removed once \
             sockeye's agent is back",
            named(absent)
        ),
    };
    Announcement { warning: !absent.is_empty(), reason: "Detached".to_owned(), action: "Delete", note }
}

/// Nodes, as part of a sentence.
pub fn named(nodes: &[&str]) -> String {
    let named = nodes[..nodes.len().min(MAX_NAMED)].join(", ");
    match nodes.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn acceptance(
    was: Option<&Condition>,
    is: Option<&Condition>,
    old: &BpfProgramStatus,
    new: &BpfProgramStatus,
) -> Option<Announcement> {
    let is = is?;
    let revision = |status: &BpfProgramStatus| status.dispatch.as_ref().map(|dispatch| dispatch.revision.clone());
    // Of an accepted spec the revision is what counts; a refused one is worth a word for every edit.
    let news = match is.status {
        Status::True => revision(old) != revision(new) || was.is_none_or(|was| was.status != is.status),
        Status::False | Status::Unknown => {
            was.is_none_or(|was| said(was) != said(is) || was.observed_generation != is.observed_generation)
        }
    };
    news.then(|| announcement(is, "Validate", is.status != Status::True))
}

fn attachment(was: Option<&Condition>, is: Option<&Condition>, elsewhere: bool) -> Option<Announcement> {
    let is = is?;
    let under_way = matches!(is.reason, Reason::Progressing | Reason::NotDispatched);
    let news = was.is_none_or(|was| said(was) != said(is)) || elsewhere;
    // To be Ready and run nowhere is seldom what was meant.
    let meant = is.status == Status::True || is.reason == Reason::Suspended;
    let warning = !meant || is.reason == Reason::NoNodeSelected;
    (news && !under_way).then(|| announcement(is, "Attach", warning))
}

/// Whether a node that is quoted has begun to fail. Of very many that fail one after the other only those are that come before
/// all others.
fn fails_elsewhere(old: &BpfProgramStatus, new: &BpfProgramStatus) -> bool {
    let before: BTreeSet<&str> = failing(old).collect();
    failing(new).take(summary::MAX_QUOTED).any(|node| !before.contains(node))
}

/// The nodes that fail, of those that are shown: they come first.
fn failing(status: &BpfProgramStatus) -> impl Iterator<Item = &str> {
    let failed = usize::try_from(status.nodes.failed).unwrap_or_default();
    status.placements.iter().take(failed).map(|placement| placement.node.as_str())
}

/// A deletion that waits is worth a word for all the names it waits for.
fn usage(was: Option<&Condition>, is: Option<&Condition>) -> Option<Announcement> {
    let is = is.filter(|is| is.reason == Reason::InUse)?;
    was.is_none_or(|was| was.message != is.message).then(|| announcement(is, "Delete", true))
}

fn said(condition: &Condition) -> (Status, Reason) {
    (condition.status, condition.reason)
}

fn announcement(condition: &Condition, action: &'static str, warning: bool) -> Announcement {
    Announcement { warning, reason: condition.reason.as_str(), action, note: condition.message.clone() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use sockeye_crds::program::{Dispatch, Placement};

    use super::*;

    fn condition(type_: ConditionType, status: Status, reason: Reason, generation: i64) -> Condition {
        let last_transition_time = Time(Timestamp::UNIX_EPOCH);
        Condition {
            type_,
            status,
            observed_generation: generation,
            last_transition_time,
            reason,
            message: "words".into(),
        }
    }

    fn status(accepted: (Status, Reason, i64), attached: (Status, Reason), revision: Option<&str>) -> BpfProgramStatus {
        BpfProgramStatus {
            dispatch: revision.map(|name| Dispatch { revision: name.into(), ..Dispatch::default() }),
            conditions: vec![
                condition(ConditionType::Accepted, accepted.0, accepted.1, accepted.2),
                condition(ConditionType::Attached, attached.0, attached.1, accepted.2),
            ],
            ..BpfProgramStatus::default()
        }
    }

    fn reasons(old: &BpfProgramStatus, new: &BpfProgramStatus) -> Vec<(String, bool)> {
        changes(old, new).into_iter().map(|a| (a.reason, a.warning)).collect()
    }

    const GOOD: (Status, Reason, i64) = (Status::True, Reason::Dispatched, 1);
    const WORKING: (Status, Reason) = (Status::False, Reason::Progressing);
    const DONE: (Status, Reason) = (Status::True, Reason::InEffect);

    #[test]
    fn a_rollout_is_two_words() {
        let (first, second) = (status(GOOD, WORKING, Some("r1")), status(GOOD, DONE, Some("r1")));
        assert_eq!(reasons(&BpfProgramStatus::default(), &first), [("Dispatched".to_owned(), false)]);
        assert_eq!(reasons(&first, &second), [("InEffect".to_owned(), false)]);
        assert_eq!(reasons(&second, &second), []);
    }

    #[test]
    fn every_refused_edit_is_announced_once() {
        let good = status(GOOD, DONE, Some("r1"));
        let refused = |generation| status((Status::False, Reason::NoSuchMap, generation), DONE, Some("r1"));
        assert_eq!(reasons(&good, &refused(2)), [("NoSuchMap".to_owned(), true)]);
        assert_eq!(reasons(&refused(2), &refused(2)), []);
        assert_eq!(reasons(&refused(2), &refused(3)), [("NoSuchMap".to_owned(), true)]);
    }

    #[test]
    fn who_still_holds_what_is_deleted_is_named() {
        let everywhere = detached(&[]);
        assert_eq!((everywhere.warning, &*everywhere.note), (false, "no live node holds it any more"));
        let elsewhere = detached(&["n0", "n1", "n2", "n3", "n4", "n5"]);
        assert!(elsewhere.warning && elsewhere.note.contains(": n0, n1, n2, n3, n4 and 1 more;"), "{elsewhere:?}");
    }

    #[test]
    fn a_node_that_begins_to_fail_is_named() {
        let on = |nodes: &[&str]| {
            let placement = |node: &&str| Placement { node: (*node).to_owned(), ..Placement::default() };
            let mut status = status(GOOD, (Status::False, Reason::LoadFailed), Some("r1"));
            status.nodes.failed = nodes.len() as i64;
            status.placements = nodes.iter().chain(&["good"]).map(placement).collect();
            status
        };
        let announced = |old: &[&str], new: &[&str]| !reasons(&on(old), &on(new)).is_empty();
        assert!(announced(&["n1"], &["n1", "n2"]) && announced(&["n1"], &["n2"]));
        assert!(!announced(&["n1", "n2"], &["n2"]) && !announced(&["n1"], &["n1"]));
        assert!(!announced(&["n1", "n2", "n3"], &["n1", "n2", "n3", "n4"]), "one that is not quoted");
        assert!(announced(&["n2", "n3", "n4"], &["n1", "n2", "n3", "n4"]));
    }

    #[test]
    fn running_nowhere_is_a_warning() {
        let nowhere = status(GOOD, (Status::True, Reason::NoNodeSelected), Some("r1"));
        assert_eq!(reasons(&status(GOOD, DONE, Some("r1")), &nowhere), [("NoNodeSelected".to_owned(), true)]);
    }
}
