//! The verbs. Each reads, has [`view`](crate::view) decide, and prints.
//!
//! Exit codes: 0, all is well; 1, an error; 2, the command line is wrong. Some verbs answer by theirs: `why` and
//! `inspect` 3 where something is not in effect or would not load; `diff` as kubectl's, 1 where something changes and 2
//! for an error.

mod apply;
mod completion;
mod context;
mod delete;
mod describe;
mod diff;
mod digest;
mod events;
mod get;
mod inspect;
mod manifests;
mod maps;
mod observe;
mod print;
mod push;
mod status;
mod top;
mod top_page;
mod which;
mod why;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use context::{Context, Options};

/// Shows what sockeye's programs do on the nodes: what is attached where, what it costs, what maps hold, and why
/// something is not in effect. Reads with your own rights, and changes nothing in a cluster.
#[derive(Parser)]
#[command(name = "sockeye", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List resources, as kubectl does
    Get(get::Args),
    /// Show one BpfProgram on one page: intent, revision, placements, cost, and why it is not in effect
    Describe(describe::Args),
    /// Say why a BpfProgram is not in effect, from the condition to the cause, and what to do
    Why(why::Args),
    /// List every program that acts on a pod
    Which(which::Args),
    /// List maps, show what they hold, and what keeps them alive
    Maps(maps::Args),
    /// Stream the records of ring buffers from all nodes, in the order of time
    Events(events::Args),
    /// Show what programs cost: runs, time, memory
    Top(top::Args),
    /// Show what an ELF object holds and needs, and whether it would load here and on the nodes
    Inspect(inspect::Args),

    /// Show what an edit would change: nodes, pods, loads, maps
    Diff(diff::Args),
    /// Push an ELF object to a registry as an image that BpfPrograms can name
    Push(push::Args),

    /// Print the digest of an ELF object, as a BpfProgram names it
    Digest(digest::Args),
    /// Put manifests into the folder of a node without a cluster
    Apply(apply::Args),
    /// Take manifests out of the folder of a node without a cluster
    Delete(delete::Args),
    /// Show the state of a node without a cluster
    Status(status::Args),

    /// Print the completions of a shell
    Completion(completion::Args),
}

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let is_diff = matches!(cli.command, Command::Diff(_));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(cli));
            // What still reads standard input or a name would hold the process up.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(error.into()),
    };
    done.unwrap_or_else(|error| {
        print::error(&error);
        ExitCode::from(if is_diff { 2 } else { 1 })
    })
}

/// Parses arguments. As a plugin of kubectl it is named so in its help.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let mut command = Cli::command();
    if name.to_string_lossy().starts_with("kubectl-") {
        command = command.bin_name("kubectl sockeye");
    }
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.options);
    match cli.command {
        Command::Get(args) => get::run(&context, args).await,
        Command::Describe(args) => describe::run(&context, args).await,
        Command::Why(args) => why::run(&context, args).await,
        Command::Which(args) => which::run(&context, args).await,
        Command::Maps(args) => maps::run(&context, args).await,
        Command::Events(args) => events::run(&context, args).await,
        Command::Top(args) => top::run(&context, args).await,
        Command::Inspect(args) => inspect::run(&context, args).await,

        Command::Diff(args) => diff::run(&context, args).await,
        Command::Push(args) => push::run(args).await,

        Command::Digest(args) => digest::run(&args),
        Command::Apply(args) => apply::run(&context, &args),
        Command::Delete(args) => delete::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),

        Command::Completion(args) => completion::run(&args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_a_plugin_the_help_names_kubectl() {
        let help = |name: &str| parse(&[name.into(), "--help".into()]).err().map(|error| error.to_string());
        assert!(help("/usr/bin/kubectl-sockeye").unwrap_or_default().contains("kubectl sockeye"));
        assert!(help("sockeye").unwrap_or_default().contains("Usage: sockeye"));
    }
}
