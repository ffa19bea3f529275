//! Reads the content of nodes: from their agents, or else as they reported last to the API server.

use std::collections::BTreeSet;

use sockeye_crds::{BpfNode, BpfNodeDetail};
use sockeye_read_api::{
    Route,
    node::{Node, Program},
};

use super::{context::Context, describe::or_note};
use crate::source::{Kind, Source, fan_out};

/// Returns what these nodes hold, or all if none is named, by node. Of a node whose agent does not answer, it is what
/// the agent reported last, with a note that says why.
pub async fn observe(
    context: &Context,
    source: &Source,
    nodes: &[String],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Node>> {
    let agents = match context.agents(source, nodes).await {
        Ok(agents) => agents,
        Err(error) if matches!(source, Source::Cluster(_)) => {
            notes.push(format!("{error:#}; this is what agents reported last"));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let answers = fan_out::ask::<Node>(&agents, &Route::Node).await;
    let (given, missing) = fan_out::split(answers);
    let mut seen: Vec<Node> =
        given.into_iter().map(|(name, node)| if node.name.is_empty() { Node { name, ..node } } else { node }).collect();
    notes.extend(missing);
    if matches!(source, Source::Cluster(_)) && (seen.len() < agents.len() || agents.is_empty()) {
        let live: BTreeSet<String> = seen.iter().map(|node| node.name.clone()).collect();
        let reported = reported(source, notes).await?;
        let is_asked = |node: &Node| nodes.is_empty() || nodes.contains(&node.name);
        seen.extend(reported.into_iter().filter(|node| !live.contains(&node.name) && is_asked(node)));
    }
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(seen)
}

/// Returns what all nodes reported last. They report no runs.
async fn reported(source: &Source, notes: &mut Vec<String>) -> anyhow::Result<Vec<Node>> {
    let nodes: Vec<BpfNode> = or_note(source.read_all(Kind::Node).await, notes)?;
    let details: Vec<BpfNodeDetail> = or_note(source.read_all(Kind::Detail).await, notes)?;
    let seen = details.into_iter().map(|detail| {
        let name = detail.metadata.name.unwrap_or_default();
        let report = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&name));
        let report = report.and_then(|node| node.status.clone()).unwrap_or_default();
        let status = detail.status.unwrap_or_default();
        let program = |detail: sockeye_crds::node::ProgramDetail| Program {
            name: detail.name.clone(),
            status: report.programs.iter().find(|entry| entry.name == detail.name).cloned().unwrap_or_default(),
            detail,
            runs: Vec::new(),
        };
        Node {
            name,
            programs: status.programs.into_iter().map(program).collect(),
            facts: report.node.clone(),
            suspended: report.suspended.clone(),
            retained: status.retained,
            draining: status.draining,
            attach_order: status.attach_order,
            ..Node::default()
        }
    });
    Ok(seen.collect())
}
