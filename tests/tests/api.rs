//! The CRD schemas, on a real API server: valid objects are accepted, and invalid ones refused with the name of the
//! field.
//!
//! KUBECONFIG names the API server (tests/run.sh starts one: `tests/cluster/cluster.sh api-up DIR`).
#![allow(missing_docs)]

use std::{process::Command, sync::Once};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sockeye_tests::{
    chart::{self, kubectl},
    repo, run,
};

fn apply_crds() -> Result<()> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| outcome = chart::apply_crds());
    outcome
}

/// Asks the API server whether it would accept an object; nothing is stored.
fn dry_run(object: &Value) -> Result<String> {
    kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], &object.to_string())
}

fn program() -> Value {
    json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": "tcp-events"},
        "spec": {
            "bytecode": {"inline": "f0VMRg=="},
            "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
        },
    })
}

/// Returns the valid program with the value at a JSON pointer replaced, or removed by null.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = program();
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        if value.is_null() { drop(parent.remove(key)) } else { drop(parent.insert(key.to_owned(), value)) }
    }
    object
}

#[test]
fn valid_objects_are_accepted() -> Result<()> {
    apply_crds()?;
    let attach = |attach: Value| with("/spec/programs", json!([{"name": "my_prog", "attach": attach}]));
    for (what, object) in [
        ("the least", program()),
        ("a ConfigMap", with("/spec/bytecode", json!({"configMap": {"name": "objects", "key": "tcp.o"}}))),
        (
            "a type",
            with(
                "/spec/programs",
                json!([{"name": "my_prog", "type": "SockOps", "attach": [{"cgroup": {"scope": "Node"}}]}]),
            ),
        ),
        ("a path", attach(json!([{"cgroup": {"scope": "Path", "path": "/system.slice/a.service"}}]))),
        ("a builtin", with("/spec/bytecode", json!({"builtin": "tcp-events"}))),
        ("a map to attach to", attach(json!([{"map": "sock_hash"}]))),
        (
            "map settings",
            with(
                "/spec/maps",
                json!([{"name": "my_map", "pin": false, "maxEntries": 4294967295u32, "onDelete": "Retain"}]),
            ),
        ),
        (
            "globals",
            with(
                "/spec/globals",
                json!({
                    "rate": 1, "wide": "0x10", "on": true, "text": "a", "list": [1, "2"], "deep": {"a": {"b": [1]}},
                }),
            ),
        ),
        (
            "first entries",
            with(
                "/spec/maps",
                json!([{"name": "m", "initial": [
                    {"key": 1, "value": {"a": [1]}}, {"key": "10.0.0.0/8", "value": 1}, {"value": true},
                ]}]),
            ),
        ),
        (
            "another's map",
            with("/spec/maps", json!([{"name": "my_map", "from": {"program": "other", "map": "my_map"}}])),
        ),
        ("a priority", with("/spec/priority", json!(0))),
        ("a selector", with("/spec/nodeSelector", json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}))),
        ("the longest name", with("/metadata/name", json!("n".repeat(63)))),
        ("the largest inline", with("/spec/bytecode/inline", json!("A".repeat(174_763) + "="))),
    ] {
        dry_run(&object).with_context(|| what.to_owned())?;
    }
    // The examples, with the folders below.
    let examples = repo().join("deploy/examples").display().to_string();
    kubectl(&["create", "--dry-run=server", "--validate=strict", "--recursive", "-f", &examples], "")?;
    Ok(())
}

