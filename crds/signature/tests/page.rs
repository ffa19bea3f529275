//! The policies on `docs/signatures.md` are policies.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use serde_json::{Value, json};
use sockeye_signature::{Mode, Policy};

/// The YAML blocks of the page.
fn blocks() -> Vec<Value> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/signatures.md")).unwrap();
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(fence) = lines.find(|line| line.trim() == "```yaml") {
        let indent = fence.len() - fence.trim_start().len();
        let block = lines.by_ref().take_while(|line| line.trim() != "```").map(|line| line.get(indent..).unwrap_or(""));
        blocks.push(serde_saphyr::from_str(&block.collect::<Vec<_>>().join("\n")).unwrap());
    }
    blocks
}

#[test]
fn the_examples_can_be_meant() {
    let [values, identity] = &blocks()[..] else { panic!("the page has other examples than this test knows") };
    let policy: Policy = serde_json::from_value(values["policy"]["signatures"].clone()).unwrap();
    assert_eq!((policy.mode, policy.rules.len(), policy.names_identities()), (Mode::Warn, 2, false));
    let policy: Policy = serde_json::from_value(json!({"mode": "Warn", "default": identity["require"]})).unwrap();
    assert!(policy.names_identities());
}
