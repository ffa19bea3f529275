//! The rules of `fold`, each by an example: reports in, status out.

mod columns;
mod fixtures;
mod placement;

use std::collections::BTreeMap;

use ConditionType::{Accepted, Attached, Ready, Reconciling, Stalled};
use Liveness::{Live, Unknown, WithoutAgent};
use fixtures::{Cluster, attached, counts, failed, message, program, record, says, summary};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::*;
use crate::{
    BpfNodeStatus, ConditionType, Reason,
    condition::{Status, find},
    node::EntryCounts,
    program::EntriesSummary,
    target::{AttachTarget, PodsTarget},
};

#[test]
fn a_program_in_effect_on_all_nodes_is_ready() {
    let status = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(attached("r2")))]).fold();
    for type_ in [Attached, Ready] {
        assert_eq!(says(&status, type_), Some((Status::True, Reason::InEffect)));
    }
    assert_eq!(says(&status, Accepted), Some((Status::True, Reason::Dispatched)));
    [Accepted, Attached].into_iter().for_each(|type_| record(&status, type_));
    assert_eq!((says(&status, Reconciling), says(&status, Stalled)), (None, None));
    let summary = summary(&status);
    assert_eq!(summary.program_type, "SockOps");
    assert_eq!((&*summary.program_ids, &*summary.map_ids), ("57,57", "31,31"));
    assert_eq!((summary.pods, summary.links), (None, 2), "no target selects pods");
    let counts = counts(&status);
    assert_eq!((counts.desired, counts.updated, counts.attached), (2, 2, 2));
    let node = &status.node_statuses[0];
    assert_eq!((&*node.program_ids, &*node.map_ids, node.links), (&[57][..], &[31][..], 1));
    assert_eq!(
        status.current_revision.as_ref().map(|current| (&*current.name, current.program_generation)),
        Some(("r2", 3))
    );
    assert_eq!(status.observed_generation, Some(3));
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
    assert_eq!((counts(&status).updated, counts(&status).attached), (1, 2));
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::Progressing)));
    assert!(says(&status, Reconciling).is_some());
    assert_eq!(status.node_statuses[0].revision.as_deref(), Some("r1"));
    assert!(message(&status, Ready).contains("waiting for node-000"), "{}", message(&status, Ready));
    record(&status, Ready);
}

#[test]
fn failures_are_listed_first_and_quoted() {
    let refused = failed("r2", Reason::VerifierRejected, "R1 invalid mem access 'scalar'");
    let status = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(refused)), (Unknown, None)]).fold();
    assert_eq!(status.node_statuses[0].node_name, "node-001");
    assert_eq!(status.node_statuses[0].reason, Some(Reason::VerifierRejected));
    assert_eq!(says(&status, Ready), Some((Status::False, Reason::VerifierRejected)));
    assert_eq!(says(&status, Stalled), Some((Status::True, Reason::VerifierRejected)));
    assert_eq!(says(&status, Reconciling), None);
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 1 of 2 Ready nodes: node-001: R1 invalid mem access 'scalar'");
}

#[test]
fn the_message_names_the_revision_that_runs_where_the_new_one_fails() {
    let mut refused = failed("r2", Reason::VerifierRejected, "no");
    refused.programs[0].revision = Some("r1".into());
    let status = Cluster::new([(Live, Some(refused)), (Live, Some(failed("r2", Reason::LoadFailed, "no")))]).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 2 of 2 Ready nodes: node-000, node-001: no; r1 keeps running there");
}

#[test]
fn entries_are_summed_up_and_the_nodes_that_differ_are_named() {
    let with = |applied: i64| {
        let mut report = attached("r2");
        report.programs[0].entries = Some(EntryCounts { wanted: 10, applied });
        (Live, Some(report))
    };
    assert_eq!(Cluster::new([(Live, Some(attached("r2")))]).fold().entries, None);
    let status = Cluster::new([with(10), with(7), (Live, Some(attached("r2"))), with(0)]).fold();
    let EntriesSummary { wanted, applied, differing, differing_nodes } = status.entries.unwrap();
    assert_eq!((wanted, applied, differing), (30, 17, 2));
    assert_eq!(differing_nodes, ["node-001", "node-003"]);
    let status = Cluster::new(std::iter::repeat_with(|| with(9)).take(40)).fold();
    let entries = status.entries.unwrap();
    assert_eq!((entries.differing, entries.differing_nodes.len()), (40, 16));
}

