//! `top`: what programs cost, as a page that goes on or once.

use std::{io::IsTerminal as _, pin::pin, process::ExitCode, time::Duration};

use sockeye_read_api::node::Node;
use tokio::{sync::mpsc, time::sleep};

use super::{context::Context, observe::observe, print, top_page::Screen};
use crate::{
    source::Source,
    view::top::{self, By},
};

/// The arguments of `top`.
#[derive(clap::Args)]
pub struct Args {
    /// The BpfProgram; all if it is left out
    program: Option<String>,
    /// A node; can be given several times. All nodes if it is left out
    #[arg(long)]
    node: Vec<String>,
    /// What the rows are
    #[arg(long, value_enum, default_value = "function")]
    by: By,
    /// Print one table and end
    #[arg(long)]
    once: bool,
    /// The seconds between two looks
    #[arg(long, default_value = "2")]
    interval: u64,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let source = context.source().await?;
    let is_page = !args.once && context.format.is_table() && std::io::stdout().is_terminal();
    if is_page {
        page(context, &source, &args).await?;
    } else {
        once(context, &source, &args).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn once(context: &Context, source: &Source, args: &Args) -> anyhow::Result<()> {
    let mut notes = Vec::new();
    let before = look(context, source, args, &mut notes).await?;
    notes.clear();
    sleep(Duration::from_secs(args.interval.max(1))).await;
    let after = look(context, source, args, &mut notes).await?;
    notes.extend(top::notes(&after));
    let rows = top::rows(&before, &after, args.by);
    print::table(context, &top::table(&rows, args.by), &rows)?;
    print::notes(&notes);
    Ok(())
}

async fn look(context: &Context, source: &Source, args: &Args, notes: &mut Vec<String>) -> anyhow::Result<Vec<Node>> {
    let mut nodes = observe(context, source, &args.node, notes).await?;
    if let Some(name) = &args.program {
        nodes.iter_mut().for_each(|node| node.programs.retain(|program| program.name == *name));
    }
    Ok(nodes)
}

/// Shows the page until a key ends it. The terminal is as it was afterwards, whatever happens.
async fn page(context: &Context, source: &Source, args: &Args) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    let mut before = look(context, source, args, &mut missing).await?;
    let mut after: Option<Vec<Node>> = None;
    let mut screen = Screen::open(args.by)?;
    let (sender, mut keys) = mpsc::channel(8);
    std::thread::spawn(move || super::top_page::read_keys(&sender));
    // A look takes as long as the slowest node. Keys do not wait for it.
    let mut next = pin!(look_later(context, source, args));
    loop {
        let shown = after.as_ref().unwrap_or(&before);
        screen.draw(&before, shown, &[missing.clone(), top::notes(shown)].concat())?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) if screen.press(key) => {}
                _ => return Ok(()),
            },
            newest = &mut next => {
                let nodes;
                (nodes, missing) = newest?;
                before = after.replace(nodes).unwrap_or(before);
                next.set(look_later(context, source, args));
            }
        }
    }
}

/// Looks once the interval is over. Returns the nodes, and notes about those that are missing.
async fn look_later(context: &Context, source: &Source, args: &Args) -> anyhow::Result<(Vec<Node>, Vec<String>)> {
    sleep(Duration::from_secs(args.interval.max(1))).await;
    let mut missing = Vec::new();
    let nodes = look(context, source, args, &mut missing).await?;
    Ok((nodes, missing))
}
