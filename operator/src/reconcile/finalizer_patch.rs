//! JSON patches that add and remove the operator's finalizer. IO: none.
//!
//! Each fails with HTTP 422 on another object of the same name, and if the finalizers changed meanwhile.

use serde_json::{Value, json};
use sockeye_crds::{names, revision::ProgramRef};

/// Builds the patch that adds the finalizer beside the `present` ones.
pub fn add_finalizer(program: &ProgramRef, present: &[String]) -> Value {
    let test_uid = json!({"op": "test", "path": "/metadata/uid", "value": program.uid});
    if present.is_empty() {
        return json!([
            test_uid,
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": [names::FINALIZER]},
        ]);
    }
    json!([
        test_uid,
        {"op": "test", "path": "/metadata/finalizers", "value": present},
        {"op": "add", "path": "/metadata/finalizers/-", "value": names::FINALIZER},
    ])
}

/// Builds the patch that removes the finalizer at `index`.
pub fn remove_finalizer(program: &ProgramRef, index: usize) -> Value {
    let path = format!("/metadata/finalizers/{index}");
    json!([
        {"op": "test", "path": "/metadata/uid", "value": program.uid},
        {"op": "test", "path": path, "value": names::FINALIZER},
        {"op": "remove", "path": path},
    ])
}
