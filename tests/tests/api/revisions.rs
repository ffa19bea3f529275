//! BpfRevisions: all but the state is immutable, and the state can be selected.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sockeye_tests::chart::kubectl;

use crate::apply_crds;

/// Where the chart is installed, only the operator may create, change or delete a revision.
const OPERATOR: [&str; 3] =
    ["--as", "system:serviceaccount:sockeye-system:sockeye-operator", "--as-group=system:masters"];

fn as_operator(args: &[&str], input: &str) -> Result<String> {
    kubectl(&[args, &OPERATOR].concat(), input)
}

fn apply(revision: &Value) -> Result<String> {
    as_operator(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &revision.to_string())
}

fn revision() -> Value {
    json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision", "metadata": {"name": "tcp-events-1"},
        "spec": {
            "state": "Active",
            "programRef": {"name": "tcp-events", "uid": "1"}, "programGeneration": 1, "sequence": 1,
            "template": {
                "digest": format!("sha256:{}", "0".repeat(64)),
                "object": {"programs": [], "maps": [], "license": "GPL", "btf": true},
                "programs": [{"name": "my_prog", "type": "SockOps", "attach": [{"type": "Node"}]}],
                "maps": [{"name": "m", "entries": [{"key": "{\"a\": 1}", "value": "[1, \"2\"]"}]}],
                "globals": {"rate": 1, "deep": "{\"a\": [1]}"},
                "image": {"reference": "registry.example/a:v1", "digest": format!("sha256:{}", "2".repeat(64))},
                "proof": {"source": "Image", "digests": [format!("sha256:{}", "3".repeat(64))]},
                "signedBy": [{"type": "Key", "key": {"hint": "release"}}],
                "variants": [],
            },
        },
    })
}

#[test]
fn revisions_are_immutable_but_for_their_state() -> Result<()> {
    apply_crds()?;
    let mut revision = revision();
    let delete = || as_operator(&["delete", "bpfrevisions", "tcp-events-1", "--ignore-not-found"], "");
    delete()?;
    as_operator(&["create", "-f", "-"], &revision.to_string())?;
    let selected = |state: &str| -> Result<bool> {
        let selector = format!("--field-selector=spec.state={state}");
        Ok(kubectl(&["get", "bpfrevisions", "-o", "name", &selector], "")?.contains("/tcp-events-1\n"))
    };
    ensure!(selected("Active")? && !selected("Retired")?, "the active revision is not selected by its state");
    revision["spec"]["state"] = json!("Retired");
    revision["metadata"]["labels"] = json!({"sockeye.dev/program": "tcp-events"});
    apply(&revision).context("the state and labels may change")?;
    ensure!(!selected("Active")? && selected("Retired")?, "the retired revision is not selected by its state");
    for (field, value) in [
        ("/spec/sequence", json!(2)),
        ("/spec/programGeneration", json!(2)),
        ("/spec/programRef/name", json!("other")),
        ("/spec/programRef/uid", json!("2")),
        ("/spec/template/digest", json!(format!("sha256:{}", "1".repeat(64)))),
        ("/spec/template/object/license", json!("MIT")),
        ("/spec/template/image/digest", json!(format!("sha256:{}", "1".repeat(64)))),
        ("/spec/template/proof/digests/0", json!(format!("sha256:{}", "1".repeat(64)))),
        ("/spec/template/proof/source", json!("Inline")),
        ("/spec/template/programs/0/attach/0/type", json!("AllPods")),
        ("/spec/template/globals/rate", json!(2)),
        ("/spec/template/globals/rate", json!("1")),
        ("/spec/template/globals/deep", json!("{\"a\": [2]}")),
        ("/spec/template/maps/0/entries/0/key", json!("{\"a\": 2}")),
        ("/spec/template/maps/0/entries/0/value", json!("[1, 2]")),
    ] {
        let mut changed = revision.clone();
        *changed.pointer_mut(field).context(field)? = value;
        let refusal = match apply(&changed) {
            Ok(_) => bail!("a revision's {field} was changed"),
            Err(refusal) => refusal.to_string(),
        };
        ensure!(refusal.contains("only a BpfRevision's state is mutable"), "{field}: {refusal}");
    }
    delete().map(drop)
}

#[test]
fn an_invalid_revision_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    for (pointer, value, field) in [
        ("/spec/state", json!("Canary"), "spec.state"),
        ("/spec/state", json!(null), "spec.state"),
        ("/spec/sequence", json!(0), "spec.sequence"),
        ("/spec/programRef", json!({"name": "tcp-events"}), "spec.programRef.uid"),
        ("/spec/template/digest", json!("sha256:0"), "spec.template.digest"),
        ("/spec/template/programs", json!([]), "spec.template.programs"),
        ("/spec/template/image", json!({"reference": "r"}), "spec.template.image.digest"),
        ("/spec/template/proof/digests", json!(["sha256:0"]), "spec.template.proof.digests[0]"),
        ("/spec/template/variants", json!([{"architecture": "amd64"}]), "spec.template.variants[0].digest"),
        ("/spec/template/globals/rate", json!(1.5), "spec.template.globals.rate"),
        ("/spec/template/globals/rate", json!({"a": 1}), "spec.template.globals.rate"),
        ("/spec/template/maps/0/entries/0/value", json!([1]), "spec.template.maps[0].entries[0].value"),
        ("/spec/template/programs/0/attach/0/type", json!("Pods"), "spec.template.programs[0].attach[0].pods"),
        ("/spec/template/programs/0/attach/0/type", json!("Everything"), "spec.template.programs[0].attach[0].type"),
    ] {
        let mut object = revision();
        *object.pointer_mut(pointer).context(pointer)? = value;
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        let refusal = match as_operator(&create, &object.to_string()) {
            Ok(_) => bail!("accepted, though {field} is invalid"),
            Err(refusal) => refusal.to_string(),
        };
        ensure!(refusal.contains(field), "the refusal does not name {field}: {refusal:.600}");
    }
    Ok(())
}
