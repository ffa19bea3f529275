//! The CustomResourceDefinitions: the committed file is the generated one, and the schemas have the properties that
//! users and the API server's cost estimates rely on.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sockeye_crds::{BpfProgramStatus, ConditionType, Reason, condition::Status};
use sockeye_crds_testing::provoked;

/// Returns the four definitions as the API server reads them.
fn definitions() -> Result<Vec<Value>> {
    sockeye_crds::definitions::definitions()
        .into_iter()
        .map(|crd| serde_json::to_value(crd).context("a definition is JSON"))
        .collect()
}

fn kind(definition: &Value) -> &str {
    definition["spec"]["names"]["kind"].as_str().unwrap_or_default()
}

fn only_version(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]
}

#[test]
fn the_committed_file_is_what_crdgen_prints() -> Result<()> {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/files/crds.yaml");
    let committed = std::fs::read_to_string(committed).context(committed)?;
    let generated = Command::new(env!("CARGO_BIN_EXE_crdgen")).output().context("crdgen")?;
    assert!(generated.status.success(), "crdgen failed: {}", String::from_utf8_lossy(&generated.stderr));
    // Not assert_eq!, which would print both files.
    assert!(
        String::from_utf8(generated.stdout)? == committed,
        "deploy/chart/files/crds.yaml is not what crds/src generates: run `make crds` and commit it"
    );
    Ok(())
}

#[test]
fn names_scope_and_subresources_are_as_expected() -> Result<()> {
    let expected = [
        ("BpfProgram", "bpfprograms", "sbpf", true),
        ("BpfRevision", "bpfrevisions", "sbpfr", false),
        ("BpfNode", "bpfnodes", "sbpfn", true),
        ("BpfNodeDetail", "bpfnodedetails", "sbpfnd", true),
    ];
    for (definition, (kind, plural, short, has_status)) in definitions()?.iter().zip(expected) {
        let spec = &definition["spec"];
        assert_eq!(spec["group"], "sockeye.dev");
        assert_eq!(spec["scope"], "Cluster", "{kind}");
        assert_eq!(spec["names"]["kind"], kind);
        assert_eq!(spec["names"]["plural"], plural);
        assert_eq!(spec["names"]["shortNames"], serde_json::json!([short]));
        assert_eq!(spec["names"]["categories"], serde_json::json!(["sockeye"]), "{kind}");
        assert_eq!(spec["versions"].as_array().map(Vec::len), Some(1), "{kind}");
        let version = only_version(definition);
        assert_eq!(version["name"], "v1alpha1");
        assert_eq!(version["subresources"].get("status").is_some(), has_status, "{kind}");
    }
    Ok(())
}

/// Compares the columns of `kubectl get`, except NAME, which kubectl adds.
#[test]
fn print_columns_are_as_expected_and_described() -> Result<()> {
    for (definition, narrow) in definitions()?.iter().zip([
        &["Desired", "Updated", "Failed", "Pods", "Ready", "Program-IDs", "Map-IDs", "Age"][..],
        &["Program", "Sequence", "State", "Generation", "Age"],
        &["Ready", "Kernel", "Programs", "Failed", "Links", "Agent", "Age"],
        &["Omitted", "Age"],
    ]) {
        let columns = only_version(definition)["additionalPrinterColumns"].as_array().context("columns")?;
        let names: Vec<&str> = columns
            .iter()
            .filter(|c| c["priority"].as_i64().unwrap_or(0) == 0)
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert_eq!(names, narrow, "{}", kind(definition));
        for column in columns.iter().filter(|c| c["name"] != "Age") {
            assert!(column["description"].is_string(), "{}: column {} says nothing", kind(definition), column["name"]);
        }
    }
    Ok(())
}

/// Applies a rule to every schema, and returns the complaints with the schemas' paths.
fn complaints(rule: impl Fn(&Value) -> Option<&'static str>) -> Result<Vec<String>> {
    fn walk(schema: &Value, path: &str, rule: &dyn Fn(&Value) -> Option<&'static str>, out: &mut Vec<String>) {
        if let Some(complaint) = rule(schema) {
            out.push(format!("{path}: {complaint}"));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{path}.{name}"), rule, out);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], &format!("{path}[]"), rule, out);
        }
        if schema["additionalProperties"].is_object() {
            walk(&schema["additionalProperties"], &format!("{path}{{}}"), rule, out);
        }
    }
    let mut out = Vec::new();
    for definition in definitions()? {
        walk(&only_version(&definition)["schema"]["openAPIV3Schema"], kind(&definition), &rule, &mut out);
    }
    Ok(out)
}

#[test]
fn every_string_is_bounded() -> Result<()> {
    let unbounded = complaints(|schema| {
        let bounded =
            schema["maxLength"].is_u64() || schema["enum"].is_array() || schema["format"].as_str() == Some("date-time");
        (schema["type"] == "string" && !bounded).then_some("a string without maxLength, enum or format date-time")
    })?;
    assert_eq!(unbounded, [""; 0]);
    Ok(())
}

