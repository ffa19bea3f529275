//! The size of the report of a node with very many BpfPrograms.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use sockeye_agent::{
    control::{
        Controller,
        event::{Event, Report},
    },
    model::assignment::{Assignment, UnreadableRevision},
};
use sockeye_crds::{
    BpfRevision, Reason, Refusal,
    names::digest,
    node::{NodeProgram, State},
};
use sockeye_crds_testing::provoked;
use sockeye_fake::{FakeNode, settings, settle};

const OBJECT: &[u8] = b"object";

/// Returns a revision of a BpfProgram, with the default name.
fn revision(name: &str) -> BpfRevision {
    let template = json!({
        "digest": digest(OBJECT), "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}],
        "object": {"license": "GPL", "btf": true,
            "programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}],
            "maps": [{"name": "my_map", "type": "Array", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 10,
                "flags": 0, "definition": "BTF", "usedBy": ["my_prog"]}]},
    });
    let spec = json!({
        "state": "Active", "programRef": {"name": name, "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"},
        "programGeneration": 1, "sequence": 1, "template": template,
    });
    BpfRevision::of(serde_json::from_value(spec).unwrap())
}

fn assigned(revisions: impl Iterator<Item = BpfRevision>) -> Assignment {
    let revisions = revisions.map(|revision| (revision.spec.program_ref.name.clone(), Arc::new(revision))).collect();
    let objects = [(digest(OBJECT), OBJECT.into())].into();
    Assignment { revisions, objects, complete: true, ..Assignment::default() }
}

fn controller() -> Controller<FakeNode> {
    Controller::new(FakeNode::default(), settings(), Instant::now())
}

fn report(controller: &mut Controller<FakeNode>, assignment: Assignment) -> Report {
    settle(controller, [Event::AssignmentChanged(Arc::new(assignment))]);
    controller.report()
}

fn reported(names: impl Iterator<Item = String>) -> Report {
    report(&mut controller(), assigned(names.map(|name| revision(&name))))
}

