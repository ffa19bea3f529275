//! `why`: why a BpfProgram is not in effect. Exits 3 if it is not.

use std::process::ExitCode;

use super::{context::Context, describe::gather, print};
use crate::view::{placement::placements, why};

/// The arguments of `why`.
#[derive(clap::Args)]
pub struct Args {
    /// The BpfProgram
    name: String,
}

/// The exit code where it is not in effect.
const NOT_IN_EFFECT: u8 = 3;

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let source = context.source().await?;
    let gathered = gather(&source, &args.name).await?;
    print::notes(&gathered.notes);
    let placed = placements(&gathered.program, &gathered.nodes, &gathered.details);
    let why = why::explain(&gathered.program, &placed);
    if context.format.is_table() {
        print::text(&why::render(&why, context.colours))?;
    } else {
        print::structured(context, &why)?;
    }
    Ok(if why.in_effect { ExitCode::SUCCESS } else { ExitCode::from(NOT_IN_EFFECT) })
}
