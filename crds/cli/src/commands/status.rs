//! `status`: the state of a node without a cluster. Exits 3 if something there is not in effect.

use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sockeye_crds::{BpfNode, BpfProgram, BpfProgramStatus, ConditionType, Reason, condition, condition::Status, names};

use super::{context::Context, manifests::is_manifest, print};
use crate::{
    source::{Kind, Standalone},
    view::columns::Columns,
};

/// There are no options.
#[derive(clap::Args)]
pub struct Args {}

/// The exit code where something is not in effect.
const NOT_IN_EFFECT: u8 = 3;

/// Runs the verb.
pub fn run(context: &Context, _: &Args) -> anyhow::Result<ExitCode> {
    let Some(standalone) = context.standalone() else {
        anyhow::bail!("status is for a node without a cluster: name its --node-dir, or use sockeye get");
    };
    let (programs, nodes) = (standalone.list(Kind::Program)?, standalone.list(Kind::Node)?);
    let mut notes = Vec::new();
    let mut read: Vec<BpfProgram> = Vec::new();
    for value in &programs {
        match serde_json::from_value(value.clone()) {
            Ok(program) => read.push(program),
            Err(error) => {
                let name = value["metadata"]["name"].as_str().unwrap_or_default();
                notes.push(format!("the status of {name} can't be read by this version: {error}"));
            }
        }
    }
    let unread = programs.len() - read.len();
    let node: Option<BpfNode> = nodes.first().and_then(|value| serde_json::from_value(value.clone()).ok());
    if let Some(reason) = node.and_then(|node| node.status).and_then(|status| status.suspended) {
        notes.push(format!("everything is suspended on this node: {reason}"));
    }
    let unready: Vec<&BpfProgram> = read.iter().filter(|program| !is_well(program)).collect();
    for program in &unready {
        let conditions = program.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if let Some(ready) = condition::find(conditions, ConditionType::Ready) {
            let name = program.metadata.name.as_deref().unwrap_or_default();
            notes.push(format!("{name}: {}: {}", ready.reason.as_str(), ready.message));
        }
    }
    let unreported = unreported(&standalone)?;
    if !unreported.is_empty() {
        let names: Vec<&str> = unreported.iter().map(String::as_str).collect();
        let listed = names::list(&names, 5);
        notes.push(format!("manifests without a status yet: {listed}: is the agent running on this folder?"));
    }
    if context.format.is_table() {
        let now = Timestamp::now();
        let nodes = Columns::of_kind(&Kind::Node.name()).table(&nodes, now);
        let programs = Columns::of_kind(&Kind::Program.name()).table(&programs, now);
        for table in [nodes, programs].iter().filter(|table| !table.is_empty()) {
            print::text(&table.render(context.format.is_wide(), context.no_headers))?;
        }
    } else {
        print::structured(context, &json!({"node": nodes.first(), "programs": programs}))?;
    }
    print::notes(&notes);
    let is_well = unready.is_empty() && unread == 0 && unreported.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_EFFECT) })
}

/// Returns whether a BpfProgram is in effect, or suspended as it was asked for.
fn is_well(program: &BpfProgram) -> bool {
    let empty = BpfProgramStatus::default();
    let status = program.status.as_ref().unwrap_or(&empty);
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    ready.is_some_and(|ready| ready.status == Status::True || ready.reason == Reason::Suspended)
}

/// Returns the names of the manifests' files beside which the agent wrote no status.
fn unreported(standalone: &Standalone) -> anyhow::Result<Vec<String>> {
    let paths = std::fs::read_dir(standalone.folder()?)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| is_manifest(path) && !path.with_extension("status.yaml").exists());
    paths.sort();
    Ok(paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
}
