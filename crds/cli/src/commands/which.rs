//! `which`: every program that acts on a pod, and those that should and do not.

use std::{collections::BTreeMap, process::ExitCode};

use k8s_openapi::api::core::v1;
use sockeye_crds::{BpfNode, BpfNodeDetail, BpfProgram, BpfRevision, node::ProgramDetail};
use sockeye_read_api::{Route, node::Node};

use super::{context::Context, describe::or_note, print};
use crate::{
    source::{Cluster, Kind, Source, SourceError},
    view::{
        placement::{Placement, placements},
        which::{self, Pod},
    },
};

/// The pod.
#[derive(clap::Args)]
pub struct Args {
    /// The pod: NAME, pod/NAME or NAMESPACE/NAME
    pod: String,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let Source::Cluster(cluster) = context.source().await? else {
        anyhow::bail!("which is about pods of a cluster; maps, top and status show a node without one");
    };
    let mut notes = Vec::new();
    let pod = pod(&cluster, &args.pod, &mut notes).await?;
    anyhow::ensure!(!pod.node.is_empty(), "pod {}/{} is on no node yet", pod.namespace, pod.name);
    let source = Source::Cluster(cluster);
    let details = programs(&source, &pod.node, &mut notes).await?;
    let mut all = which::acting(&pod, &details);
    let revisions: Vec<BpfRevision> = or_note(source.read_all(Kind::Revision).await, &mut notes)?;
    let placements = placements_on(&source, &pod.node, &mut notes).await?;
    let missing = which::missing(&pod, &revisions, &all, &placements);
    all.extend(missing);
    if all.is_empty() && context.format.is_table() {
        notes.push(format!("no program of sockeye's acts on pod {}/{}", pod.namespace, pod.name));
    } else {
        print::table(context, &which::table(&all), &all)?;
    }
    print::notes(&notes);
    Ok(ExitCode::SUCCESS)
}

/// Reads the pod, and the labels of its namespace and node as far as that is allowed.
async fn pod(cluster: &Cluster, word: &str, notes: &mut Vec<String>) -> anyhow::Result<Pod> {
    let name = word.strip_prefix("pod/").or_else(|| word.strip_prefix("pods/")).unwrap_or(word);
    let (namespace, name) = match (name.split_once('/'), cluster.namespace()) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some(namespace)) => (namespace, name),
        (None, None) => anyhow::bail!("a pod has one namespace: give NAMESPACE/NAME, and no --all-namespaces"),
    };
    let v1::Pod { metadata, spec, status } = cluster.pod(namespace, name).await?;
    let node = spec.and_then(|spec| spec.node_name).unwrap_or_default();
    let mut labels_of = |all: Result<BTreeMap<String, BTreeMap<String, String>>, SourceError>, name: &str| match all {
        Ok(mut all) => all.remove(name),
        Err(error) => {
            notes.push(format!("{error}; targets that select by those labels are left out where nothing is attached"));
            None
        }
    };
    Ok(Pod {
        namespace_labels: labels_of(cluster.namespace_labels().await, namespace),
        node_labels: labels_of(cluster.node_labels().await, &node),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: metadata.uid.unwrap_or_default(),
        node,
        qos_class: status.and_then(|status| status.qos_class).unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
    })
}

/// Returns what the node's kernel holds: by its agent, or else as it was reported last.
async fn programs(source: &Source, node: &str, notes: &mut Vec<String>) -> anyhow::Result<Vec<ProgramDetail>> {
    let live = match source.agents().await {
        Ok(agents) => match agents.into_iter().find(|agent| agent.node == node) {
            Some(agent) => agent.get::<Node>(&Route::Node).await.map_err(|error| error.to_string()),
            None => Err("it has no agent that runs".to_owned()),
        },
        Err(error) => Err(error.to_string()),
    };
    let why = match live {
        Ok(live) => return Ok(live.programs.into_iter().map(|program| program.detail).collect()),
        Err(why) => why,
    };
    let detail: BpfNodeDetail = match source.read(Kind::Detail, node).await {
        Ok(detail) => detail,
        Err(error @ (SourceError::Forbidden { .. } | SourceError::NotFound { .. })) => {
            notes.push(format!("node {node}: {why}; and of what it reported last: {error}"));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    notes.push(format!("node {node}: {why}; this is what it reported last, at most 64 links of each BpfProgram"));
    let status = detail.status.unwrap_or_default();
    if let Some(omitted) = status.omitted.filter(|omitted| omitted.links + omitted.programs > 0) {
        notes.push(format!("the report leaves out {} links and {} BpfPrograms", omitted.links, omitted.programs));
    }
    Ok(status.programs)
}

/// Returns the state of each BpfProgram on the node.
async fn placements_on(
    source: &Source,
    node: &str,
    notes: &mut Vec<String>,
) -> anyhow::Result<BTreeMap<String, Placement>> {
    let programs: Vec<BpfProgram> = or_note(source.read_all(Kind::Program).await, notes)?;
    let report: BpfNode = match source.read(Kind::Node, node).await {
        Ok(report) => report,
        Err(error) => {
            notes.push(error.to_string());
            return Ok(BTreeMap::new());
        }
    };
    let report = [report];
    let placed = programs.iter().filter_map(|program| {
        let name = program.metadata.name.clone()?;
        let here = placements(program, &report, &[]).into_iter().find(|placement| placement.node == node)?;
        Some((name, here))
    });
    Ok(placed.collect())
}
