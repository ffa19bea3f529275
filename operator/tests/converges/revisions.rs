//! The revisions that edits create, retire and delete.

use kube::ResourceExt as _;
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
    assert_eq!(world.condition(ConditionType::Accepted), Some((Status::False, Reason::ProgramNotFound)));
    assert_eq!(world.condition(ConditionType::Attached), Some((Status::True, Reason::InEffect)));
    assert_eq!(world.status.current_revision.as_ref().map(|current| current.program_generation), Some(1));

    world.edit(Some(0));
    world.converge();
    assert_eq!(world.revisions, before, "the same content needs no new revision");
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));
    assert_eq!(
        (world.status.observed_generation, world.status.current_revision.unwrap().program_generation),
        (Some(3), 1)
    );
}

#[test]
fn an_older_revision_is_retired_at_once_and_kept_while_a_node_runs_it() {
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

#[test]
fn the_latest_retired_revisions_are_kept_and_one_that_a_node_runs_besides() {
    for (limit, kept) in [(None, 10), (Some(0), 0), (Some(3), 3)] {
        let mut world = World::rolled_out();
        world.history_limit = limit;
        // Node 3 is away, and goes on running the first one.
        for spec in 1..15 {
            world.edit(Some(spec));
            world.converge();
            world.run_agent("node-1");
            world.run_agent("node-2");
            world.converge();
        }
        let names = Vec::from_iter(world.revisions.iter().map(|revision| revision.name_any()));
        let latest = (15 - kept..=15).map(|sequence| format!("p-{sequence}"));
        assert_eq!(names, Vec::from_iter(std::iter::once("p-1".to_owned()).chain(latest)), "{limit:?}");
        assert_eq!(world.live_revisions(), ["p-15"]);
        world.run_agent("node-3");
        world.converge();
        assert_eq!(world.revisions.len(), kept + 1, "{limit:?}");
    }
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

#[test]
fn a_revision_is_named_by_its_sequence_and_no_name_comes_twice() {
    let mut world = World::rolled_out();
    assert_eq!(world.live_revisions(), ["p-1"]);
    for (spec, name) in [(1, "p-2"), (0, "p-3")] {
        world.edit(Some(spec));
        world.converge();
        world.run_all_agents();
        world.converge();
        assert_eq!(world.live_revisions(), [name]);
    }
    world.revisions.clear();
    world.converge();
    assert_eq!(world.live_revisions(), ["p-4"], "somebody deleted p-3, which nodes still report");
}

#[test]
fn a_revision_of_an_earlier_program_of_the_name_is_no_obstacle() {
    let mut world = World::new();
    world.foreign_sequence = 41;
    world.converge();
    assert_eq!(world.live_revisions(), ["p-42"]);
}

#[test]
fn an_operator_with_an_old_view_dispatches_nothing_and_converges_later() {
    let mut world = World::rolled_out();
    let old = world.clone();
    world.edit(Some(1));
    world.converge();
    let after_edit = world.revisions.clone();
    // The other operator has not seen the edit's revision, and has another spec.
    world.view = Some(Box::new(old));
    world.edit(Some(2));
    world.reconcile(usize::MAX);
    assert_eq!(world.conflicts, 1);
    assert_eq!(world.revisions, after_edit, "nothing is overwritten");
    world.view = None;
    world.converge();
    assert_eq!(world.live_revisions(), ["p-3"]);
}

#[test]
fn a_watch_of_revisions_that_lags_behind_the_status_causes_no_further_revision() {
    let mut world = World::new();
    world.watched_revisions = Some(vec![]);
    world.converge();
    assert_eq!((world.conflicts, world.live_revisions()), (0, vec!["p-1".to_owned()]));

    world.watched_revisions = Some(world.revisions.clone());
    world.edit(Some(1));
    world.converge();
    assert_eq!((world.conflicts, world.live_revisions()), (0, vec!["p-2".to_owned()]));
}

#[test]
fn a_revision_that_is_there_already_counts_as_dispatched() {
    let mut world = World::rolled_out();
    let old = world.clone();
    world.edit(Some(1));
    world.reconcile(2);
    assert_eq!(world.live_revisions(), ["p-1", "p-2"], "the operator was killed before it retired p-1");
    world.view = Some(Box::new(old));
    world.reconcile(usize::MAX);
    assert_eq!((world.conflicts, world.live_revisions()), (0, vec!["p-2".to_owned()]));
}

#[test]
fn stored_bytes_that_are_used_again_survive_a_late_deletion() {
    let mut world = World::rolled_out();
    world.edit(Some(1));
    world.converge();
    world.is_collected_late = true;
    world.edit(Some(0));
    world.reconcile(usize::MAX);
    assert!(world.stored_digests.contains(&world.revisions.last().unwrap().spec.template.digest));
}
