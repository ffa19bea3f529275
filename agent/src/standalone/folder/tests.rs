//! Tests of `Folder`, on files.

use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/examples/tcp-events.yaml");

fn manifest(name: &str) -> String {
    EXAMPLE.replacen("name: tcp-events", &format!("name: {name}"), 1)
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
        fs::write(folder.path().join("mine.status.yaml"), "my: own notes").unwrap();
        let mut open = Folder::open(folder.path(), "n", boot_id).unwrap();
        assert!(open.scan().unwrap() && open.manifests.len() == 2, "manifests stay");
        let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".status.yaml")).collect();
        names.sort();
        names
    };
    assert_eq!(left("another"), ["mine.status.yaml"], "others' files are left alone");
    assert_eq!(left("this"), ["a.status.yaml", "b.c.status.yaml", "mine.status.yaml", NODE_STATUS]);
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
    // Once the first is gone, the second runs.
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    open.scan().unwrap();
    assert_eq!(priority(&open), Some(7));
}
