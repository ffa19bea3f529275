//! The rules of `fold`, each by an example: reports in, status out.

mod fixtures;

use std::collections::BTreeMap;

use ConditionType::{Accepted, Attached, Ready, Reconciling, Stalled};
use Liveness::{Live, Unknown, WithoutAgent};
use fixtures::{Cluster, attached, failed, message, program, says};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::*;
use crate::{
    ConditionType, Reason,
    condition::{Status, find},
    target::{Attach, CgroupTarget, Scope},
};

#[test]
fn a_program_in_effect_on_all_nodes_is_ready() {
    let status = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(attached("r2")))]).fold();
    for type_ in [Attached, Ready] {
        assert_eq!(says(&status, type_), Some((Status::True, Reason::InEffect)));
    }
    assert_eq!(says(&status, Accepted), Some((Status::True, Reason::Dispatched)));
    assert_eq!((says(&status, Reconciling), says(&status, Stalled)), (None, None));
    assert_eq!(status.summary.nodes, "2/2");
    assert_eq!(status.summary.program_type, "SockOps");
    assert_eq!((&*status.summary.program_ids, &*status.summary.map_ids), ("57,57", "31,31"));
    assert_eq!((status.nodes.selected, status.nodes.updated, status.nodes.attached), (2, 2, 2));
    let placement = &status.placements[0];
    assert_eq!((placement.programs[0].id, placement.programs[0].links, placement.maps[0].id), (57, 1, 31));
    assert_eq!(status.dispatch.as_ref().map(|d| (&*d.revision, d.generation)), Some(("r2", 3)));
    assert_eq!(status.observed_generation, 3);
}

#[test]
fn folding_twice_changes_nothing_and_keeps_transition_times() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2"))), (Live, None), (Unknown, None)]);
    let first = cluster.fold();
    assert_eq!(cluster.fold_onto(&first, 60), first);
    cluster.nodes.reverse();
    assert_eq!(cluster.fold_onto(&first, 60), first, "the order of the nodes does not matter");
    cluster.nodes.retain(|(_, liveness, report)| *liveness != Live || report.is_some());
    let later = cluster.fold_onto(&first, 60);
    let time = |s: &BpfProgramStatus, t| find(&s.conditions, t).unwrap().last_transition_time.0.as_second();
    assert_eq!((time(&later, Accepted), time(&later, Attached)), (0, 60));
}

#[test]
fn an_older_revision_is_attached_but_not_updated() {
    let status = Cluster::new([(Live, Some(attached("r1"))), (Live, Some(attached("r2")))]).fold();
    assert_eq!((status.nodes.updated, status.nodes.attached), (1, 2));
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::Progressing)));
    assert!(says(&status, Reconciling).is_some());
    assert_eq!(status.placements[0].revision.as_deref(), Some("r1"));
    assert!(message(&status, Ready).contains("waiting for node-000"), "{}", message(&status, Ready));
}

#[test]
fn failures_are_listed_first_and_quoted() {
    let refused = failed("r2", Reason::VerifierRefused, "R1 invalid mem access 'scalar'");
    let status = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(refused)), (Unknown, None)]).fold();
    assert_eq!(status.placements[0].node, "node-001");
    assert_eq!(status.placements[0].reason, Some(Reason::VerifierRefused));
    assert_eq!(says(&status, Ready), Some((Status::False, Reason::VerifierRefused)));
    assert_eq!(says(&status, Stalled), Some((Status::True, Reason::VerifierRefused)));
    assert_eq!(says(&status, Reconciling), None);
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 1 of 2 live nodes: node-001: R1 invalid mem access 'scalar'");
}

#[test]
fn the_message_names_the_revision_that_runs_where_the_new_one_fails() {
    let mut refused = failed("r2", Reason::VerifierRefused, "no");
    refused.programs[0].revision = Some("r1".into());
    let status = Cluster::new([(Live, Some(refused)), (Live, Some(failed("r2", Reason::LoadFailed, "no")))]).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 2 of 2 live nodes: node-000, node-001: no; r1 keeps running there");
}

#[test]
fn a_transient_failure_is_not_stalled() {
    let status = Cluster::new([(Live, Some(failed("r2", Reason::AttachRefused, "E2BIG")))]).fold();
    assert_eq!(says(&status, Stalled), None);
    assert_eq!(says(&status, Reconciling), Some((Status::True, Reason::AttachRefused)));
}

#[test]
fn a_failure_of_an_earlier_revision_does_not_count() {
    let status = Cluster::new([(Live, Some(failed("r1", Reason::VerifierRefused, "no")))]).fold();
    assert_eq!(status.nodes.failed, 0);
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::Progressing)));
}

#[test]
fn the_message_names_few_nodes_and_counts_the_others() {
    let says = |words: &str| (Live, Some(failed("r2", Reason::LoadFailed, words)));
    let status = Cluster::new(std::iter::repeat_with(|| says("no")).take(7)).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 7 of 7 live nodes: node-000, node-001, node-002, +4: no");
    let status = Cluster::new(["a", "b", "a", "c", "d", "e", "b"].map(says)).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 7 of 7 live nodes: node-000, node-002: a; node-001, node-006: b; node-003: c; +2");
}

#[test]
fn the_message_says_that_no_pod_is_selected() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(attached("r2")))]);
    let picked = CgroupTarget { containers: vec!["main".into()], ..CgroupTarget::whole(Scope::Pods) };
    let revision = cluster.revision.as_mut().unwrap();
    revision.spec.programs[0].attach = vec![Attach { cgroup: Some(picked), map: None }];
    assert_eq!(message(&cluster.fold(), Ready), "in effect on 2 of 2 live nodes, where no pod is selected");
    cluster.nodes[1].2.as_mut().unwrap().details[0].cgroups = 1;
    assert_eq!(message(&cluster.fold(), Ready), "in effect on 2 of 2 live nodes");
}

