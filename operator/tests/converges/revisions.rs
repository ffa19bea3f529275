//! The revisions that edits create, withdraw and delete.

use sockeye_crds::{ConditionType, Reason, condition::Status};

use crate::world::World;

#[test]
fn a_rejected_edit_changes_no_revision() {
    let mut world = World::rolled_out();
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));
    let before = world.revisions.clone();

    world.edit(None);
    world.converge();
    assert_eq!(world.revisions, before);
    assert_eq!(world.condition(ConditionType::Accepted), Some((Status::False, Reason::NoSuchProgram)));
    assert_eq!(world.condition(ConditionType::Attached), Some((Status::True, Reason::InEffect)));
    assert_eq!(world.status.dispatch.as_ref().map(|dispatch| dispatch.generation), Some(1));

    world.edit(Some(0));
    world.converge();
    assert_eq!(world.revisions, before, "the same content needs no new revision");
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));
    assert_eq!((world.status.observed_generation, world.status.dispatch.unwrap().generation), (3, 1));
}

#[test]
fn an_older_revision_is_withdrawn_at_once_and_kept_while_a_node_runs_it() {
    let mut world = World::rolled_out();
    world.edit(Some(1));
    world.converge();
    assert_eq!((world.live_revisions().len(), world.revisions.len()), (1, 2));
    world.run_agent("node-1");
    world.converge();
    assert_eq!(world.revisions.len(), 2);
    world.run_agent("node-2");
    world.run_agent("node-3");
    world.converge();
    assert_eq!(world.revisions.len(), 1);
}

/// Returns a world whose revision a newer operator created. Agents that cannot read it keep running it.
fn created_by_a_newer_operator() -> World {
    let mut world = World::rolled_out();
    world.unreadable = world.live_revisions().into_iter().collect();
    world
}

#[test]
fn an_unreadable_revision_is_kept_until_an_accepted_edit_replaces_it() {
    let mut world = created_by_a_newer_operator();
    world.edit(None);
    world.converge();
    assert_eq!(world.live_revisions().len(), 1, "the edit is rejected");
    world.edit(Some(1));
    world.converge();
    world.run_all_agents();
    world.converge();
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));
    assert!(world.revisions.len() == 1 && !world.unreadable.contains(&world.live_revisions()[0]));
}

#[test]
fn an_unreadable_revision_is_deleted_with_its_program_once_no_other_borrows_its_maps() {
    let mut world = created_by_a_newer_operator();
    (world.is_deleted, world.borrowers) = (true, vec!["reader".into()]);
    world.converge();
    assert_eq!(world.live_revisions().len(), 1, "another BpfProgram borrows its maps");
    world.borrowers.clear();
    world.converge();
    world.run_all_agents();
    world.converge();
    assert!(world.is_gone);
}
