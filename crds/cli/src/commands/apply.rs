//! `apply`: manifests into the folder of a node without a cluster. Its agent reads the folder within seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::Value;
use sockeye_ebpf::check::{check, embedded_bytes};

use super::{
    context::Context,
    manifests::{self, Files, Manifest},
    print,
};

/// The arguments of `apply`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the verb.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let Some(standalone) = context.standalone() else {
        anyhow::bail!("apply is for a node without a cluster: name its --node-dir, or use kubectl apply");
    };
    let folder = standalone.folder()?;
    let manifests = manifests::read(&args.files)?;
    // Nothing is written if one is wrong.
    for manifest in &manifests {
        refuse(manifest)?;
    }
    for manifest in &manifests {
        let (path, before) = place(folder, manifest.name())?;
        let word = match before {
            None => "created",
            Some(before) if before == manifest.value => "unchanged",
            Some(_) => "configured",
        };
        if word != "unchanged" && !args.dry_run {
            write(&path, &manifest.value)?;
        }
        let dry = if args.dry_run { " (dry run)" } else { "" };
        print::text(&format!("bpfprogram.sockeye.dev/{} {word}{dry}\n", manifest.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses what the agent would refuse, as far as that can be known without the node.
fn refuse(manifest: &Manifest) -> anyhow::Result<()> {
    let spec = &manifest.program.spec;
    let place = &manifest.place;
    let bytes = embedded_bytes(&spec.bytecode).with_context(|| place.clone())?;
    let bytes = bytes.with_context(|| {
        format!("{place}: spec.bytecode: a node without a cluster takes inline or builtin, and nothing else")
    })?;
    check(spec, &bytes).with_context(|| place.clone())?;
    Ok(())
}

/// Returns the file of a BpfProgram, with what it holds: the one that has its manifest already, or NAME.yaml.
pub fn place(folder: &Path, name: &str) -> anyhow::Result<(PathBuf, Option<Value>)> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| manifests::is_manifest(path));
    paths.sort();
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let Ok(value) = serde_saphyr::from_str::<Value>(&text) else { continue };
        if value["metadata"]["name"].as_str() == Some(name) {
            return Ok((path, Some(value)));
        }
    }
    let path = folder.join(format!("{name}.yaml"));
    anyhow::ensure!(!path.exists(), "{} holds something else: move it away", path.display());
    Ok((path, None))
}

/// Writes a manifest beside its place and renames it over: the agent never reads half of it, and no name with a dot
/// in front.
fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(value).map_err(anyhow::Error::msg)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&staged, text).with_context(|| staged.display().to_string())?;
    fs::rename(&staged, path).with_context(|| path.display().to_string())
}
