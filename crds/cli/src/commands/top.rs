//! `top`: what programs cost, as a page that goes on or once.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

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
    let mut notes = Vec::new();
    let mut before = look(context, source, args, &mut notes).await?;
    let mut screen = Screen::open(args.by)?;
    let (sender, mut keys) = mpsc::channel(8);
    std::thread::spawn(move || super::top_page::read_keys(&sender));
    let mut after: Vec<Node> = Vec::new();
    loop {
        let shown = if after.is_empty() { &before } else { &after };
        notes.extend(top::notes(shown));
        screen.draw(&before, shown, &notes)?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) if screen.press(key) => {}
                _ => return Ok(()),
            },
            () = sleep(Duration::from_secs(args.interval.max(1))) => {
                let mut missing = Vec::new();
                let newest = look(context, source, args, &mut missing).await?;
                if !after.is_empty() {
                    before = after;
                }
                (after, notes) = (newest, missing);
            }
        }
        notes.retain(|note| !note.contains("count no runs"));
    }
}
