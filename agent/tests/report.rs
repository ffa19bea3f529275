//! The size of the report of a node with very many BpfPrograms.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sockeye_agent::{
    control::{Controller, controller::Settings, event::Event},
    model::assignment::Assignment,
    node::layout::Layout,
    plan::quota::MapQuota,
};
use sockeye_crds::{
    BpfNodeStatus, BpfRevision,
    names::digest,
    node::{NodeFacts, State},
};
use sockeye_fake::{FakeNode, settle};

const OBJECT: &[u8] = b"object";

/// Returns a revision of a BpfProgram, with the default name.
fn revision(name: &str) -> BpfRevision {
    let spec = json!({
        "program": {"name": name, "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"}, "generation": 1, "sequence": 1,
        "digest": digest(OBJECT), "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
        "object": {"license": "GPL", "btf": true,
            "programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}],
            "maps": [{"name": "my_map", "type": "Array", "keySize": 4, "valueSize": 8, "maxEntries": 10, "flags": 0,
                "definition": "Btf", "usedBy": ["my_prog"]}]},
    });
    BpfRevision::named(serde_json::from_value(spec).unwrap())
}

fn reported(names: impl Iterator<Item = String>) -> BpfNodeStatus {
    let revisions = names.map(|name| (name.clone(), Arc::new(revision(&name)))).collect();
    let objects = [(digest(OBJECT), OBJECT.into())].into();
    let assignment = Assignment { revisions, objects, complete: true, ..Assignment::default() };
    let layout = Layout::new(Path::new("/sys/fs/bpf"), Path::new("/sys/fs/bpf"));
    let settings =
        Settings { layout, quota: MapQuota::default(), facts: NodeFacts::default(), time_of_day: Timestamp::now };
    let mut controller = Controller::new(FakeNode::default(), settings, Instant::now());
    settle(&mut controller, [Event::AssignmentChanged(Arc::new(assignment))]);
    controller.status()
}

#[test]
fn a_status_of_a_thousand_programs_fits_and_lists_all_of_them() {
    for (what, name) in [("short", "p"), ("longer", "connect-audit-of-team-billing"), ("longest", &"x".repeat(58))] {
        let status = reported((0..1000).map(|n| format!("{name}-{n:04}")));
        let bytes = serde_json::to_vec(&status).unwrap().len();
        let list = serde_json::to_vec(&status.programs).unwrap().len();
        println!("{what} names: {bytes} bytes, {list} of them the list; cut: {:?}", status.truncated);
        assert!(bytes < 256 << 10, "{what}: {bytes} bytes");
        assert_eq!(status.programs.len(), 1000);
        assert!(status.programs.iter().all(|p| p.state == State::Attached && p.program_ids.len() == 1));
        let cut = status.truncated.unwrap();
        assert_eq!(cut.details, 1000 - i64::try_from(status.details.len()).unwrap(), "details left out are counted");
    }
}

#[test]
fn a_status_of_few_programs_is_whole() {
    let status = reported((0..20).map(|n| format!("p-{n}")));
    assert_eq!((status.truncated, status.details.len()), (None, 20));
    assert!(status.details.iter().all(|d| d.links.len() == 1 && d.maps.len() == 1));
}
