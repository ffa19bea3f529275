//! The command line on a real API server: what it prints is what kubectl prints, and what rights it lacks it names.
//!
//! KUBECONFIG names the API server (tests/run.sh starts one: `tests/cluster/cluster.sh api-up DIR`), and kubectl is in
//! PATH.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Once,
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

/// Runs a command with this input.
fn run(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that fails at once reads nothing.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn kubectl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.args(arguments);
    let output = run(command, input);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs sockeye, and returns its exit code and what it writes to standard output and error.
fn sockeye(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockeye"));
    command.args(arguments);
    let Output { status, stdout, stderr } = run(command, "");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples").join(name);
    path.to_str().unwrap().to_owned()
}

/// The status of a BpfProgram that tests every kind of column.
fn status() -> String {
    let ready = json!({
        "type": "Ready", "status": "False", "reason": "VerifierRejected", "message": "x <&> \"y\"\nsecond line",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let counts = json!({
        "desired": 2, "updated": 1, "attached": 1, "suspended": 0, "failed": 1, "unknown": 0, "withoutAgent": 0,
    });
    let summary = json!({
        "type": "SockOps", "links": 3, "programIDs": "7,8", "mapIDs": "5", "allProgramIDs": "7,8", "allMapIDs": "5",
        "runningRevisions": "tcp-rtt-1",
    });
    let status = json!({"observedGeneration": 1, "nodes": counts, "summary": summary, "conditions": [ready]});
    json!({"status": status}).to_string()
}

/// Two nodes, a pod on one of them, and a user who may read sockeye's resources and nothing else.
fn surroundings() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let of =
        |version: &str, kind: &str, metadata: Value| json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    let node = |name: &str, disk: &str| of("v1", "Node", json!({"name": name, "labels": {"disk": disk}}));
    let account = of("v1", "ServiceAccount", json!({"name": "default", "namespace": "default"}));
    let mut pod = of("v1", "Pod", json!({"name": "cli-web", "namespace": "default"}));
    pod["spec"] = json!({"nodeName": "cli-a", "containers": [{"name": "app", "image": "x"}]});
    let mut role = of(&format!("{rbac}/v1"), "ClusterRole", json!({"name": "cli-viewer"}));
    role["rules"] = json!([{
        "apiGroups": ["sockeye.dev"], "verbs": ["get", "list"],
        "resources": ["bpfprograms", "bpfrevisions", "bpfnodes", "bpfnodedetails"],
    }]);
    let mut binding = of(&format!("{rbac}/v1"), "ClusterRoleBinding", json!({"name": "cli-viewer"}));
    binding["roleRef"] = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "cli-viewer"});
    binding["subjects"] = json!([{"apiGroup": rbac, "kind": "User", "name": "cli-viewer"}]);
    vec![node("cli-a", "ssd"), node("cli-b", "hdd"), account, pod, role, binding]
}

/// Makes what the tests look at, once in a run.
fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        let crds = example("../chart/files/crds.yaml");
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds], "");
        kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds], "");
        for name in ["tcp-rtt.yaml", "tcp-tune.yaml"] {
            kubectl(&["apply", "-f", &example(name)], "");
        }
        kubectl(&["patch", "bpfprogram", "tcp-rtt", "--subresource=status", "--type=merge", "-p", &status()], "");
        for object in surroundings() {
            kubectl(&["apply", "-f", "-"], &object.to_string());
        }
    });
}

