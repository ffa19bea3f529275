//! Objects that would keep the operator from reading all others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use sockeye_tests::{
    chart::{apply_crds, kubectl},
    identity::{RELEASE, admin},
    operator::Operator,
    wait_until,
};

use crate::chart::install;

/// The time within which a definition has to be in effect.
const LIMIT: Duration = Duration::from_secs(30);

/// A reader of JSON gives up some hundred levels deep, and then reads no list that holds such an object.
#[tokio::test]
async fn values_are_not_nested() -> Result<()> {
    install()?;
    let entry = json!({"name": "m", "entries": [{"key": 1, "value": 1}]});
    let program = program("rights-deep", json!({"globals": {"rate": 1}, "maps": [entry]}));
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

/// It was stored while the schema did not bound values. Only a definition without the bound can store one.
#[tokio::test]
async fn a_stored_object_that_is_nested_keeps_the_operator_from_no_other() -> Result<()> {
    const DEEP: &str = "rights-deep";
    const GOOD: &str = "rights-good";
    install()?;
    let (client, work) = (admin().await?, tempfile::tempdir()?);
    let _ =
        Api::<Lease>::namespaced(client.clone(), RELEASE).delete("sockeye-operator", &DeleteParams::default()).await;
    let unbound = json!([{"op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/globals",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    kubectl(&["patch", "crd", "bpfprograms.sockeye.dev", "--type=json", "-p", &unbound.to_string()], "")?;
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let deep = program(DEEP, json!({"globals": {"rate": deep}})).to_string();
    let store = ["create", "--validate=ignore", "-f", "-"];
    let stored = wait_until(LIMIT, "the definition without the bound", || Ok(kubectl(&store, &deep).is_ok()));
    apply_crds()?;
    stored?;
    kubectl(&["apply", "-f", "-"], &program(GOOD, json!({})).to_string())?;

    let binary = std::env::current_exe()?.ancestors().nth(2).context("no directory")?.join("sockeye-operator");
    let operator = Operator::start(&client, &binary, None, work.path()).await?;
    let log = || std::fs::read_to_string(work.path().join("operator.log")).unwrap_or_default();
    let accepted = kubectl(&["wait", "--for=condition=Accepted", "--timeout=60s", "sbpf", GOOD], "");
    accepted.with_context(log)?;
    ensure!(log().contains(DEEP), "the nested object was not looked at:\n{}", log());
    let longest = log().lines().map(str::len).max().unwrap_or_default();
    ensure!(longest < 4096, "a line of the log has {longest} bytes");
    // The operator takes its finalizer off both.
    kubectl(&["delete", "sbpf", GOOD, DEEP, "--timeout=60s"], "").with_context(log)?;
    operator.stop()
}

/// Returns a BpfProgram with these fields in its spec.
fn program(name: &str, fields: Value) -> Value {
    let mut spec = json!({"bytecode": {"builtin": "tcp-events"}, "attach": [{"type": "Node"}],
        "programs": [{"name": "my_prog"}]});
    if let (Value::Object(spec), Value::Object(fields)) = (&mut spec, fields) {
        spec.extend(fields);
    }
    json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name}, "spec": spec})
}

fn create(object: &Value) -> Result<String> {
    kubectl(&["create", "--dry-run=server", "--validate=ignore", "-f", "-"], &object.to_string())
}
