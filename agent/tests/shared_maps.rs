//! Why a map of another BpfProgram is not there, in words that say what to do. The operator and a folder refuse some of
//! these revisions; an agent runs what it is given, in whatever order that comes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use sockeye_agent::{
    control::{Controller, event::Event},
    model::assignment::Assignment,
};
use sockeye_crds::{BpfRevision, Reason, names::digest};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings, settle};

const OBJECT: &[u8] = b"object";

/// A revision of a BpfProgram with one map, `m`, and these settings of it.
fn revision(name: &str, settings: Value) -> Arc<BpfRevision> {
    let mut map = json!({"name": "m"});
    map.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let template = json!({
        "digest": digest(OBJECT), "programs": [{"name": "f", "attach": [{"type": "Node"}]}], "maps": [map],
        "object": {
            "programs": [{"name": "f", "section": "sockops"}],
            "maps": [{"name": "m", "type": "Array", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 10,
                "definition": "BTF", "usedBy": ["f"]}],
        },
    });
    let spec = json!({
        "state": "Active", "programRef": {"name": name, "uid": "u"}, "programGeneration": 1, "sequence": 1,
        "template": template,
    });
    Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()))
}

fn from(program: &str, map: &str) -> Value {
    json!({"mapRef": {"program": program, "name": map}})
}

/// Returns the message on `borrower` of a node with these revisions; none if it is in effect.
fn refusal(borrower: Value, others: &[(&str, Value)]) -> Option<String> {
    let others = others.iter().map(|(name, settings)| (*name, settings.clone()));
    let all = others.chain([("borrower", borrower)]);
    let assignment = Assignment {
        revisions: all.map(|(name, settings)| (name.to_owned(), revision(name, settings))).collect(),
        objects: [(digest(OBJECT), OBJECT.into())].into(),
        complete: true,
        ..Assignment::default()
    };
    let mut controller = Controller::new(FakeNode::default(), settings(), Instant::now());
    settle(&mut controller, [Event::AssignmentChanged(Arc::new(assignment))]);
    let entry = controller.status().programs.into_iter().find(|program| program.name == "borrower").unwrap();
    assert!(matches!(entry.reason, None | Some(Reason::SharedMapNotFound)), "{entry:?}");
    entry.message
}

#[test]
fn the_message_says_why_a_shared_map_is_not_there() {
    // Its name comes before the borrower's, so that it was worked out when that one is.
    let a_lender = |settings: Value| [("a-lender", settings)];
    for (map_ref, others, words) in [
        (from("nobody", "m"), &[][..], "map m of BpfProgram nobody: that BpfProgram is not to run on this node"),
        (from("a-lender", "n"), &a_lender(json!({})), "that BpfProgram has no such map, name one of its maps: m"),
        (from("a-lender", "m"), &a_lender(json!({"pinning": "None"})), "not pinned there (pinning: None)"),
        (from("a-lender", "m"), &a_lender(from("borrower", "m")), "in a circle"),
        (from("a-lender", "m"), &a_lender(from("nobody", "m")), "it is not pinned on this node yet"),
        (from("z-lender", "n"), &[("z-lender", json!({}))], "it is not pinned on this node yet"),
    ] {
        let message = refusal(map_ref, others).unwrap();
        assert!(message.contains(words), "{message}");
        provoked(Reason::SharedMapNotFound, &message);
    }
}

/// Whichever of the two a pass comes to first.
#[test]
fn a_map_is_shared_within_one_pass() {
    for lender in ["a-lender", "z-lender"] {
        assert_eq!(refusal(from(lender, "m"), &[(lender, json!({"sharing": "Shared"}))]), None);
    }
}
