//! Tests of `Folder`, on files.

use sockeye_crds_testing::provoked;

use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/examples/tcp-events.yaml");

fn manifest(name: &str) -> String {
    EXAMPLE.replacen("name: tcp-events-builtin", &format!("name: {name}"), 1)
}

#[test]
fn statuses_of_another_boot_or_of_no_manifest_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let status = "apiVersion: sockeye.dev/v1alpha1\nkind: BpfProgram\nstatus: {}\n";
    let left = |boot_id: &str| {
        for name in ["a.yaml", "a.status.yaml", "b.c.yml", "b.c.status.yaml", "gone.status.yaml"] {
            fs::write(folder.path().join(name), if name.contains("status") { status } else { "" }).unwrap();
        }
        fs::write(folder.path().join(NODE_STATUS), "metadata: {}\nspec: {}\nstatus: {node: {bootID: this}}").unwrap();
        fs::write(folder.path().join(NODE_DETAIL), "").unwrap();
        fs::write(folder.path().join("mine.status.yaml"), "my: own notes").unwrap();
        let mut open = Folder::open(folder.path(), "n", boot_id).unwrap();
        assert!(open.scan().unwrap() && open.manifests.len() == 2, "manifests stay");
        let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".status.yaml")).collect();
        names.sort();
        names
    };
    assert_eq!(left("another"), ["mine.status.yaml"], "others' files are left alone");
    assert_eq!(left("this"), ["a.status.yaml", "b.c.status.yaml", "mine.status.yaml", NODE_DETAIL, NODE_STATUS]);
}

#[test]
fn the_same_object_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(folder.path().join(format!("{name}.yaml")), manifest(name)).unwrap();
    }
    let mut open = Folder::open(folder.path(), "n", "b").unwrap();
    open.scan().unwrap();
    let kept: Vec<_> = open.manifests.values().map(|manifest| &manifest.dispatched.as_ref().unwrap().bytes).collect();
    assert!(kept.len() == 2 && Arc::ptr_eq(kept[0], kept[1]));
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    open.scan().unwrap();
    assert_eq!(open.objects.0.len(), 1, "the other one still has it");
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    open.scan().unwrap();
    assert!(open.objects.0.is_empty());
}

#[test]
fn of_two_manifests_of_one_name_the_first_runs_and_the_other_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), manifest("same")).unwrap();
    let second = manifest("same").replacen("spec:", "spec:\n  priority: 7", 1);
    fs::write(folder.path().join("b.yaml"), &second).unwrap();
    let mut open = Folder::open(folder.path(), "n", "b").unwrap();
    open.scan().unwrap();
    let priority = |open: &Folder| open.assignment().revisions["same"].spec.template.priority;
    assert_eq!((priority(&open), open.unready().contains(&"b.yaml".to_owned())), (None, true));
    let Acceptance::Refused { message, .. } = &open.manifests[&folder.path().join("b.yaml")].acceptance else {
        panic!("accepted")
    };
    assert!(message.contains("a.yaml"), "{message}");
    provoked(Reason::InvalidSpec, message);
    // Once the first is gone, the second runs.
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    open.scan().unwrap();
    assert_eq!(priority(&open), Some(7));
}

#[test]
fn a_map_that_is_not_shared_is_lent_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, map: &str| {
        let manifest = manifest(name).replacen("spec:", &format!("spec:\n  maps: [{map}]"), 1);
        fs::write(folder.path().join(format!("{name}.yaml")), manifest).unwrap();
    };
    let mut open = Folder::open(folder.path(), "n", "b").unwrap();
    let mut scan = || {
        open.scan().unwrap();
        let refusal = match &open.manifests[&folder.path().join("borrower.yaml")].acceptance {
            Acceptance::Refused { reason, message } => Some((*reason, message.clone())),
            Acceptance::Accepted { .. } => None,
        };
        (refusal, open.assignment())
    };
    write("borrower", "{name: my_map, mapRef: {program: lender, name: my_map}}");
    let (refusal, assignment) = scan();
    assert!(refusal.is_none() && assignment.revisions.contains_key("borrower"), "{refusal:?}: there is no lender yet");
    write("lender", "{name: my_map, maxEntries: 7}");
    let (refusal, assignment) = scan();
    let (reason, message) = refusal.unwrap();
    assert_eq!(reason, Reason::MapNotShared, "{message}");
    provoked(reason, &message);
    assert!(
        message.starts_with("spec.maps[0].mapRef: BpfProgram lender ") && message.contains("sharing: Shared"),
        "{message}"
    );
    assert!(assignment.complete && assignment.unreadable.contains_key("borrower"), "what it has stays");
    assert!(assignment.revisions.contains_key("lender"));
    write("lender", "{name: my_map, maxEntries: 7, sharing: Shared}");
    let (refusal, assignment) = scan();
    assert!(refusal.is_none() && assignment.revisions.len() == 2, "{refusal:?}");
}

#[test]
fn another_content_is_another_revision_and_the_same_content_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let revision = |manifest: &str| {
        fs::write(folder.path().join("a.yaml"), manifest).unwrap();
        let mut open = Folder::open(folder.path(), "n", "b").unwrap();
        open.scan().unwrap();
        let revision = Arc::clone(&open.assignment().revisions["a"]);
        assert!(revision.is_live(), "{:?}", revision.metadata.name);
        revision.metadata.name.clone()
    };
    let first = revision(&manifest("a"));
    let edited = manifest("a").replacen("spec:", "spec:\n  priority: 7", 1);
    assert_ne!(revision(&edited), first);
    assert_eq!(revision(&manifest("a")), first);
}

#[test]
fn the_nodes_own_statuses_are_written_and_a_transition_keeps_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut report = Report::default();
    report.status.node.boot_id = "b".to_owned();
    let ready = |at: i64, report: &Report| {
        let mut open = Folder::open(folder.path(), "n", "b").unwrap();
        open.write(report, Timestamp::from_second(at).unwrap()).unwrap();
        let text = fs::read_to_string(folder.path().join(NODE_STATUS)).unwrap();
        let node: BpfNode = serde_saphyr::from_str(&text).unwrap();
        let ready = condition::find(&node.status.unwrap().conditions, ConditionType::Ready).cloned().unwrap();
        (ready.status, ready.last_transition_time.0.as_second())
    };
    assert_eq!(ready(1, &report), (condition::Status::True, 1));
    assert_eq!(ready(2, &report), (condition::Status::True, 1), "the next agent keeps it");
    report.status.suspended = Some("drill".to_owned());
    assert_eq!(ready(3, &report), (condition::Status::False, 3));
    let text = fs::read_to_string(folder.path().join(NODE_DETAIL)).unwrap();
    let detail: BpfNodeDetail = serde_saphyr::from_str(&text).unwrap();
    assert_eq!((detail.metadata.name.as_deref(), detail.status), (Some("n"), Some(BpfNodeDetailStatus::default())));
}
