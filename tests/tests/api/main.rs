//! The CRD schemas, on a real API server: valid objects are accepted, invalid ones refused with the name of the field,
//! and diffs of what was applied are empty.
//!
//! KUBECONFIG names the API server (tests/run.sh starts one: `tests/cluster/cluster.sh api-up DIR`).
//!
//! | file | noun |
//! |---|---|
//! | `valid` | objects that are accepted |
//! | `refusals` | BpfPrograms that are refused |
//! | `attach` | targets that are refused |
//! | `values` | values that are refused |
//! | `revisions` | BpfRevisions, of which only the state is mutable |
//! | `diffs` | the documented BpfPrograms, applied and compared |
#![allow(missing_docs)]

mod attach;
mod diffs;
mod refusals;
mod revisions;
mod valid;
mod values;

use std::sync::Once;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use sockeye_tests::chart::{self, kubectl};

/// Applies the CRDs, once in a run.
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

/// Returns a valid BpfProgram.
fn program() -> Value {
    json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": "tcp-events"},
        "spec": {
            "bytecode": {"inline": "f0VMRg=="},
            "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}],
        },
    })
}

/// Returns the valid program with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = program();
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.insert(key.to_owned(), value);
    }
    object
}

/// Returns the valid program without the value at a JSON pointer.
fn without(pointer: &str) -> Value {
    let mut object = program();
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(key);
    }
    object
}

/// Fails unless the API server refuses each object with the name of its faulty field.
fn ensure_refused(cases: impl IntoIterator<Item = (Value, String)>) -> Result<()> {
    for (object, field) in cases {
        let refusal = match dry_run(&object) {
            Ok(_) => bail!("accepted, though {field} is invalid: {:.300}", object.to_string()),
            Err(refusal) => refusal.to_string(),
        };
        ensure!(refusal.contains(&field), "the refusal does not name {field}: {refusal:.600}");
    }
    Ok(())
}
