//! `events`: the records of ring and perf buffers from all nodes, in the order of time.

use std::{mem, process::ExitCode, time::Duration};

use k8s_openapi::jiff::Timestamp;
use sockeye_read_api::{Route, node::Program, record::Record};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep},
};

use super::{context::Context, print};
use crate::{
    source::{Agent, AgentError, Source, fan_out},
    view::{
        events::{self, Event, EventFilter},
        merge::Merger,
    },
};

/// A record waits so long for an earlier one of another node.
const WINDOW: Duration = Duration::from_millis(500);
/// The delay before a stream that broke is begun again.
const RETRY: Duration = Duration::from_secs(5);
/// So many records lie between the nodes and the output. A reader that is slower loses some, and is told how many.
const QUEUE: usize = 1024;

/// Which records.
#[derive(clap::Args)]
pub struct Args {
    /// The BpfProgram
    program: String,
    /// The ring or perf buffer; all of the BpfProgram if it is left out
    map: Option<String>,
    /// A node; can be given several times. All nodes if it is left out
    #[arg(long)]
    node: Vec<String>,
    /// Only records about this pod: NAME or NAMESPACE/NAME
    #[arg(long)]
    pod: Option<String>,
    /// End after so many records
    #[arg(long)]
    limit: Option<u64>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// One thing that a stream brings.
enum Heard {
    Event(Event),
    Note(String),
    /// Nothing comes from there, for this reason.
    Refusal(String, AgentError),
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let source = context.source().await?;
    let agents = context.agents(&source, &args.node).await?;
    let streams = streams(&agents, &args).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    for (agent, map) in streams {
        tokio::spawn(listen(source.clone(), agent, (args.program.clone(), map), sender.clone()));
    }
    drop(sender);
    let namespace = context.named_namespace();
    let filter = match args.pod.as_deref().map(|pod| pod.split_once('/').map_or((None, pod), |(n, p)| (Some(n), p))) {
        Some((own, pod)) => EventFilter { namespace: own.map(str::to_owned).or(namespace), pod: Some(pod.to_owned()) },
        None => EventFilter { namespace, pod: None },
    };
    let refusals = show(context, receiver, &filter, (args.limit, args.seconds)).await?;
    let why = refusals.iter().find(|(_, error)| !error.is_elsewhere()).or(refusals.first());
    let Some((node, error)) = why else { return Ok(ExitCode::SUCCESS) };
    anyhow::bail!("no node gives records of BpfProgram {}: node {node}: {error}", args.program);
}

/// Returns the buffers to listen to: the one that is named, or all that the nodes' programs have.
async fn streams(agents: &[Agent], args: &Args) -> anyhow::Result<Vec<(Agent, String)>> {
    if let Some(map) = &args.map {
        return Ok(agents.iter().map(|agent| (agent.clone(), map.clone())).collect());
    }
    let answers = fan_out::ask::<Program>(agents, &Route::Program { program: args.program.clone() }).await;
    let (given, notes) = fan_out::split(answers);
    let mut streams = Vec::new();
    for (node, program) in given {
        let is_buffer = |kind: &str| matches!(kind, "RingBuf" | "PerfEventArray");
        let maps = program.detail.maps.into_iter().filter(|map| is_buffer(&map.map_type)).map(|map| map.name);
        if let Some(agent) = agents.iter().find(|agent| agent.node == node) {
            streams.extend(maps.map(|map| (agent.clone(), map)));
        }
    }
    if streams.is_empty() && !notes.is_empty() {
        anyhow::bail!("{}", notes.join("; "));
    }
    print::notes(&notes);
    anyhow::ensure!(!streams.is_empty(), "BpfProgram {} has no ring and no perf buffer", args.program);
    Ok(streams)
}

/// Listens to one buffer, and begins again where the connection breaks, by then perhaps to another pod. What the agent
/// refuses for good ends it.
async fn listen(source: Source, mut agent: Agent, (program, map): (String, String), sender: mpsc::Sender<Heard>) {
    let mut last = String::new();
    loop {
        let error = match listen_once(&agent, &program, &map, &sender).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if error.is_final() {
            return drop(sender.send(Heard::Refusal(agent.node, error)).await);
        }
        let note = format!("node {}, map {map}: {error}; trying again", agent.node);
        // Not each time that it is tried again.
        if note != last && sender.send(Heard::Note(note.clone())).await.is_err() {
            return;
        }
        last = note;
        sleep(RETRY).await;
        if let Ok(agents) = source.agents().await {
            agent = agents.into_iter().find(|other| other.node == agent.node).unwrap_or(agent);
        }
    }
}

async fn listen_once(agent: &Agent, program: &str, map: &str, sender: &mpsc::Sender<Heard>) -> Result<(), AgentError> {
    let route = Route::Records { program: program.to_owned(), map: map.to_owned() };
    let mut lines = agent.lines(&route).await?;
    let node = &agent.node;
    let mut is_told = false;
    while let Some(record) = lines.next::<Record>().await? {
        let heard = match record {
            Record::Record { time, value, pod, undecoded } => {
                // Once, not with each record.
                if let Some(why) = undecoded.filter(|_| !mem::replace(&mut is_told, true)) {
                    let note = format!("node {node}: records of map {map} are not decoded: {why}");
                    drop(sender.send(Heard::Note(note)).await);
                }
                Heard::Event(Event { time, node: node.clone(), map: map.to_owned(), pod, value })
            }
            Record::Lost { count } => {
                Heard::Note(format!("node {node}: {count} records are missing: this reader is slow"))
            }
            Record::Dropped { count } => Heard::Note(format!(
                "node {node}: {count} records are missing: the buffer was full, maxEntries is small"
            )),
            Record::End { message } => Heard::Note(format!("node {node}: {message}")),
        };
        if sender.send(heard).await.is_err() {
            return Ok(());
        }
    }
    // The agent ends a stream when the program is updated; the next one has the new types.
    Err(AgentError::Unreachable("the stream ended".to_owned()))
}

/// Prints records in the order of time, until there are no streams any more, or enough. Returns why there are none, if
/// it comes to that.
async fn show(
    context: &Context,
    mut receiver: mpsc::Receiver<Heard>,
    filter: &EventFilter,
    (limit, seconds): (Option<u64>, Option<u64>),
) -> anyhow::Result<Vec<(String, AgentError)>> {
    let mut refusals = Vec::new();
    let mut merger = Merger::new(WINDOW);
    let mut ticks = interval(WINDOW / 5);
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut left = limit.unwrap_or(u64::MAX);
    loop {
        let over = end.is_some_and(|end| Instant::now() >= end);
        tokio::select! {
            heard = receiver.recv(), if !over => match heard {
                Some(Heard::Event(event)) if filter.matches(&event) => {
                    let time = event.time.parse().unwrap_or_else(|_| Timestamp::now());
                    merger.push(time, event, Instant::now());
                }
                Some(Heard::Event(_)) => {}
                Some(Heard::Note(note)) => print::notes(&[note]),
                Some(Heard::Refusal(node, error)) => {
                    if !error.is_elsewhere() {
                        print::notes(&[format!("node {node}: {error}")]);
                    }
                    refusals.push((node, error));
                }
                None => {
                    print_events(context, merger.rest(), &mut left)?;
                    return Ok(if left == 0 { Vec::new() } else { refusals });
                }
            },
            _ = ticks.tick() => {
                let due = if over { merger.rest() } else { merger.due(Instant::now()) };
                print_events(context, due, &mut left)?;
                if over || left == 0 {
                    return Ok(Vec::new());
                }
            }
        }
    }
}

fn print_events(context: &Context, events: Vec<Event>, left: &mut u64) -> anyhow::Result<()> {
    for event in events {
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        if context.format.is_table() {
            print::text(&events::line(&event))?;
        } else if context.format == crate::output::Format::Json {
            // One value a line, for it is a stream.
            print::text(&format!("{}\n", serde_json::to_string(&event)?))?;
        } else {
            print::structured(context, &event)?;
        }
    }
    Ok(())
}