#[test]
fn a_transient_failure_is_not_stalled() {
    let status = Cluster::new([(Live, Some(failed("r2", Reason::AttachFailed, "E2BIG")))]).fold();
    assert_eq!(says(&status, Stalled), None);
    assert_eq!(says(&status, Reconciling), Some((Status::True, Reason::AttachFailed)));
}

#[test]
fn what_a_kernel_will_never_take_is_stalled() {
    let status = Cluster::new([(Live, Some(failed("r2", Reason::KernelUnsupported, "no bpf_loop")))]).fold();
    assert_eq!(says(&status, Stalled), Some((Status::True, Reason::KernelUnsupported)));
    assert_eq!(says(&status, Reconciling), None);
    // Memory may come; a size that no kernel takes stays.
    for needs_edit in [false, true] {
        let mut report = failed("r2", Reason::MapCreateFailed, "no");
        report.programs[0].needs_edit = needs_edit;
        let status = Cluster::new([(Live, Some(report)), (Live, Some(attached("r2")))]).fold();
        let condition = if needs_edit { Stalled } else { Reconciling };
        assert_eq!(says(&status, condition), Some((Status::True, Reason::MapCreateFailed)), "{needs_edit}");
        assert_eq!(says(&status, Stalled).is_some(), needs_edit);
    }
}

#[test]
fn a_failure_of_an_earlier_revision_does_not_count() {
    let status = Cluster::new([(Live, Some(failed("r1", Reason::VerifierRejected, "no")))]).fold();
    assert_eq!(counts(&status).failed, 0);
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::Progressing)));
}

#[test]
fn the_message_names_few_nodes_and_counts_the_others() {
    let says = |words: &str| (Live, Some(failed("r2", Reason::LoadFailed, words)));
    let status = Cluster::new(std::iter::repeat_with(|| says("no")).take(7)).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 7 of 7 Ready nodes: node-000, node-001, node-002, +4: no");
    let status = Cluster::new(["a", "b", "a", "c", "d", "e", "b"].map(says)).fold();
    let words = message(&status, Attached);
    assert_eq!(words, "failed on 7 of 7 Ready nodes: node-000, node-002: a; node-001, node-006: b; node-003: c; +2");
}

#[test]
fn a_program_that_selects_no_pod_is_ready_with_a_reason() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(attached("r2")))]);
    let revision = cluster.revision.as_mut().unwrap();
    revision.spec.template.programs[0].attach = vec![AttachTarget::from(PodsTarget::default())];
    for (.., report) in &mut cluster.nodes {
        report.as_mut().unwrap().programs[0].links = 0;
    }
    assert_eq!(summary(&cluster.fold()).pods, Some(0));
    assert_eq!(says(&cluster.fold(), Ready), Some((Status::True, Reason::NoPodSelected)));
    let words =
        "no pod or container on 2 Ready nodes matches the spec's targets: it is attached nowhere until one does";
    assert_eq!(message(&cluster.fold(), Ready), words);
    record(&cluster.fold(), Ready);
    // A node that is not live may have one.
    cluster.nodes.push(("node-9".into(), Unknown, None));
    assert!(message(&cluster.fold(), Ready).contains("(1 not Ready)"));
    assert_eq!(says(&cluster.fold(), Ready), Some((Status::True, Reason::NoPodSelected)));
    cluster.nodes.pop();
    let entry = &mut cluster.nodes[1].2.as_mut().unwrap().programs[0];
    (entry.links, entry.pods) = (2, 1);
    assert_eq!(summary(&cluster.fold()).pods, Some(1));
    assert_eq!(message(&cluster.fold(), Ready), "in effect on 2 of 2 Ready nodes");
}