#[test]
fn nodes_that_are_not_live_do_not_delay_ready() {
    let status = Cluster::new([(Live, Some(attached("r2"))), (Unknown, None), (WithoutAgent, None)]).fold();
    assert_eq!(says(&status, Ready), Some((Status::True, Reason::InEffect)));
    assert_eq!((status.nodes.unknown, status.nodes.without_agent), (1, 1));
    assert_eq!(status.summary.nodes, "1/3");
    assert!(message(&status, Ready).ends_with("(1 not live, 1 without an agent)"));
    assert_eq!(status.placements[0].reason, Some(Reason::NodeNotLive));
    assert_eq!(status.placements[1].reason, Some(Reason::NoAgent));
}

#[test]
fn without_a_live_node_attached_is_unknown() {
    let status = Cluster::new([(Unknown, Some(attached("r2"))), (WithoutAgent, None)]).fold();
    assert_eq!(says(&status, Attached), Some((Status::Unknown, Reason::NoLiveNode)));
    assert_eq!(says(&status, Ready), Some((Status::Unknown, Reason::NoLiveNode)));
    assert_eq!(status.summary.program_ids, "", "what runs on a node that is not live is not known");
}

#[test]
fn a_program_that_selects_no_node_is_ready_with_a_reason() {
    let mut cluster = Cluster::new([(Live, None)]);
    cluster.revision.as_mut().unwrap().spec.node_selector = Some(LabelSelector {
        match_labels: Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
        ..LabelSelector::default()
    });
    let status = cluster.fold();
    assert_eq!(says(&status, Ready), Some((Status::True, Reason::NoNodeSelected)));
    assert_eq!(says(&status, Reconciling), None);
    assert_eq!(status.summary.nodes, "0/0");

    cluster.nodes[0].2 = Some(attached("r2"));
    let leaving = cluster.fold();
    assert_eq!(says(&leaving, Reconciling), Some((Status::True, Reason::Progressing)), "still held there");
    assert_eq!(leaving.placements[0].node, "node-000");
}

#[test]
fn a_refused_edit_leaves_the_old_revision_in_effect() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2")))]);
    cluster.acceptance =
        Acceptance::Refused { reason: Reason::NoSuchProgram, message: "no function 'x' in the object".into() };
    let status = cluster.fold();
    assert_eq!(says(&status, Accepted), Some((Status::False, Reason::NoSuchProgram)));
    assert_eq!(says(&status, Attached), Some((Status::True, Reason::InEffect)));
    assert_eq!(says(&status, Ready), Some((Status::False, Reason::NoSuchProgram)));
    assert_eq!(says(&status, Stalled), Some((Status::True, Reason::NoSuchProgram)));
    assert_eq!(message(&status, Ready), "no function 'x' in the object; r2 keeps running");
    assert_eq!(status.dispatch.map(|d| d.revision).as_deref(), Some("r2"));
}

#[test]
fn a_program_refused_from_the_start_is_not_attached() {
    let mut cluster = Cluster::new([(Live, None)]);
    cluster.revision = None;
    cluster.acceptance = Acceptance::Refused { reason: Reason::BytecodeUnavailable, message: "no ConfigMap".into() };
    let status = cluster.fold();
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::NotDispatched)));
    assert_eq!(
        says(&status, Reconciling),
        Some((Status::True, Reason::BytecodeUnavailable)),
        "not stalled: it may come"
    );
    assert_eq!((status.dispatch, status.nodes.selected), (None, 0));
}

#[test]
fn an_earlier_program_of_the_same_name_does_not_count() {
    let mut report = attached("r2");
    report.programs[0].uid = "other".into();
    let cluster = Cluster::new([(Live, Some(report))]);
    assert_eq!(cluster.fold().nodes.attached, 0);
    assert!(holders(&program(), &cluster.views()).is_empty());
}

#[test]
fn columns_show_five_ids_and_count_the_others() {
    let status = Cluster::new((0..8).map(|_| (Live, Some(attached("r2"))))).fold();
    assert_eq!(status.summary.program_ids, "57,57,57,57,57,+3");
}

#[test]
fn placements_are_bounded_and_the_omitted_ones_counted() {
    let status = Cluster::new((0..70).map(|_| (Live, Some(attached("r2"))))).fold();
    assert_eq!((status.placements.len(), status.omitted), (MAX_PLACEMENTS, 6));
}

#[test]
fn a_deletion_waits_for_live_holders_only() {
    let nodes = [(Live, Some(attached("r2"))), (Unknown, Some(attached("r2"))), (Live, None)];
    let mut cluster = Cluster::new(nodes);
    let before = cluster.fold();
    let now = Timestamp::from_second(9).unwrap();
    assert_eq!(holders(&program(), &cluster.views()), ["node-000"]);
    assert_eq!(absent_holders(&program(), &cluster.views()), ["node-001"]);
    let during = fold_deletion(&program(), 4, &cluster.views(), &before, now);
    assert_eq!(says(&during, Ready), Some((Status::False, Reason::Deleting)));
    assert_eq!(says(&during, Accepted), says(&before, Accepted));
    assert_eq!(message(&during, Ready), "being removed from node-000");
    assert_eq!((during.nodes.attached, &*during.summary.program_ids), (1, "57"));
    assert_eq!(fold_deletion(&program(), 4, &cluster.views(), &during, Timestamp::now()), during);

    cluster.nodes[0].2 = None;
    assert!(holders(&program(), &cluster.views()).is_empty());
    let last = fold_deletion(&program(), 4, &cluster.views(), &during, now);
    assert_eq!(message(&last, Ready), "no live node holds it any more");
    assert!(last.placements.is_empty());
}