/// Compares what both print. An age may turn from one second to the next in between, so that one of two answers has it.
fn assert_same(arguments: &[&str]) {
    for attempt in 0..10 {
        let (code, before, error) = sockeye(arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        let expected = kubectl(arguments, "");
        let (_, after, _) = sockeye(arguments);
        if [&before, &after].contains(&&expected) {
            return;
        }
        assert!(attempt < 9, "{arguments:?}\nkubectl:\n{expected}\nsockeye:\n{before}\n{after}");
        sleep(Duration::from_millis(300));
    }
}

#[test]
fn tables_names_and_json_are_kubectls() {
    prepare();
    for output in [&[][..], &["-o", "wide"], &["-o", "name"], &["-o", "json"], &["--no-headers"]] {
        for what in [&["bpfprograms"][..], &["bpfprograms", "tcp-rtt"], &["bpfprogram/tcp-rtt"]] {
            assert_same(&[&["get"], what, output].concat());
        }
    }
    let (_, yaml, _) = sockeye(&["get", "tcp-rtt", "-o", "yaml"]);
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    let json: Value = serde_json::from_str(&kubectl(&["get", "bpfprogram", "tcp-rtt", "-o", "json"], "")).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn templates_are_kubectls() {
    prepare();
    for template in [
        "{.items[*].metadata.name}",
        "{range .items[*]}{.metadata.name}{\"\\t\"}{.status.conditions[?(@.type==\"Ready\")].reason}{\"\\n\"}{end}",
        "{.items[?(@.metadata.name==\"tcp-rtt\")].status}",
        "{.items[*]['metadata.name','kind']}",
        "{.items[0].spec.programs[0:2].name}",
        "{.items[-1:].spec.programs[*].name}",
        "{.items[0,1].metadata.name}",
        "{.items[?(@.status.nodes.desired>1)].metadata.name}",
        "{.items[?(@.status.nodes)].metadata.name}",
        "{.missing}{.items[*].spec.attach[0].type} text",
        "no braces",
    ] {
        assert_same(&["get", "bpfprograms", "-o", &format!("jsonpath={template}")]);
    }
    for template in ["{.items[999]}", "{.kind[0]}", "{end}", "{.items[x]}", "{.a"] {
        let output = format!("jsonpath={template}");
        let mut command = Command::new("kubectl");
        command.args(["get", "bpfprograms", "-o", &output]);
        assert!(!run(command, "").status.success(), "kubectl takes {template}");
        assert_ne!(sockeye(&["get", "bpfprograms", "-o", &output]).0, 0, "{template}");
    }
}

#[test]
fn what_is_not_in_effect_is_explained_with_an_exit_code() {
    prepare();
    let (code, page, _) = sockeye(&["why", "tcp-rtt"]);
    assert_eq!(code, 3, "{page}");
    assert!(page.contains("Ready is False: VerifierRejected: x <&> \"y\" second line"), "{page}");
    let (code, _, error) = sockeye(&["why", "nothing"]);
    assert_eq!((code, error.as_str()), (1, "error: bpfprograms.sockeye.dev nothing is not there\n"));
    assert_eq!(sockeye(&["why"]).0, 2);
}

#[test]
fn an_edit_says_which_nodes_and_pods_it_moves() {
    prepare();
    let path = example("tcp-rtt.yaml");
    assert_eq!(sockeye(&["diff", "-f", &path]), (0, String::new(), String::new()));
    let text = std::fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let edited = folder.path().join("edited.yaml");
    let selector = "\nspec:\n  nodeSelector: {matchLabels: {disk: ssd}}\n";
    std::fs::write(&edited, text.replace("\nspec:\n", selector)).unwrap();
    let (code, page, error) = sockeye(&["diff", "-f", edited.to_str().unwrap()]);
    assert_eq!(code, 1, "{error}");
    for line in ["spec.nodeSelector: none -> ", "  + cli-a\n", "  + default/cli-web: measure"] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert!(!page.contains("cli-b"), "{page}");
    assert_eq!(sockeye(&["diff", "-f", "/nonexistent"]).0, 2);
}

#[test]
fn a_right_that_is_missing_is_named_and_costs_nothing_else() {
    prepare();
    let viewer = ["--as", "cli-viewer"];
    let (code, page, _) = sockeye(&[&["why", "tcp-rtt"][..], &viewer].concat());
    assert!(code == 3 && page.contains("VerifierRejected"), "{page}");
    let (code, page, error) = sockeye(&[&["describe", "tcp-rtt"][..], &viewer].concat());
    assert!(code == 0 && page.contains("VerifierRejected"), "{page}{error}");
    assert!(error.contains("you may not list pods in sockeye-system"), "{error}");
    let (code, _, error) = sockeye(&["get", "--as", "cli-nobody"]);
    let expected = "error: you may not list bpfprograms.sockeye.dev: ask for a role that allows it\n";
    assert_eq!((code, error.as_str()), (1, expected));
}
