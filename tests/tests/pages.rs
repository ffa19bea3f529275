//! The reference pages name everything that the API has: each field of a spec and of a status, each value of an enum,
//! each reason, and each column of `kubectl get`.
#![allow(missing_docs)]

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sockeye_crds::{Reason, definitions::definitions};
use sockeye_tests::repo;

/// The pages that describe the API's fields.
const PAGES: [&str; 4] = ["bpfprogram.md", "pods.md", "strict.md", "program-types.md"];

/// Words of Kubernetes' own types, and fields that their parents explain.
const ELSEWHERE: [&str; 9] = [
    "matchExpressions",
    "matchLabels",
    "operator",
    "values",
    "lastTransitionTime",
    "status",
    "generation",
    "btf",
    "license",
];

fn reference() -> Result<String> {
    let pages = PAGES.iter().map(|page| Ok(fs::read_to_string(repo().join("docs").join(page))?));
    Ok(pages.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// Collects the names of a schema's fields and the values of its enums.
fn words(schema: &Value, skipped: &[&str], found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if !skipped.contains(&name.as_str()) {
            found.insert(name.clone());
            words(property, skipped, found);
        }
    }
    found.extend(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    for below in ["items", "additionalProperties"].map(|key| &schema[key]).into_iter().filter(|below| below.is_object())
    {
        words(below, skipped, found);
    }
}

/// Returns whether a text has a word between characters that can't be part of one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[test]
fn the_reference_names_each_field_and_value_of_a_bpfprogram() -> Result<()> {
    let definition = serde_json::to_value(definitions().first().context("no definition")?)?;
    let properties = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut expected = BTreeSet::new();
    words(&properties["spec"], &ELSEWHERE, &mut expected);
    // The fields of the columns and of the object are what they describe.
    let skipped: Vec<&str> = ELSEWHERE.into_iter().chain(["object", "summary"]).collect();
    words(&properties["status"], &skipped, &mut expected);
    let text = reference()?;
    // program-types.md writes types as the sections' table has them, programs/README.md the builtins.
    let builtins = fs::read_to_string(repo().join("docs/programs/README.md"))?;
    let missing: Vec<&String> =
        expected.iter().filter(|word| !has_word(&text, word) && !has_word(&builtins, word)).collect();
    ensure!(expected.len() > 60, "only {expected:?}");
    ensure!(missing.is_empty(), "docs/bpfprogram.md does not name {missing:?}");
    Ok(())
}

#[test]
fn the_reference_names_each_reason() -> Result<()> {
    let text = reference()?;
    let missing: Vec<&str> =
        Reason::ALL.iter().map(|reason| reason.as_str()).filter(|word| !text.contains(&format!("`{word}`"))).collect();
    ensure!(missing.is_empty(), "docs/bpfprogram.md does not explain {missing:?}");
    Ok(())
}

#[test]
fn the_reference_names_each_column() -> Result<()> {
    let text = reference()?;
    for definition in definitions().into_iter().take(3) {
        let definition = serde_json::to_value(definition)?;
        let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().cloned();
        for column in columns.context("no columns")? {
            let name = column["name"].as_str().unwrap_or_default().to_uppercase();
            ensure!(has_word(&text, &name), "docs/bpfprogram.md does not name the column {name}");
        }
    }
    Ok(())
}
