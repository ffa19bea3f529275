//! Objects for tests.

use serde_json::{Value, json};
use sockeye_crds::{BpfNode, BpfNodeDetail, BpfProgram, BpfRevision};

/// A BpfProgram of UID `u` and generation 2 with this spec, or one of its own, and this status.
pub fn program(name: &str, spec: Value, status: Value) -> BpfProgram {
    let spec = if spec.is_null() {
        json!({
            "bytecode": {"builtin": "tcp-rtt"}, "attach": [{"type": "AllPods"}],
            "programs": [{"name": "measure"}],
        })
    } else {
        spec
    };
    read(json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
        "metadata": {"name": name, "uid": "u", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec, "status": with_lists(status),
    }))
}

/// A BpfNode with this status.
pub fn node(name: &str, status: Value) -> BpfNode {
    read(json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": name}, "spec": {},
        "status": status,
    }))
}

/// A BpfNodeDetail with these programs.
pub fn detail(name: &str, programs: Value) -> BpfNodeDetail {
    read(json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNodeDetail", "metadata": {"name": name}, "spec": {},
        "status": {"programs": programs},
    }))
}

/// A live BpfRevision with this template.
pub fn revision(program: &str, sequence: i64, template: Value) -> BpfRevision {
    read(json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
        "metadata": {"name": format!("{program}-{sequence}")},
        "spec": {
            "state": "Active", "programRef": {"name": program, "uid": "u"}, "programGeneration": sequence,
            "sequence": sequence, "template": template,
        },
    }))
}

/// A condition of generation 2.
pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn with_lists(mut status: Value) -> Value {
    if status.is_object() && status["conditions"].is_null() {
        status["conditions"] = json!([]);
    }
    status
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    let text = object.to_string();
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}: {text}"))
}
