//! Objects that would keep the operator from reading all others.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::chart::kubectl;

use crate::chart::install;

/// A reader of JSON gives up some hundred levels deep, and then reads no list that holds such an object.
#[tokio::test]
async fn values_are_not_nested() -> Result<()> {
    install()?;
    let program = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": "rights-deep"},
        "spec": {
            "bytecode": {"builtin": "tcp-events"}, "attach": [{"type": "Node"}], "programs": [{"name": "my_prog"}],
            "globals": {"rate": 1}, "maps": [{"name": "m", "entries": [{"key": 1, "value": 1}]}],
        },
    });
    // By a client that checks nothing itself.
    create(&program)?;
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for (pointer, field) in [
        ("/spec/globals/rate", "spec.globals.rate"),
        ("/spec/maps/0/entries/0/key", "spec.maps[0].entries[0].key"),
        ("/spec/maps/0/entries/0/value", "spec.maps[0].entries[0].value"),
    ] {
        let mut nested = program.clone();
        *nested.pointer_mut(pointer).context(pointer)? = deep.clone();
        let refusal = create(&nested).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refusal.contains(field) && refusal.contains("must be of type integer"), "{field}: {refusal:.600}");
    }
    Ok(())
}

fn create(object: &Value) -> Result<String> {
    kubectl(&["create", "--dry-run=server", "--validate=ignore", "-f", "-"], &object.to_string())
}