#[test]
fn warnings_are_quoted_and_ready_stays_true() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2"))), (Live, Some(attached("r2")))]);
    for (.., report) in &mut cluster.nodes {
        report.as_mut().unwrap().programs[0].warnings = vec!["it is not covered".into()];
    }
    let words = "in effect on 2 of 2 Ready nodes; node-000, node-001: it is not covered";
    assert_eq!(message(&cluster.fold(), Ready), words);
    assert_eq!(says(&cluster.fold(), Ready), Some((Status::True, Reason::InEffect)));
}

#[test]
fn nodes_that_are_not_live_do_not_delay_ready() {
    let status = Cluster::new([(Live, Some(attached("r2"))), (Unknown, None), (WithoutAgent, None)]).fold();
    assert_eq!(says(&status, Ready), Some((Status::True, Reason::InEffect)));
    let counts = counts(&status);
    assert_eq!((counts.unknown, counts.without_agent, counts.updated, counts.desired), (1, 1, 1, 3));
    assert!(message(&status, Ready).ends_with("(1 not Ready, 1 without an agent)"));
    record(&status, Ready);
    assert_eq!(status.node_statuses[0].reason, Some(Reason::NodeNotReady));
    assert_eq!(status.node_statuses[1].reason, Some(Reason::AgentMissing));
    for node in &status.node_statuses[..2] {
        sockeye_crds_testing::provoked(node.reason, node.message.as_deref().unwrap());
    }
}

#[test]
fn without_a_live_node_attached_is_unknown() {
    let status = Cluster::new([(Unknown, Some(attached("r2"))), (WithoutAgent, None)]).fold();
    assert_eq!(says(&status, Attached), Some((Status::Unknown, Reason::NoReadyNodes)));
    record(&status, Attached);
    assert_eq!(says(&status, Ready), Some((Status::Unknown, Reason::NoReadyNodes)));
    assert_eq!(summary(&status).all_program_ids, "", "what runs on a node that is not live is not known");
}

#[test]
fn a_program_that_selects_no_node_is_ready_with_a_reason() {
    let mut cluster = Cluster::new([(Live, None)]);
    cluster.revision.as_mut().unwrap().spec.template.node_selector = Some(LabelSelector {
        match_labels: Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
        ..LabelSelector::default()
    });
    let status = cluster.fold();
    assert_eq!(says(&status, Ready), Some((Status::True, Reason::NoNodeSelected)));
    record(&status, Ready);
    assert_eq!(says(&status, Reconciling), None);
    assert_eq!((counts(&status).updated, counts(&status).desired), (0, 0));

    cluster.nodes[0].2 = Some(attached("r2"));
    let leaving = cluster.fold();
    assert_eq!(says(&leaving, Reconciling), Some((Status::True, Reason::Progressing)), "still held there");
    assert_eq!(leaving.node_statuses[0].node_name, "node-000");
}

#[test]
fn a_refused_edit_leaves_the_old_revision_in_effect() {
    let mut cluster = Cluster::new([(Live, Some(attached("r2")))]);
    cluster.acceptance =
        Acceptance::Refused { reason: Reason::ProgramNotFound, message: "no function 'x' in the object".into() };
    let status = cluster.fold();
    assert_eq!(says(&status, Accepted), Some((Status::False, Reason::ProgramNotFound)));
    assert_eq!(says(&status, Attached), Some((Status::True, Reason::InEffect)));
    assert_eq!(says(&status, Ready), Some((Status::False, Reason::ProgramNotFound)));
    assert_eq!(says(&status, Stalled), Some((Status::True, Reason::ProgramNotFound)));
    assert_eq!(message(&status, Ready), "no function 'x' in the object; r2 keeps running");
    assert_eq!(status.current_revision.map(|current| current.name).as_deref(), Some("r2"));
}

