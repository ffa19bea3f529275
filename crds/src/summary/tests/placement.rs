//! The rules for what a node reports, each by an example.

use super::*;

#[test]
fn a_node_whose_agent_can_not_read_the_revision_fails_if_it_is_selected_and_else_does_not_count() {
    let mut cluster = Cluster::new([(Live, Some(failed("r2", Reason::AgentTooOld, "upgrade the agents")))]);
    let status = cluster.fold();
    assert_eq!(says(&status, Ready), Some((Status::False, Reason::AgentTooOld)));
    assert_eq!(message(&status, Ready), "failed on 1 of 1 Ready nodes: node-000: upgrade the agents");
    assert_eq!(says(&status, Stalled), None, "the agents will be upgraded");
    cluster.revision.as_mut().unwrap().spec.template.node_selector = Some(LabelSelector {
        match_labels: Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
        ..LabelSelector::default()
    });
    let status = cluster.fold();
    assert_eq!((says(&status, Reconciling), status.node_statuses.len()), (None, 0));
    let entry = &mut cluster.nodes[0].2.as_mut().unwrap().programs[0];
    entry.program_ids = vec![57];
    assert_eq!(says(&cluster.fold(), Reconciling), Some((Status::True, Reason::Progressing)), "it has some of it");
}
