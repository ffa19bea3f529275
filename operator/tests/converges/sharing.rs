//! The maps that a BpfProgram borrows, and what becomes of it if they are not shared.

use sockeye_crds::{ConditionType, Reason, condition::Status, program::MapRef, target::MapTarget};
use sockeye_crds_testing::provoked;
use sockeye_operator::watch::sharing::Lender;

use crate::world::World;

const NOT_SHARED: Option<(Status, Reason)> = Some((Status::False, Reason::MapNotShared));

/// Returns a world whose spec borrows map `flows` of BpfProgram `lender`.
fn borrowing(lender: Lender) -> World {
    let borrowed = MapRef { program: "lender".into(), name: "flows".into() };
    let mut world = World::new();
    (world.borrowed, world.lenders) = (Some(borrowed), [("lender".to_owned(), lender)].into());
    world
}

fn sharing<const N: usize>(maps: [&str; N]) -> Lender {
    Lender::Sharing(maps.map(str::to_owned).into())
}

#[test]
fn a_map_that_is_not_shared_is_refused_by_its_name_and_its_lenders() {
    let not_shared = "spec.maps[0].mapRef: BpfProgram lender does not share map flows";
    let other =
        format!("{not_shared}: set sharing: Shared for it in spec.maps there, or name one that it shares: other");
    for (lender, message) in [
        (sharing([]), not_shared),
        (sharing(["other"]), &*other),
        (Lender::NotDispatched, "spec.maps[0].mapRef: BpfProgram lender shares no map flows yet"),
        (Lender::Missing, "spec.maps[0].mapRef: there is no BpfProgram lender"),
    ] {
        let mut world = borrowing(lender);
        world.converge();
        assert_eq!(world.condition(ConditionType::Accepted), NOT_SHARED);
        assert!(world.ready().message.starts_with(message), "{}", world.ready().message);
        provoked(Reason::MapNotShared, &world.ready().message);
        assert_eq!(world.condition(ConditionType::Stalled), None, "the lender may share it later");
        assert!(world.revisions.is_empty());

        world.lenders.insert("lender".into(), sharing(["flows"]));
        world.converge();
        world.run_all_agents();
        world.converge();
        assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));
    }
}

#[test]
fn a_map_to_attach_to_must_be_shared_too_and_be_anothers() {
    let target = |program: &str| Some(MapTarget { name: "flows".into(), program: Some(program.to_owned()) });
    let mut world = World::new();
    (world.attached, world.lenders) = (target("lender"), [("lender".to_owned(), sharing(["other"]))].into());
    world.converge();
    assert_eq!(world.condition(ConditionType::Accepted), NOT_SHARED);
    let message = "attach[].map: BpfProgram lender does not share map flows";
    assert!(world.ready().message.starts_with(message), "{}", world.ready().message);
    world.lenders.insert("lender".into(), sharing(["flows"]));
    world.converge();
    assert_eq!(world.live_revisions(), ["p-1"]);
    world.attached = target("p");
    world.edit(Some(1));
    world.converge();
    assert_eq!(world.condition(ConditionType::Accepted), Some((Status::False, Reason::InvalidSpec)));
    provoked(Reason::InvalidSpec, &world.ready().message);
}

#[test]
fn who_uses_a_map_keeps_it_and_the_next_edit_is_refused() {
    let mut world = borrowing(sharing(["flows"]));
    world.converge();
    world.run_all_agents();
    world.converge();
    let before = world.revisions.clone();
    world.lenders.insert("lender".into(), sharing([]));
    world.converge();
    assert_eq!(world.condition(ConditionType::Ready), Some((Status::True, Reason::InEffect)));

    world.edit(Some(1));
    world.converge();
    assert_eq!((world.condition(ConditionType::Accepted), &world.revisions), (NOT_SHARED, &before));
    assert!(world.ready().message.ends_with("; p-1 keeps running"), "{}", world.ready().message);

    world.borrowed = None;
    world.edit(Some(1));
    world.converge();
    assert_eq!(world.live_revisions(), ["p-2"]);
}

#[test]
fn a_deletion_needs_no_shared_map() {
    let mut world = borrowing(sharing(["flows"]));
    world.converge();
    world.lenders.clear();
    world.is_deleted = true;
    world.converge();
    assert!(world.is_gone);
}
