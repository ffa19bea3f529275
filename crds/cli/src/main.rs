//! `sockeye`, and under the name `kubectl-sockeye` a plugin of kubectl.

use std::process::ExitCode;

use sockeye_cli::commands;

fn main() -> ExitCode {
    commands::main()
}