#[test]
fn an_invalid_object_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    let attach = |attach: Value| with("/spec/programs", json!([{"name": "my_prog", "attach": attach}]));
    let node = json!([{"cgroup": {"scope": "Node"}}]);
    for (object, field) in [
        (with("/spec/bytecode", json!({})), "spec.bytecode"),
        (with("/spec/bytecode", json!({"inline": "AA==", "configMap": {"name": "a", "key": "b"}})), "spec.bytecode"),
        (with("/spec/bytecode", json!({"inline": "AA==", "builtin": "tcp-events"})), "spec.bytecode"),
        (with("/spec/bytecode", json!({"builtin": "tcp-rtts"})), "spec.bytecode.builtin"),
        (with("/spec/bytecode/inline", json!("not base64!")), "spec.bytecode.inline"),
        (with("/spec/bytecode/inline", json!("A".repeat(174_768))), "spec.bytecode.inline"),
        (with("/spec/bytecode/inline", json!("A".repeat(174_764))), "spec.bytecode.inline"),
        (with("/spec/bytecode", json!({"configMap": {"name": "A_b", "key": "k"}})), "spec.bytecode.configMap.name"),
        (with("/spec/bytecode", json!({"configMap": {"name": "a", "key": "a b"}})), "spec.bytecode.configMap.key"),
        (with("/spec/nodeSelector", json!({"matchLabels": {"a": "b c"}})), "spec.nodeSelector.matchLabels.a"),
        (
            with("/spec/nodeSelector", json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]})),
            "spec.nodeSelector.matchExpressions[0].key",
        ),
        (
            with(
                "/spec/nodeSelector",
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            ),
            "spec.nodeSelector.matchExpressions[0]",
        ),
        (
            attach(json!([{"cgroup": {"scope": "Pods", "podSelector": {"matchExpressions": [
                {"key": "a", "operator": "NotIn", "values": []},
            ]}}}])),
            "spec.programs[0].attach[0].cgroup.podSelector.matchExpressions[0]",
        ),
        (with("/spec/bytecode", json!({"configMap": {"name": "a"}})), "spec.bytecode.configMap.key"),
        (with("/spec/bytecode", Value::Null), "spec.bytecode"),
        (with("/spec/programs", json!([])), "spec.programs"),
        (with("/spec/programs", Value::Null), "spec.programs"),
        (with("/spec/programs", json!([{"name": "a/b", "attach": node}])), "spec.programs[0].name"),
        (with("/spec/programs", json!([{"name": "p".repeat(129), "attach": node}])), "spec.programs[0].name"),
        (
            with("/spec/programs", json!([{"name": "p", "attach": node}, {"name": "p", "attach": node}])),
            "spec.programs[1]",
        ),
        (with("/spec/programs", json!([{"name": "p", "type": "Xdp", "attach": node}])), "spec.programs[0].type"),
        (attach(json!([])), "spec.programs[0].attach"),
        (attach(json!([{}])), "spec.programs[0].attach[0]"),
        (attach(json!([{"cgroup": {"scope": "Node"}, "map": "m"}])), "spec.programs[0].attach[0]"),
        (attach(json!([{"cgroup": {"scope": "Everywhere"}}])), "spec.programs[0].attach[0].cgroup.scope"),
        (attach(json!([{"cgroup": {"scope": "Path"}}])), "spec.programs[0].attach[0].cgroup.path"),
        (attach(json!([{"cgroup": {"scope": "Node", "path": "/a"}}])), "spec.programs[0].attach[0].cgroup.path"),
        (attach(json!([{"cgroup": {"scope": "Path", "path": "a"}}])), "spec.programs[0].attach[0].cgroup"),
        (attach(json!([{"cgroup": {"scope": "Path", "path": "/a/../b"}}])), "spec.programs[0].attach[0].cgroup"),
        (with("/spec/maps", json!([{"name": "m", "maxEntries": 0}])), "spec.maps[0].maxEntries"),
        (with("/spec/maps", json!([{"name": "m", "maxEntries": 4_294_967_296u64}])), "spec.maps[0].maxEntries"),
        (with("/spec/maps", json!([{"name": "m", "onDelete": "Keep"}])), "spec.maps[0].onDelete"),
        (with("/spec/maps", json!([{"name": "m"}, {"name": "m"}])), "spec.maps[1]"),
        (
            with("/spec/nodeSelector", json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})),
            "spec.nodeSelector.matchExpressions[0].operator",
        ),
        (with("/spec/maps", json!([{"name": "m", "initial": [{"key": 1}]}])), "spec.maps[0].initial[0].value"),
        (
            with("/spec/maps", json!([{"name": "m", "initial": vec![json!({"value": 1}); 1025]}])),
            "spec.maps[0].initial",
        ),
        (
            with(
                "/spec/maps",
                json!([{"name": "m", "initial": [{"key": 1, "value": 1}], "from": {"program": "other", "map": "m"}}]),
            ),
            "spec.maps[0]",
        ),
        (
            with("/spec/maps", json!([{"name": "m", "pin": false, "from": {"program": "other", "map": "m"}}])),
            "spec.maps[0]",
        ),
        (
            with("/spec/maps", json!([{"name": "m", "from": {"program": "o.p", "map": "m"}}])),
            "spec.maps[0].from.program",
        ),
        (with("/spec/maps", json!([{"name": "m", "from": {"program": "other"}}])), "spec.maps[0].from.map"),
        (
            with("/spec/maps", json!([{"name": "m", "from": {"program": "tcp-events", "map": "m"}}])),
            "another BpfProgram",
        ),
        (with("/spec/priority", json!(1001)), "spec.priority"),
        (with("/spec/globals", json!([1])), "spec.globals"),
        (
            with(
                "/spec/globals",
                (0..257).map(|i| (format!("v{i}"), json!(i))).collect::<serde_json::Map<_, _>>().into(),
            ),
            "spec.globals",
        ),
        (with("/spec/surprise", json!(1)), "spec.surprise"),
        (with("/metadata/name", json!("tcp.events")), "metadata.name"),
        (with("/metadata/name", json!("n".repeat(64))), "metadata.name"),
    ] {
        let refusal = match dry_run(&object) {
            Ok(_) => bail!("accepted, though {field} is invalid: {:.300}", object.to_string()),
            Err(refusal) => refusal.to_string(),
        };
        ensure!(refusal.contains(field), "the refusal does not name {field}: {refusal:.600}");
    }
    Ok(())
}