#[test]
fn every_list_is_bounded_and_has_a_list_type() -> Result<()> {
    let loose = complaints(|schema| match schema["type"].as_str() {
        Some("array") if !schema["maxItems"].is_u64() => Some("a list without maxItems"),
        Some("array") => match schema["x-kubernetes-list-type"].as_str() {
            Some("map") if !schema["x-kubernetes-list-map-keys"].is_array() => Some("a list-map without keys"),
            Some(_) => None,
            None => Some("a list without x-kubernetes-list-type"),
        },
        Some("object") if schema["additionalProperties"].is_object() && !schema["maxProperties"].is_u64() => {
            Some("a map without maxProperties")
        }
        _ => None,
    })?;
    assert_eq!(loose, [""; 0]);
    Ok(())
}

#[test]
fn every_property_is_described_and_typed() -> Result<()> {
    let silent = complaints(|schema| {
        let described = |property: &Value| property["description"].as_str().is_some_and(|text| !text.is_empty());
        match schema["properties"].as_object() {
            Some(properties) if !properties.values().all(described) => Some("a property without a description"),
            _ if schema["x-kubernetes-preserve-unknown-fields"] == true => Some("takes any value"),
            _ if schema["x-kubernetes-int-or-string"] == true && schema["maxLength"].is_u64() => None,
            _ if !schema["type"].is_string() => Some("no type"),
            _ => None,
        }
    })?;
    assert_eq!(silent, [""; 0]);
    Ok(())
}

#[test]
fn nothing_is_nullable() -> Result<()> {
    let nullable = complaints(|schema| schema.get("nullable").is_some().then_some("nullable"))?;
    assert_eq!(nullable, [""; 0]);
    Ok(())
}

/// A default inside a list's items is added on the server, and a client-side diff then shows it again and again.
#[test]
fn no_list_item_of_a_spec_has_a_default() -> Result<()> {
    let defaults = complaints(|schema| {
        let items = schema["items"].as_object()?;
        serde_json::to_string(items).is_ok_and(|text| text.contains("\"default\"")).then_some("a default in an item")
    })?;
    let in_specs: Vec<_> = defaults.iter().filter(|path| path.contains(".spec")).collect();
    assert!(in_specs.is_empty(), "{in_specs:?}");
    Ok(())
}

/// A controller of another name may add a condition, and a version of sockeye may lack a reason.
#[test]
fn condition_types_and_reasons_are_patterns() -> Result<()> {
    let closed = complaints(|schema| {
        let properties = &schema["properties"];
        let is_condition = properties["lastTransitionTime"].is_object();
        let closed = |field: &str| properties[field]["enum"].is_array() || !properties[field]["pattern"].is_string();
        (is_condition && (closed("type") || closed("reason"))).then_some("a closed condition")
    })?;
    assert_eq!(closed, [""; 0]);
    Ok(())
}

/// kstatus takes an object without a status for one that is complete.
#[test]
fn a_bpf_program_without_status_reads_as_pending() -> Result<()> {
    let definitions = definitions()?;
    let status = &only_version(&definitions[0])["schema"]["openAPIV3Schema"]["properties"]["status"];
    let status: BpfProgramStatus = serde_json::from_value(status["default"].clone())?;
    assert_eq!(status.observed_generation, None);
    let reported: Vec<_> = status.conditions.iter().map(|one| (one.type_, one.status, one.reason)).collect();
    let pending = |type_| (type_, Status::Unknown, Reason::Pending);
    assert_eq!(reported, [pending(ConditionType::Accepted), pending(ConditionType::Ready)]);
    provoked(Reason::Pending, &status.conditions[0].message);
    Ok(())
}

/// A rule's default message would show the CEL expression to users.
#[test]
fn every_rule_has_a_message() -> Result<()> {
    let mute = complaints(|schema| {
        let rules = schema["x-kubernetes-validations"].as_array()?;
        rules.iter().any(|rule| !rule["message"].is_string()).then_some("a CEL rule without a message")
    })?;
    assert_eq!(mute, [""; 0]);
    Ok(())
}

#[test]
fn counts_times_and_digests_are_what_they_say() -> Result<()> {
    let definitions = definitions()?;
    let (digest, zero, one) = ("^sha256:[0-9a-f]{64}$", 0.0, 1.0);
    for (definition, field, keyword, expected) in [
        (0, "status/properties/currentRevision/properties/digest", "pattern", Value::from(digest)),
        (0, "status/properties/currentRevision/properties/programGeneration", "minimum", one.into()),
        (0, "status/properties/nodes/properties/updated", "minimum", zero.into()),
        (0, "status/properties/summary/properties/links", "minimum", zero.into()),
        (1, "spec/properties/programGeneration", "minimum", one.into()),
        (1, "spec/properties/template/properties/digest", "pattern", digest.into()),
        (1, "spec/properties/template/properties/requires/items", "pattern", "^[A-Z][A-Za-z0-9]*$".into()),
        (2, "status/properties/counts/properties/failed", "minimum", zero.into()),
        (
            3,
            "status/properties/programs/items/properties/programs/items/properties/loadTime",
            "format",
            "date-time".into(),
        ),
    ] {
        let schema = &only_version(&definitions[definition])["schema"]["openAPIV3Schema"];
        let found = schema.pointer(&format!("/properties/{field}")).context(field)?;
        assert_eq!(found[keyword], expected, "{field}");
    }
    Ok(())
}
