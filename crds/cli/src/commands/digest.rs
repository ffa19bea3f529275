//! `digest`: the digest of an ELF object, as a BpfProgram names it.

use std::{path::PathBuf, process::ExitCode};

use sockeye_crds::names;

use super::print;
use crate::source::elf;

/// The file.
#[derive(clap::Args)]
pub struct Args {
    /// The ELF object, or - for standard input
    file: PathBuf,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let bytes = elf::read(&args.file, names::MAX_OBJECT_BYTES)?;
    print::text(&format!("{}\n", names::digest(&bytes)))?;
    Ok(ExitCode::SUCCESS)
}
