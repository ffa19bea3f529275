//! `completion`: the completions of a shell.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::print;

/// The shell.
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the verb for a command line.
pub fn run(args: &Args, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sockeye", &mut script);
    print::text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
