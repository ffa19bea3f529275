//! `delete`: manifests out of the folder of a node without a cluster. Its agent then detaches and removes.

use std::{fs, process::ExitCode};

use anyhow::Context as _;

use super::{
    apply,
    context::Context,
    manifests::{self, Files},
    print,
};

/// The arguments of `delete`.
#[derive(clap::Args)]
pub struct Args {
    /// The BpfPrograms
    #[arg(required_unless_present = "files")]
    names: Vec<String>,
    /// A file with the manifests of those to delete, a folder of such files, or - for standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    files: Vec<std::path::PathBuf>,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs the verb.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let Some(standalone) = context.standalone() else {
        anyhow::bail!("delete is for a node without a cluster: name its --node-dir, or use kubectl delete");
    };
    let folder = standalone.folder()?;
    let mut names = args.names.clone();
    if !args.files.is_empty() {
        let manifests = manifests::read(&Files { files: args.files.clone() })?;
        names.extend(manifests.iter().map(|manifest| manifest.name().to_owned()));
    }
    let mut missing = Vec::new();
    for name in &names {
        match apply::place(folder, name)? {
            (path, Some(_)) => {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
                print::text(&format!("bpfprogram.sockeye.dev/{name} deleted\n"))?;
            }
            (_, None) => missing.push(name.as_str()),
        }
    }
    let is_error = !missing.is_empty() && !args.ignore_not_found;
    anyhow::ensure!(!is_error, "{} has no manifest of {}", folder.display(), missing.join(", "));
    Ok(ExitCode::SUCCESS)
}