#[test]
fn revisions_are_immutable() -> Result<()> {
    apply_crds()?;
    let mut revision = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision", "metadata": {"name": "tcp-events-1"},
        "spec": {
            "program": {"name": "tcp-events", "uid": "1"}, "generation": 1, "sequence": 1,
            "digest": format!("sha256:{}", "0".repeat(64)),
            "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
            "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
            "maps": [{"name": "m", "initial": [{"key": {"a": 1}, "value": [1, "2"]}]}],
            "globals": {"rate": 1, "deep": {"a": [1]}},
        },
    });
    // Where the chart is installed, only the operator may delete a live revision.
    let operator = "system:serviceaccount:sockeye-system:sockeye-operator";
    let delete =
        ["delete", "bpfrevisions", "tcp-events-1", "--ignore-not-found", "--as", operator, "--as-group=system:masters"];
    kubectl(&delete, "")?;
    kubectl(&["create", "-f", "-"], &revision.to_string())?;
    revision["metadata"]["labels"] = json!({"sockeye.dev/live": "true"});
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &revision.to_string())
        .context("a label may change")?;
    // Fields without a type in the schema are immutable too.
    for (field, value) in [
        ("/spec/sequence", json!(2)),
        ("/spec/globals/rate", json!(2)),
        ("/spec/globals/deep", json!({"a": [2]})),
        ("/spec/maps/0/initial/0/key", json!({"a": 2})),
        ("/spec/maps/0/initial/0/value", json!([1, 2])),
    ] {
        let mut changed = revision.clone();
        *changed.pointer_mut(field).context(field)? = value;
        let refusal = match kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed.to_string()) {
            Ok(_) => bail!("a revision's {field} was changed"),
            Err(refusal) => refusal.to_string(),
        };
        ensure!(refusal.contains("immutable"), "{field}: {refusal}");
    }
    kubectl(&delete, "")?;
    Ok(())
}

#[test]
fn kubectl_explain_describes_the_fields() -> Result<()> {
    apply_crds()?;
    let words = kubectl(&["explain", "bpfprograms.spec.programs.attach.cgroup.scope"], "")?;
    ensure!(words.contains("the node's cgroup root"), "{words}");
    let names = run(Command::new("kubectl").args(["api-resources", "--categories=sockeye", "-o", "name"]))?;
    for name in ["bpfprograms.sockeye.dev", "bpfrevisions.sockeye.dev", "bpfnodes.sockeye.dev"] {
        ensure!(names.contains(name), "{names}");
    }
    Ok(())
}
