//! The deletion of a BpfProgram, and what it waits for.

use sockeye_crds::{ConditionType, Reason, condition::Status};
use sockeye_crds_testing::provoked;

use crate::world::World;

#[test]
fn a_deletion_waits_while_others_borrow_its_maps() {
    let mut world = World::rolled_out();
    let (revisions, current) = (world.revisions.clone(), world.status.current_revision.clone());
    (world.is_deleted, world.borrowers) = (true, vec!["reader".into()]);
    world.converge();
    assert_eq!((&world.revisions, &world.status.current_revision), (&revisions, &current), "agents keep running it");
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::False, Reason::InUse)));
    provoked(Reason::InUse, &world.ready().message);
    assert_eq!(world.condition(ConditionType::Reconciling), Some((Status::True, Reason::InUse)));
    assert_eq!(world.condition(ConditionType::Attached), Some((Status::True, Reason::InEffect)));
    let events = world.events.iter().filter(|event| event.reason == "InUse" && event.note.contains("reader"));
    assert_eq!(events.count(), 1);

    world.borrowers.clear();
    world.converge();
    assert!(!world.is_gone && world.revisions.is_empty());
    // A BpfProgram that begins to borrow now waits for the next one of this name.
    world.borrowers = vec!["writer".into()];
    world.run_all_agents();
    world.converge();
    assert!(world.is_gone);
}

#[test]
fn a_deletion_waits_for_live_nodes_alone() {
    let mut world = World::rolled_out();
    world.is_deleted = true;
    world.converge();
    assert!(!world.is_gone && world.revisions.is_empty());
    assert_eq!(world.ready().message, "being removed from node-1, node-2, node-3");

    world.run_agent("node-1");
    world.run_agent("node-2");
    world.live_nodes.remove("node-3");
    world.converge();
    assert!(world.is_gone);
    assert_eq!(world.events.last().map(|event| &*event.reason), Some("Detached"));
}