#[test]
fn the_message_of_a_refused_edit_names_the_revisions_that_run_and_no_other() {
    let message_on = |reports: Vec<Option<BpfNodeStatus>>| {
        let mut cluster = Cluster::new(reports.into_iter().map(|report| (Live, report)));
        cluster.acceptance = Acceptance::Refused { reason: Reason::InvalidSpec, message: "no".into() };
        message(&cluster.fold(), Ready).to_owned()
    };
    let rejected = |running: Option<&str>| {
        let mut report = failed("r2", Reason::VerifierRejected, "R1 invalid mem access");
        report.programs[0].revision = running.map(str::to_owned);
        Some(report)
    };
    assert_eq!(message_on(vec![rejected(Some("r1")), rejected(Some("r1"))]), "no; r1 keeps running");
    assert_eq!(message_on(vec![rejected(Some("r1")), Some(attached("r2"))]), "no; r1, r2 keep running");
    let nowhere = "no; r2 stays dispatched, and no Ready node reports it in effect";
    assert_eq!(message_on(vec![rejected(None), None]), nowhere);
    assert_eq!(message_on(vec![]), nowhere);
}

#[test]
fn the_revision_beside_the_ids_is_the_one_that_they_belong_to() {
    let mut refused = failed("r2", Reason::VerifierRejected, "R1 invalid mem access");
    (refused.programs[0].revision, refused.programs[0].program_ids) = (Some("r1".into()), vec![57]);
    let mut cluster = Cluster::new([(Live, Some(refused))]);
    let beside = |cluster: &Cluster| {
        let summary = summary(&cluster.fold()).clone();
        (summary.running_revisions, summary.program_ids)
    };
    assert_eq!(beside(&cluster), ("r1".into(), "57".into()));
    cluster.acceptance = Acceptance::Refused { reason: Reason::InvalidSpec, message: "no".into() };
    assert_eq!(beside(&cluster), ("r1".into(), "57".into()));
    cluster.nodes.push(("node-9".into(), Live, Some(attached("r2"))));
    assert_eq!(beside(&cluster), ("r1,r2".into(), "57,57".into()));
    let mut nowhere = Cluster::new([(Live, Some(failed("r2", Reason::VerifierRejected, "no")))]);
    nowhere.acceptance = cluster.acceptance.clone();
    assert_eq!(beside(&nowhere).0, "");
}

#[test]
fn a_program_refused_from_the_start_is_not_attached() {
    let mut cluster = Cluster::new([(Live, None)]);
    cluster.revision = None;
    cluster.acceptance = Acceptance::Refused { reason: Reason::BytecodeUnavailable, message: "no ConfigMap".into() };
    let status = cluster.fold();
    assert_eq!(says(&status, Attached), Some((Status::False, Reason::NotDispatched)));
    record(&status, Attached);
    assert_eq!(
        says(&status, Reconciling),
        Some((Status::True, Reason::BytecodeUnavailable)),
        "not stalled: it may come"
    );
    assert_eq!((counts(&status).desired, status.current_revision), (0, None));
}

#[test]
fn an_earlier_program_of_the_same_name_does_not_count() {
    let mut report = attached("r2");
    report.programs[0].uid = "other".into();
    let cluster = Cluster::new([(Live, Some(report))]);
    assert_eq!(counts(&cluster.fold()).attached, 0);
    assert!(holders(&program(), &cluster.views()).is_empty());
}

#[test]
fn columns_show_the_ids_of_two_nodes_and_wide_ones_those_of_sixteen() {
    let summary = |nodes| summary(&Cluster::new((0..nodes).map(|_| (Live, Some(attached("r2"))))).fold()).clone();
    assert_eq!((summary(2).program_ids, summary(2).all_program_ids), ("57,57".into(), "57,57".into()));
    assert_eq!((summary(3).program_ids, summary(3).all_program_ids), (String::new(), "57,57,57".into()));
    assert_eq!(summary(18).all_map_ids, format!("{},+2", ["31"; 16].join(",")));
}

