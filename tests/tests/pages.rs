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

/// Returns what stands between backticks, on a line or around lines: most names of fields are words of prose too.
fn code(page: &str) -> String {
    page.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("\n")
}

/// The words of a schema.
#[derive(Default)]
struct Words {
    fields: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl Words {
    /// Collects the names of a schema's fields and the values of its enums.
    fn collect(&mut self, schema: &Value, skipped: &[&str]) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if !skipped.contains(&name.as_str()) {
                self.fields.insert(name.clone());
                self.collect(property, skipped);
            }
        }
        self.values
            .extend(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        for below in ["items", "additionalProperties"].map(|key| &schema[key]) {
            if below.is_object() {
                self.collect(below, skipped);
            }
        }
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
    let mut expected = Words::default();
    expected.collect(&properties["spec"], &ELSEWHERE);
    // The fields of the columns and of the object are what they describe.
    let skipped: Vec<&str> = ELSEWHERE.into_iter().chain(["object", "summary"]).collect();
    expected.collect(&properties["status"], &skipped);
    let Words { fields, values } = &expected;
    let text = code(&reference()?);
    // The tables of program types and of builtins have their names without backticks.
    let tables = ["program-types.md", "programs/README.md"];
    let tables = tables.map(|page| fs::read_to_string(repo().join("docs").join(page)));
    let tables = tables.into_iter().collect::<Result<Vec<_>, _>>()?.join("\n");
    let missing: Vec<&String> = fields
        .iter()
        .filter(|field| !has_word(&text, field))
        .chain(values.iter().filter(|value| !has_word(&text, value) && !has_word(&tables, value)))
        .collect();
    ensure!(fields.len() > 40 && values.len() > 20, "only {fields:?} and {values:?}");
    ensure!(missing.is_empty(), "docs/bpfprogram.md does not name {missing:?}");
    Ok(())
}

#[test]
fn the_page_of_reasons_has_each_reason() -> Result<()> {
    let text = fs::read_to_string(repo().join("docs/reasons.md"))?;
    let missing: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|word| !text.contains(&format!("\n## {word}\n")))
        .collect();
    ensure!(missing.is_empty(), "docs/reasons.md does not explain {missing:?}");
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
