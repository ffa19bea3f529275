//! `describe`: one BpfProgram on one page.

use std::{collections::BTreeSet, process::ExitCode};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{BpfNode, BpfNodeDetail, BpfProgram};
use sockeye_read_api::{
    Route,
    node::{Program, Runs},
};

use super::{context::Context, print};
use crate::{
    source::{Kind, Read, Source, fan_out},
    view::{
        describe::{self, Page},
        placement::{Placement, placements},
        why,
    },
};

/// So many agents are asked what the program costs. `top` asks all.
const ASKED: usize = 16;

/// The arguments of `describe`.
#[derive(clap::Args)]
pub struct Args {
    /// The BpfProgram
    name: String,
    /// Ask no agents: leave out how often the programs ran
    #[arg(long)]
    no_agents: bool,
}

/// A BpfProgram, and what nodes report.
pub struct Gathered {
    /// The BpfProgram.
    pub program: BpfProgram,
    /// The nodes' reports.
    pub nodes: Vec<BpfNode>,
    /// Their details.
    pub details: Vec<BpfNodeDetail>,
    /// Lines about what is missing.
    pub notes: Vec<String>,
}

/// Reads a BpfProgram, and what nodes report. What may not be read is left out, with a note.
pub async fn gather(source: &Source, name: &str) -> anyhow::Result<Gathered> {
    let program: BpfProgram = source.read(Kind::Program, name).await?;
    let mut notes = Vec::new();
    let nodes = or_note(source.read_all(Kind::Node).await, &mut notes)?;
    let details = or_note(source.read_all(Kind::Detail).await, &mut notes)?;
    Ok(Gathered { program, nodes, details, notes })
}

/// Returns what was read, or nothing and a note if a right is missing.
pub fn or_note<T>(
    read: Result<Read<T>, crate::source::SourceError>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<T>> {
    match read {
        Ok(Read { objects, notes: unread }) => {
            notes.extend(unread);
            Ok(objects)
        }
        Err(error) if error.is_forbidden() => {
            notes.push(error.to_string());
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(context.format.is_table(), "describe is a page for people; use sockeye get, why or top with -o");
    let source = context.source().await?;
    let Gathered { program, nodes, details, mut notes } = gather(&source, &args.name).await?;
    let placed = placements(&program, &nodes, &details);
    let why = why::explain(&program, &placed);
    let runs = if args.no_agents { Vec::new() } else { runs(&source, &args.name, &placed, &mut notes).await };
    let page = Page { program: &program, placements: &placed, runs: &runs, why: &why };
    print::text(&describe::render(&page, context.colours, Timestamp::now()))?;
    print::notes(&notes);
    Ok(ExitCode::SUCCESS)
}

/// Asks the agents where the program is how often it ran. The page is good without their answers.
async fn runs(
    source: &Source,
    program: &str,
    placed: &[Placement],
    notes: &mut Vec<String>,
) -> Vec<(String, Vec<Runs>)> {
    let agents = match source.agents().await {
        Ok(agents) => agents,
        Err(error) => {
            notes.push(format!("no agent was asked: {error}"));
            return Vec::new();
        }
    };
    let here: BTreeSet<&str> = placed.iter().map(|placement| placement.node.as_str()).collect();
    let is_here = |node: &str| here.contains(node) || matches!(source, Source::Standalone(_));
    let agents: Vec<_> = agents.into_iter().filter(|agent| is_here(&agent.node)).collect();
    if agents.len() > ASKED {
        notes.push(format!("{ASKED} of {} agents were asked for runs; sockeye top {program} asks all", agents.len()));
    }
    let asked = agents.get(..ASKED).unwrap_or(&agents);
    let answers = fan_out::ask::<Program>(asked, &Route::Program { program: program.to_owned() }).await;
    let (given, missing) = fan_out::split(answers);
    notes.extend(missing);
    given.into_iter().map(|(node, program)| (node, program.runs)).collect()
}
