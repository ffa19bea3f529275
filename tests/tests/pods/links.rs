//! Links at pods, and the connections that they count.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sockeye_tests::{
    NODES,
    program::{TestProgram, details},
    wait_until,
};

/// The time within which links follow, that of the API server and of the test's own requests included.
pub const SOON: Duration = Duration::from_secs(3);

/// Returns the connections that both nodes counted.
pub fn counted(program: &TestProgram) -> Result<u64> {
    NODES.iter().map(|node| Ok(program.counts(node)?[TestProgram::ACTIVE])).sum()
}

/// Returns a spec that attaches `my_prog` to a target.
pub fn at(target: Value) -> Value {
    json!({"programs": [{"name": "my_prog", "attach": [{"cgroup": target}]}]})
}

/// Returns the pods and containers that have a link on a node.
pub fn linked(node: &str, program: &str) -> Result<Vec<String>> {
    let links = details(node, program)?["links"].as_array().cloned().unwrap_or_default();
    let name = |link: &Value| {
        let (pod, container) =
            (link["pod"].as_str().unwrap_or_default(), link["container"].as_str().unwrap_or_default());
        format!("{pod} {container}").trim().to_owned()
    };
    let mut names: Vec<String> = links.iter().filter(|link| link["inEffect"] == true).map(name).collect();
    names.sort();
    Ok(names)
}

/// Waits until a BpfProgram has links at exactly these pods and containers on a node.
pub fn links_are(node: &str, program: &str, within: Duration, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    let took = wait_until(within, &format!("links of {program} on {node} at {names:?}"), || {
        found = linked(node, program)?;
        Ok(found == names)
    })
    .with_context(|| format!("{found:?}"))?;
    println!("links of {program} on {node} followed within {took:?}");
    Ok(())
}
