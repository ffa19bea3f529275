//! The size of the report of a node with very many BpfPrograms.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sockeye_agent::{
    control::{
        Controller,
        controller::Settings,
        event::{Event, Report},
    },
    model::assignment::Assignment,
    node::layout::Layout,
    plan::quota::MapQuota,
};
use sockeye_crds::{
    BpfRevision,
    names::digest,
    node::{NodeFacts, State},
};
use sockeye_fake::{FakeNode, settle};

const OBJECT: &[u8] = b"object";

/// Returns a revision of a BpfProgram, with the default name.
fn revision(name: &str) -> BpfRevision {
    let template = json!({
        "digest": digest(OBJECT), "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}],
        "object": {"license": "GPL", "btf": true,
            "programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}],
            "maps": [{"name": "my_map", "type": "Array", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 10,
                "flags": 0, "definition": "Btf", "usedBy": ["my_prog"]}]},
    });
    let spec = json!({
        "state": "Active", "programRef": {"name": name, "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"},
        "programGeneration": 1, "sequence": 1, "template": template,
    });
    BpfRevision::of(serde_json::from_value(spec).unwrap())
}

fn reported(names: impl Iterator<Item = String>) -> Report {
    let revisions = names.map(|name| (name.clone(), Arc::new(revision(&name)))).collect();
    let objects = [(digest(OBJECT), OBJECT.into())].into();
    let assignment = Assignment { revisions, objects, complete: true, ..Assignment::default() };
    let layout = Layout::new(Path::new("/sys/fs/bpf"), Path::new("/sys/fs/bpf"));
    let settings = Settings {
        layout,
        quota: MapQuota::default(),
        facts: NodeFacts::default(),
        release_namespace: None,
        time_of_day: Timestamp::now,
    };
    let mut controller = Controller::new(FakeNode::default(), settings, Instant::now());
    settle(&mut controller, [Event::AssignmentChanged(Arc::new(assignment))]);
    controller.report()
}

#[test]
fn a_status_of_a_thousand_programs_fits_and_lists_all_of_them() {
    for (what, name) in [("short", "p"), ("longer", "connect-audit-of-team-billing"), ("longest", &"x".repeat(58))] {
        let Report { status, detail, .. } = reported((0..1000).map(|n| format!("{name}-{n:04}")));
        let [node, rest] = [serde_json::to_vec(&status), serde_json::to_vec(&detail)].map(|json| json.unwrap().len());
        let list = serde_json::to_vec(&status.programs).unwrap().len();
        println!("{what} names: {node} bytes, {list} of them the list; {rest} of details: {:?}", detail.omitted);
        assert!(node < 256 << 10 && rest <= 512 << 10, "{what}: {node} and {rest} bytes");
        assert_eq!(status.programs.len(), 1000);
        assert!(status.programs.iter().all(|p| p.state == State::Attached && p.program_ids.len() == 1));
        let omitted = detail.omitted.unwrap();
        let (listed, left_out) = (i64::try_from(detail.programs.len()).unwrap(), omitted.programs);
        assert!(listed > 0 && listed + left_out == 1000, "details left out are counted: {listed} and {left_out}");
    }
}

#[test]
fn a_report_of_few_programs_is_whole() {
    let Report { status, detail, older_layout, awaiting, assignment } = reported((0..20).map(|n| format!("p-{n}")));
    assert_eq!((status.omitted, detail.omitted, older_layout), (None, None, None));
    assert_eq!((status.programs.len(), detail.programs.len()), (20, 20));
    assert!(detail.programs.iter().all(|d| d.links.len() == 1 && d.maps.len() == 1));
    assert!(awaiting.is_empty() && assignment.is_some_and(|assignment| assignment.revisions.len() == 20));
}
