//! docs/metrics.md's tables, made of the descriptions. IO: none.

use std::fmt::Write as _;

use crate::{
    agent, client,
    description::{Description, Kind},
    operator,
};

/// Returns the tables of all metrics, in Markdown.
pub fn tables() -> String {
    let mut out = String::new();
    for (title, descriptions) in [
        ("Both binaries", client::DESCRIPTIONS),
        ("The operator", operator::DESCRIPTIONS),
        ("The agent", agent::DESCRIPTIONS),
    ] {
        // Writing to a string can't fail.
        let _ = write!(out, "## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for description in descriptions {
            out.push_str(&row(description));
        }
        out.push('\n');
    }
    out
}

fn row(description: &Description) -> String {
    let kind = match description.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = description.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |\n", description.full_name(), labels.join(", "), description.help)
}
