//! Values that are refused: in globals, and as keys and values of a map's entries.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{apply_crds, ensure_refused, with};

/// Returns what is neither an integer of 64 bits nor a text of bounded length.
fn invalid() -> Vec<Value> {
    vec![
        json!(1.5),
        json!(-0.5),
        json!(1e300),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
        json!(true),
        json!(false),
        json!([]),
        json!([1]),
        json!({}),
        json!({"a": {"b": 1}}),
        json!("a".repeat(16385)),
    ]
}

#[test]
fn only_integers_and_texts_are_values() -> Result<()> {
    apply_crds()?;
    let cases = invalid().into_iter().flat_map(|value| {
        let entry =
            |entry: Value| with("/spec/maps", json!([{"name": "m", "entries": [{"key": 1, "value": 1}, entry]}]));
        [
            (with("/spec/globals", json!({"a": 1, "b": value})), "spec.globals.b".to_owned()),
            (entry(json!({"key": value, "value": 1})), "spec.maps[0].entries[1].key".to_owned()),
            (entry(json!({"key": 1, "value": value})), "spec.maps[0].entries[1].value".to_owned()),
        ]
    });
    ensure_refused(cases)
}

#[test]
fn lists_of_values_are_bounded_and_complete() -> Result<()> {
    apply_crds()?;
    let many: Map<String, Value> = (0..257).map(|i| (format!("v{i}"), json!(i))).collect();
    let entries = |entries: Value| with("/spec/maps", json!([{"name": "m", "entries": entries}]));
    ensure_refused(
        [
            (with("/spec/globals", json!([1])), "spec.globals"),
            (with("/spec/globals", json!(many)), "spec.globals"),
            (with("/spec/globals", json!({"v".repeat(257): 1})), "spec.globals"),
            (entries(json!([{"key": 1}])), "spec.maps[0].entries[0].value"),
            (entries(json!([{"key": 1, "value": null}])), "spec.maps[0].entries[0].value"),
            (entries(json!([{"value": 1, "ttl": 1}])), "spec.maps[0].entries[0].ttl"),
            (entries(json!({"1": 1})), "spec.maps[0].entries"),
            (entries(json!(vec![json!({"value": 1}); 1025])), "spec.maps[0].entries"),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}
