//! `maps`: a list of maps, what they hold, and what keeps them alive.

use std::{process::ExitCode, time::Duration};

use clap::Subcommand;
use serde_json::json;
use sockeye_read_api::{
    Route,
    map::{Entries, References},
    route::{Cpus, EntriesQuery, MAX_PAGE},
};
use tokio::time::sleep;

use super::{context::Context, observe::observe, print};
use crate::{
    source::{Agent, AgentError, Source, fan_out},
    view::maps::{self, Dump},
};

/// The arguments of `maps`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List maps, with what keeps each
    List(List),
    /// Show all entries of a map
    Dump(Of),
    /// Show the entry of one key
    Get(Get),
    /// Show what keeps a map alive
    Refs(Named),
}

#[derive(clap::Args)]
struct List {
    /// The BpfProgram; all if it is left out
    program: Option<String>,
    /// A node; can be given several times. All nodes if it is left out
    #[arg(long)]
    node: Vec<String>,
}

#[derive(clap::Args)]
struct Named {
    /// The BpfProgram
    program: String,
    /// The map, by its name in the ELF object
    map: String,
    /// A node; can be given several times. All nodes that have the map if it is left out
    #[arg(long)]
    node: Vec<String>,
}

#[derive(clap::Args)]
struct Get {
    /// The BpfProgram
    program: String,
    /// The map, by its name in the ELF object
    map: String,
    /// The key, as spec.maps[].entries[].key writes it: a number, text, or JSON
    key: String,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct Of {
    /// The BpfProgram
    program: String,
    /// The map, by its name in the ELF object
    map: String,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct How {
    /// A node; can be given several times. All nodes that have the map if it is left out
    #[arg(long)]
    node: Vec<String>,
    /// Show the value of each processor instead of their sum
    #[arg(long)]
    per_cpu: bool,
    /// The most entries of a node
    #[arg(long, default_value = "10000")]
    limit: usize,
    /// Go on, and show what changes
    #[arg(long, short)]
    watch: bool,
    /// The seconds between two looks
    #[arg(long, default_value = "2", requires = "watch")]
    interval: u64,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let source = context.source().await?;
    match args.verb {
        Verb::List(args) => list(context, &source, &args).await,
        Verb::Refs(args) => refs(context, &source, &args).await,
        Verb::Dump(Of { program, map, how }) => {
            dump(context, &source, &Question { program, map, key: None, how }).await
        }
        Verb::Get(Get { program, map, key, how }) => {
            dump(context, &source, &Question { program, map, key: Some(key), how }).await
        }
    }
}

async fn list(context: &Context, source: &Source, args: &List) -> anyhow::Result<ExitCode> {
    let mut notes = Vec::new();
    let nodes = observe(context, source, &args.node, &mut notes).await?;
    let list = maps::list(&nodes, args.program.as_deref());
    print::table(context, &maps::table(&list), &list)?;
    print::notes(&notes);
    Ok(ExitCode::SUCCESS)
}

async fn refs(context: &Context, source: &Source, args: &Named) -> anyhow::Result<ExitCode> {
    let agents = context.agents(source, &args.node).await?;
    let route = Route::References { program: args.program.clone(), map: args.map.clone() };
    let answers = fan_out::ask::<References>(&agents, &route).await;
    let (given, notes) = answered(answers, args.node.is_empty());
    anyhow::ensure!(!given.is_empty(), "{}", nothing(&args.program, &args.map, &notes));
    if context.format.is_table() {
        let page = |(node, found): &(String, References)| {
            let on = if matches!(source, Source::Standalone(_)) { node.clone() } else { format!("node {node}") };
            maps::references(&on, &args.program, &args.map, found)
        };
        print::text(&given.iter().map(page).collect::<Vec<_>>().join("\n"))?;
    } else {
        let all: Vec<_> = given.iter().map(|(node, found)| json!({"node": node, "references": found})).collect();
        print::structured(context, &all)?;
    }
    print::notes(&notes);
    Ok(ExitCode::SUCCESS)
}

/// Which entries of which map.
struct Question {
    program: String,
    map: String,
    key: Option<String>,
    how: How,
}

async fn dump(context: &Context, source: &Source, question: &Question) -> anyhow::Result<ExitCode> {
    let agents = context.agents(source, &question.how.node).await?;
    let (mut before, mut notes) = look(&agents, question).await;
    let with_key = question.key.as_ref().map(|key| format!(" with an entry of key {key}")).unwrap_or_default();
    let map = format!("{}{with_key}", question.map);
    anyhow::ensure!(!before.is_empty(), "{}", nothing(&question.program, &map, &notes));
    print::table(context, &maps::dump_table(&before), &before)?;
    for dump in &before {
        let undecoded =
            dump.undecoded.as_ref().map(|why| format!("node {}: keys and values are bytes: {why}", dump.node));
        let cut = dump.cut.then(|| {
            let node = &dump.node;
            format!("node {node}: there are more entries; see --limit, unless keys come and go too fast to list all")
        });
        notes.extend(undecoded.into_iter().chain(cut));
    }
    print::notes(&notes);
    if !question.how.watch {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        sleep(Duration::from_secs(question.how.interval.max(1))).await;
        let (after, notes) = look(&agents, question).await;
        print::notes(&notes);
        for dump in after {
            let old = before.iter().position(|old| old.node == dump.node);
            let old = old.map(|at| before.swap_remove(at)).unwrap_or_default();
            for change in maps::changes(&old, &dump) {
                if context.format.is_table() {
                    print::text(&maps::change_line(&change, agents.len() > 1))?;
                } else {
                    print::text(&format!("{}\n", serde_json::to_string(&change)?))?;
                }
            }
            before.push(dump);
        }
    }
}

/// A walk that began anew so often comes to no end: in a map whose keys live shortly it may never.
const MAX_RESTARTS: usize = 16;

/// Asks all agents at once for all pages.
async fn look(agents: &[Agent], question: &Question) -> (Vec<Dump>, Vec<String>) {
    let answers = fan_out::each(agents, |agent| async move { pages(&agent, question).await }).await;
    let (given, notes) = answered(answers, question.how.node.is_empty());
    (given.into_iter().map(|(node, dump)| Dump { node, ..dump }).collect(), notes)
}

async fn pages(agent: &Agent, question: &Question) -> Result<Dump, AgentError> {
    let Question { program, map, key, how } = question;
    let mut dump = Dump::default();
    let (mut after, mut restarts) = (None, 0);
    loop {
        let room = how.limit.saturating_sub(dump.entries.len());
        let limit = u32::try_from(room).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let cpus = if how.per_cpu { Cpus::Separate } else { Cpus::Sum };
        let query = EntriesQuery { key: key.clone(), after, limit, cpus };
        let mut page: Entries =
            agent.get(&Route::Entries { program: program.clone(), map: map.clone(), query }).await?;
        after = page.next.take();
        restarts += usize::from(page.restarted);
        dump.add(page);
        if after.is_none() || dump.entries.len() >= how.limit || restarts > MAX_RESTARTS {
            dump.cut = after.is_some();
            return Ok(dump);
        }
    }
}

/// Splits answers. A node that was not named and has no such BpfProgram or map is no failure.
fn answered<T>(answers: Vec<fan_out::Answer<T>>, is_any_node: bool) -> (Vec<(String, T)>, Vec<String>) {
    let is_elsewhere = |answer: &fan_out::Answer<T>| answer.answer.as_ref().err().is_some_and(AgentError::is_elsewhere);
    let all = answers.len();
    let there: Vec<_> =
        answers.into_iter().filter(|answer| !(is_any_node && all > 1 && is_elsewhere(answer))).collect();
    fan_out::split(there)
}

fn nothing(program: &str, map: &str, notes: &[String]) -> String {
    if notes.is_empty() {
        return format!("no node has, of BpfProgram {program}, a map {map}: see sockeye maps list {program}");
    }
    notes.join("; ")
}
