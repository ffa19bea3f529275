//! Plans against a fake API server: a few reconciliations lead to a state in which nothing is left to do, and no step
//! on the way breaks a promise. No cluster, no clock.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod deletion;
mod revisions;
mod sharing;
mod world;

use proptest::prelude::*;
use sockeye_crds::names;

use crate::world::{NODES, World};

/// Something that happens in the cluster.
#[derive(Clone, Debug)]
enum Action {
    EditSpec(Option<u8>),
    RunAgent(&'static str),
    SetLive(&'static str, bool),
    /// A reconciliation that is killed after this many writes.
    Reconcile(usize),
    LoseStoredBytes,
}

fn action() -> impl Strategy<Value = Action> {
    let node = || proptest::sample::select(NODES.to_vec());
    prop_oneof![
        proptest::option::weighted(0.8, 0..3u8).prop_map(Action::EditSpec),
        node().prop_map(Action::RunAgent),
        (node(), any::<bool>()).prop_map(|(node, is_live)| Action::SetLive(node, is_live)),
        (0..6usize).prop_map(Action::Reconcile),
        Just(Action::LoseStoredBytes),
    ]
}

proptest! {
    /// Edits, agents, failures and killed reconciliations follow each other in any order. Then the world converges: the
    /// last accepted spec's revision alone is active. Once deleted, the BpfProgram goes.
    #[test]
    fn any_sequence_of_actions_converges(actions in proptest::collection::vec(action(), 0..30)) {
        let mut world = World::new();
        let mut accepted = None;
        for action in actions {
            match action {
                Action::EditSpec(spec) => world.edit(spec),
                Action::RunAgent(node) => world.run_agent(node),
                Action::SetLive(node, true) => { world.live_nodes.insert(node); }
                Action::SetLive(node, false) => { world.live_nodes.remove(node); }
                Action::Reconcile(max_writes) => { world.reconcile(max_writes); }
                // Only an accepted spec's bytes can be stored again.
                Action::LoseStoredBytes if world.spec.is_some() => world.stored_digests.clear(),
                Action::LoseStoredBytes => {}
            }
            if !world.live_revisions().is_empty() && world.spec.is_some() {
                accepted = world.spec;
            }
        }
        world.converge();
        prop_assert_eq!(world.status.observed_generation, Some(world.generation));
        let live = world.live_revisions();
        prop_assert!(live.len() <= 1);
        if let Some(spec) = world.spec {
            let newest = world.revisions.iter().find(|revision| revision.is_live()).unwrap();
            prop_assert_eq!(&newest.spec.template.digest, &names::digest(&[spec; 8]));
            prop_assert!(world.stored_digests.contains(&newest.spec.template.digest));
        } else {
            prop_assert_eq!(live.is_empty(), world.revisions.is_empty() || accepted.is_none());
        }

        world.run_all_agents();
        world.converge();
        prop_assert_eq!(world.revisions.len(), live.len(), "a revision that no node runs is deleted");

        world.is_deleted = true;
        world.reconcile(usize::MAX);
        world.run_all_agents();
        if !world.finalizers.is_empty() {
            world.converge();
            prop_assert!(world.is_gone);
        }
    }
}
