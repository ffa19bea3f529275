//! The verbs of a node without a cluster, on a folder as its agent keeps it; exit codes; and what is printed where.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

const PROGRAM: &str = "apiVersion: sockeye.dev/v1alpha1
kind: BpfProgram
metadata: {name: tcp-rtt}
spec:
  bytecode: {builtin: tcp-rtt}
  attach: [{type: AllPods}]
  programs: [{name: measure}]
";

fn sockeye(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockeye"));
    command.arg("--node-dir").arg(folder).args(arguments).env_remove("SOCKEYE_SOCKET");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Writes the status that an agent would write.
fn report(folder: &Path, ready: &str, reason: &str) {
    let time = "'2026-01-01T00:00:00Z'";
    let status = format!(
        "{PROGRAM}status:
  observedGeneration: 1
  conditions:
  - {{type: Ready, status: '{ready}', reason: {reason}, message: m, lastTransitionTime: {time}}}
"
    );
    fs::write(folder.join("tcp-rtt.status.yaml"), status).unwrap();
}

#[test]
fn manifests_are_applied_and_deleted_whole_or_not_at_all() {
    let (node, mine) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let folder = node.path();
    let good = mine.path().join("good.yaml");
    fs::write(&good, PROGRAM).unwrap();
    let bad = mine.path().join("bad.yaml");
    fs::write(&bad, PROGRAM.replace("name: tcp-rtt", "name: other").replace("measure", "no_such_program")).unwrap();
    let apply = |file: &Path| sockeye(folder, &["apply", "-f", file.to_str().unwrap()]);

    let (code, _, error) = apply(mine.path());
    assert!(code == 1 && error.contains("no_such_program") && error.lines().count() == 1, "{error}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "nothing is written if one is wrong");
    assert_eq!(apply(&good).1, "bpfprogram.sockeye.dev/tcp-rtt created\n");
    assert_eq!(apply(&good).1, "bpfprogram.sockeye.dev/tcp-rtt unchanged\n");
    fs::write(&good, PROGRAM.replace("AllPods", "Node")).unwrap();
    let dry = sockeye(folder, &["apply", "--dry-run", "-f", good.to_str().unwrap()]).1;
    assert_eq!(dry, "bpfprogram.sockeye.dev/tcp-rtt configured (dry run)\n");
    assert_eq!(apply(&good).1, "bpfprogram.sockeye.dev/tcp-rtt configured\n");
    let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tcp-rtt.yaml"], "nothing half-written stays");

    assert_eq!(sockeye(folder, &["delete", "tcp-rtt"]).1, "bpfprogram.sockeye.dev/tcp-rtt deleted\n");
    let (code, _, error) = sockeye(folder, &["delete", "tcp-rtt"]);
    assert!(code == 1 && error.contains("has no manifest of tcp-rtt"), "{error}");
    assert_eq!(sockeye(folder, &["delete", "--ignore-not-found", "tcp-rtt"]).0, 0);
}

#[test]
fn the_status_is_the_agents_and_the_exit_code_says_whether_all_is_well() {
    let node = TempDir::new().unwrap();
    let folder = node.path();
    fs::write(folder.join("tcp-rtt.yaml"), PROGRAM).unwrap();
    let (code, _, error) = sockeye(folder, &["status"]);
    assert!(code == 3 && error.contains("without a status yet"), "{error}");
    report(folder, "False", "KernelUnsupported");
    let (code, table, error) = sockeye(folder, &["status"]);
    let said = error.contains("tcp-rtt: KernelUnsupported: m");
    assert!(code == 3 && table.contains("tcp-rtt") && said, "{table}{error}");
    assert_eq!(sockeye(folder, &["why", "tcp-rtt"]).0, 3);
    report(folder, "True", "InEffect");
    let (code, _, error) = sockeye(folder, &["status"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(sockeye(folder, &["why", "tcp-rtt"]).0, 0);
    let template = "jsonpath={.items[0].status.conditions[0].reason}";
    assert_eq!(sockeye(folder, &["get", "-o", template]).1, "InEffect");
    fs::write(folder.join("tcp-rtt.status.yaml"), PROGRAM.replace("programs: [{name: measure}]", "programs: 5"))
        .unwrap();
    let (code, _, error) = sockeye(folder, &["status"]);
    assert!(code == 3 && error.contains("the status of tcp-rtt can't be read"), "{error}");
}

#[test]
fn errors_are_one_line_and_no_colour_goes_into_a_pipe() {
    let node = TempDir::new().unwrap();
    for (arguments, code) in [
        (&["get", "programs", "nothing"][..], 1),
        (&["maps", "list"], 1),
        (&["which", "web"], 1),
        (&["get", "-o", "xml"], 2),
        (&["nonsense"], 2),
        (&["inspect", "/nonexistent"], 1),
        (&["push", "/nonexistent", "r.example/a:v1"], 1),
    ] {
        let (actual, printed, error) = sockeye(node.path(), arguments);
        assert_eq!((actual, printed.as_str()), (code, ""), "{arguments:?}: {error}");
        assert!(code == 2 || (error.starts_with("error: ") && error.lines().count() == 1), "{arguments:?}: {error}");
        assert!(!error.contains('\u{1b}'), "{arguments:?}: {error}");
    }
}
