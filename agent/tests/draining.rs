//! A suspended BpfProgram with sockets in a map: they are counted every few seconds, and its lists are left alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use sockeye_agent::{
    control::{Controller, event::Event},
    model::assignment::Assignment,
};
use sockeye_crds::{BpfRevision, names::digest};
use sockeye_ebpf::programs::fixtures::LISTS;
use sockeye_fake::{FakeNode, settings};

fn assignment() -> Assignment {
    let hash = json!({"name": "hash", "type": "Hash", "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 16,
        "definition": "BTF"});
    let template = json!({
        "digest": digest(LISTS), "suspend": true, "programs": [{"name": "ask", "attach": [{"type": "Node"}]}],
        "object": {"programs": [{"name": "ask", "section": "cgroup_skb/egress", "type": "CgroupSkb"}], "maps": [hash]},
        "maps": [{"name": "hash", "entriesPolicy": "Sync", "entries": [{"key": 1, "value": 1}]}],
    });
    let spec = json!({
        "state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
        "template": template,
    });
    let revision = Arc::new(BpfRevision::of(serde_json::from_value(spec).unwrap()));
    Assignment {
        revisions: [("p".to_owned(), revision)].into(),
        objects: [(digest(LISTS), LISTS.into())].into(),
        complete: true,
        ..Assignment::default()
    }
}

#[test]
fn sockets_are_counted_without_a_comparison_of_entries() {
    let (node, mut now) = (FakeNode::default(), Instant::now());
    let mut controller = Controller::new(node.clone(), settings(), now);
    let mut pass = |events: Vec<Event>, seconds: u64| {
        let mut events = Some(events);
        for _ in 0..=seconds {
            while controller.step(now, events.take().unwrap_or_default()).wake <= now {}
            now += Duration::from_secs(1);
        }
    };
    pass(vec![Event::AssignmentChanged(Arc::new(assignment()))], 1);
    let (_, comparisons) = node.looks();
    assert!(comparisons > 0, "the list is kept in sync");
    node.set_sockets("p", "hash", 2);
    // A sweep, after which the sockets are known.
    pass(vec![Event::HomesChanged(sockeye_agent::node::watch::Change::Anything)], 1);
    let (observations, comparisons) = node.looks();
    pass(Vec::new(), 60);
    let (observed, compared) = node.looks();
    let (observed, compared) = (observed - observations, compared - comparisons);
    assert!(observed >= 12, "{observed} observations in a minute");
    assert!((3..=6).contains(&compared), "{compared} comparisons: every ten seconds, and no more");
}