#[test]
fn a_status_of_a_thousand_programs_fits_and_lists_all_of_them() {
    for (what, name) in [("short", "p"), ("longer", "connect-audit-of-team-billing"), ("longest", &"x".repeat(58))] {
        let Report { status, detail, .. } = reported((0..1000).map(|n| format!("{name}-{n:04}")));
        let [node, rest] = [serde_json::to_vec(&status), serde_json::to_vec(&detail)].map(|json| json.unwrap().len());
        let list: usize = status.programs.iter().map(NodeProgram::bytes).sum();
        println!("{what} names: {node} bytes, {list} of them the texts; {rest} of details: {:?}", detail.omitted);
        assert!(node < 320 << 10 && rest <= 512 << 10, "{what}: {node} and {rest} bytes");
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

#[test]
fn a_program_that_was_deleted_and_made_again_is_another_one() {
    let [mut before, mut again] = [revision("guard"), revision("guard")];
    before.spec.program_ref.uid = "before".to_owned();
    again.spec.program_ref.uid = "again".to_owned();
    let mut controller = controller();
    let ids = [before, again].map(|revision| {
        let uid = revision.spec.program_ref.uid.clone();
        // This node learns of both at once, as after it was cut off.
        let report = report(&mut controller, assigned([revision].into_iter()));
        let [program] = &report.status.programs[..] else { panic!("{:?}", report.status.programs) };
        assert_eq!((&program.uid, program.state), (&uid, State::Attached));
        program.program_ids.clone()
    });
    assert_ne!(ids[0], ids[1], "the earlier one's objects are gone");
}

#[test]
fn a_revision_that_can_not_be_read_is_reported_also_where_nothing_of_its_program_is() {
    let runs = || assigned([revision("runs")].into_iter());
    let unreadable = |name: &str| {
        let why = Refusal { reason: Reason::AgentTooOld, message: "upgrade the agents".to_owned() };
        let revision = UnreadableRevision { name: Some(format!("{name}-2")), uid: Some(format!("uid of {name}")), why };
        (name.to_owned(), revision)
    };
    let mut controller = controller();
    report(&mut controller, runs());
    let unreadable = ["new", "runs"].map(unreadable).into();
    let frozen = report(&mut controller, Assignment { unreadable, revisions: Default::default(), ..runs() });
    let [new, running] = &frozen.status.programs[..] else { panic!("{:?}", frozen.status.programs) };
    for (program, uid, desired) in [(new, "uid of new", "new-2"), (running, "uid of runs", "runs-2")] {
        assert_eq!((program.state, program.reason), (State::Failed, Some(Reason::AgentTooOld)));
        assert_eq!((&*program.uid, program.desired_revision.as_deref()), (uid, Some(desired)));
    }
    assert_eq!((new.revision.as_deref(), running.revision.as_deref(), running.links), (None, Some("runs-1"), 1));
    let later = report(&mut controller, runs());
    let [program] = &later.status.programs[..] else { panic!("{:?}", later.status.programs) };
    assert_eq!((program.state, program.program_ids.clone()), (State::Attached, running.program_ids.clone()));
}

#[test]
fn a_program_whose_pods_can_not_be_listed_is_reported() {
    let mut revision = revision("guard");
    let pods = json!([{"type": "Pods", "pods": {"podSelector": {}}}]);
    revision.spec.template.programs[0].attach = serde_json::from_value(pods).unwrap();
    let mut controller = controller();
    let unlisted = || assigned([revision.clone()].into_iter());
    let listed = || Assignment { pods: Some(Arc::default()), ..unlisted() };
    // The first list takes a moment, of which nothing is said.
    let start = report(&mut controller, unlisted());
    assert!(start.status.programs.iter().all(|program| program.reason.is_none()), "{:?}", start.status.programs);
    let later = Instant::now() + Duration::from_secs(10);
    let lasting = [Event::AssignmentChanged(Arc::new(unlisted()))];
    let mut result = controller.step(later, lasting);
    while result.wake <= later {
        result = controller.step(later, []);
    }
    let lasting = controller.report();
    let [program] = &lasting.status.programs[..] else { panic!("{:?}", lasting.status.programs) };
    assert_eq!((program.state, program.reason), (State::Failed, Some(Reason::InputsUnavailable)));
    provoked(program.reason, program.message.as_deref().unwrap());
    assert_eq!(program.uid, revision.spec.program_ref.uid);
    // With a loaded program that is said at once.
    for assignment in [listed(), unlisted(), unlisted(), listed()] {
        let (is_known, report) = (assignment.pods.is_some(), report(&mut controller, assignment));
        let [program] = &report.status.programs[..] else { panic!("{:?}", report.status.programs) };
        assert_eq!(program.uid, revision.spec.program_ref.uid);
        let expected =
            if is_known { (State::Attached, None) } else { (State::Failed, Some(Reason::InputsUnavailable)) };
        assert_eq!((program.state, program.reason), expected);
    }
    // It can be suspended all the same.
    revision.spec.template.suspend = true;
    revision.metadata.name = Some("guard-2".to_owned());
    let report = report(&mut controller, assigned([revision].into_iter()));
    assert_eq!((report.status.programs[0].state, report.status.programs[0].links), (State::Suspended, 0));
}

#[test]
fn a_suspended_program_says_who_suspended_it() {
    let mut revision = revision("guard");
    revision.spec.template.suspend = true;
    let mut controller = controller();
    let report = report(&mut controller, assigned([revision].into_iter()));
    let [program] = &report.status.programs[..] else { panic!("{:?}", report.status.programs) };
    assert_eq!((program.state, program.reason), (State::Suspended, Some(Reason::Suspended)));
    let message = program.message.as_deref().unwrap();
    assert!(message.starts_with("spec.suspend is true"), "{message}");
    provoked(program.reason, message);
}