#[test]
fn counts_that_a_node_makes_up_overflow_nothing() {
    let mut report = attached("r2");
    report.programs[0].links = i64::MAX;
    let status = Cluster::new([(Live, Some(report)), (Live, Some(attached("r2")))]).fold();
    assert_eq!(summary(&status).links, i64::MAX);
}

#[test]
fn listed_nodes_are_bounded_and_the_omitted_ones_counted() {
    let status = Cluster::new((0..70).map(|_| (Live, Some(attached("r2"))))).fold();
    assert_eq!((status.node_statuses.len(), status.node_statuses_omitted), (MAX_NODES, 6));
}

#[test]
fn a_deletion_waits_for_live_holders_only() {
    let nodes = [
        (Live, Some(attached("r2"))),
        (Unknown, Some(attached("r2"))),
        (Live, Some(BpfNodeStatus::default())),
        (Unknown, None),
    ];
    let mut cluster = Cluster::new(nodes);
    let before = cluster.fold();
    let now = Timestamp::from_second(9).unwrap();
    assert_eq!(holders(&program(), &cluster.views()), ["node-000"]);
    assert_eq!(absent_holders(&program(), &cluster.views()), ["node-001"]);
    let during = fold_deletion(&program(), 4, &cluster.views(), &before, now);
    assert_eq!(says(&during, Ready), Some((Status::False, Reason::Deleting)));
    assert_eq!(says(&during, Accepted), says(&before, Accepted));
    assert_eq!(message(&during, Ready), "being removed from node-000");
    record(&during, Ready);
    assert_eq!((counts(&during).attached, &*summary(&during).program_ids), (1, "57"));
    assert_eq!(fold_deletion(&program(), 4, &cluster.views(), &during, Timestamp::now()), during);

    cluster.nodes[0].2 = None;
    assert_eq!(holders(&program(), &cluster.views()), ["node-000"], "nobody knows what it holds");
    cluster.nodes[0].2 = Some(BpfNodeStatus::default());
    assert!(holders(&program(), &cluster.views()).is_empty());
    let last = fold_deletion(&program(), 4, &cluster.views(), &during, now);
    assert_eq!(message(&last, Ready), "no Ready node holds it any more");
    record(&last, Ready);
    assert!(last.node_statuses.is_empty());
}

/// Returns the longest report that the schema allows of a node about one BpfProgram.
fn longest_report() -> BpfNodeStatus {
    let mut report = failed("r2", Reason::BytecodeUnavailable, &"<&".repeat(512));
    let entry = &mut report.programs[0];
    entry.revision = Some("r".repeat(253));
    entry.program_ids = vec![i64::from(u32::MAX); 32];
    entry.map_ids = vec![i64::from(u32::MAX); 128];
    (entry.links, entry.pods) = (i64::MAX / 10_000, i64::MAX / 10_000);
    report
}

#[test]
fn a_status_of_ten_thousand_nodes_has_less_than_128_kib() {
    let mut cluster = Cluster::new((0..10_000).map(|_| (Live, Some(longest_report()))));
    for (name, ..) in &mut cluster.nodes {
        *name += &"n".repeat(245);
    }
    let map = |n: usize| crate::MapInfo {
        name: format!("{n:0128}"),
        map_type: "Hash".into(),
        key_size_bytes: i64::from(u32::MAX),
        value_size_bytes: i64::from(u32::MAX),
        max_entries: i64::from(u32::MAX),
        flags: 0,
        definition: crate::MapDefinition::Btf,
        used_by: vec!["u".repeat(128); 64],
        holds: vec![],
    };
    cluster.revision.as_mut().unwrap().spec.template.object.maps = (0..128).map(map).collect();
    let status = cluster.fold();
    let bytes = size::json_len(&status);
    assert!(bytes < 128 << 10, "{bytes} bytes");
    assert!(bytes > 56 << 10, "{bytes} bytes: the nodes that fit are listed");
    assert_eq!(status.object, None);
    assert_eq!(status.node_statuses.len() as i64 + status.node_statuses_omitted, 10_000);
    assert_eq!(cluster.fold_onto(&status, 60), status);
}
