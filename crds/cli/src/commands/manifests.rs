//! Manifests of BpfPrograms, as `apply`, `delete` and `diff` read them: files, folders, and standard input.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;
use sockeye_crds::{BpfProgram, names};

use crate::source::elf;

/// The most bytes of one file.
const MAX_FILE: usize = 8 << 20;

/// The files and folders of manifests.
#[derive(clap::Args)]
pub struct Files {
    /// A file of manifests, a folder of such files, or - for standard input; can be given several times
    #[arg(long = "filename", short = 'f', required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// A manifest of a BpfProgram.
#[derive(Debug)]
pub struct Manifest {
    /// The file, with the number of the document if it has several.
    pub place: String,
    /// The object as it is written.
    pub value: Value,
    /// The object as it is read.
    pub program: BpfProgram,
}

impl Manifest {
    /// Returns the BpfProgram's name.
    pub fn name(&self) -> &str {
        self.program.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Reads all manifests. Other kinds in the same files are an error: nothing that is written is to be left out silently.
///
/// # Errors
/// Fails where a file can't be read, or has what is no BpfProgram.
pub fn read(files: &Files) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in &files.files {
        for path in paths(file)? {
            let bytes = elf::read(&path, MAX_FILE)?;
            let text = String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))?;
            manifests.extend(documents(&path.display().to_string(), &text)?);
        }
    }
    anyhow::ensure!(!manifests.is_empty(), "there is no manifest of a BpfProgram in what -f names");
    for (at, manifest) in manifests.iter().enumerate() {
        let other = manifests.iter().take(at).find(|other| other.name() == manifest.name());
        let place = &manifest.place;
        anyhow::ensure!(
            other.is_none(),
            "{place} and {} are both manifests of {}",
            other.map_or("", |other| other.place.as_str()),
            manifest.name()
        );
    }
    Ok(manifests)
}

/// Returns a file, or the manifests in a folder.
fn paths(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let entries = fs::read_dir(file).with_context(|| file.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| is_manifest(path));
    paths.sort();
    Ok(paths)
}

/// Returns whether a file in a folder is a manifest: what an agent without a cluster takes for one.
pub fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.ends_with(".yaml") || name.ends_with(".yml"))
        && !name.starts_with('.')
        && !name.ends_with(".status.yaml")
        && path.is_file()
}

fn documents(file: &str, text: &str) -> anyhow::Result<Vec<Manifest>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).with_context(|| format!("{file} is no YAML"))?;
    let count = all.len();
    let mut manifests = Vec::new();
    for (at, value) in all.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
        let place = if count > 1 { format!("{file}, document {}", at + 1) } else { file.to_owned() };
        let word = |field: &str| value[field].as_str().unwrap_or("nothing").to_owned();
        let (kind, version) = (word("kind"), word("apiVersion"));
        let own = format!("{}/{}", names::GROUP, names::VERSION);
        anyhow::ensure!(
            kind == "BpfProgram" && version == own,
            "{place}: it is {kind} of {version}, and must be BpfProgram of {own}"
        );
        let program: BpfProgram = serde_json::from_value(value.clone()).with_context(|| place.clone())?;
        let name = program.metadata.name.as_deref().unwrap_or_default();
        anyhow::ensure!(
            names::is_dns_label(name),
            "{place}: metadata.name {} is no DNS label: lower-case letters, digits and -, at most 63",
            names::printable(name)
        );
        manifests.push(Manifest { place, value, program });
    }
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "apiVersion: sockeye.dev/v1alpha1\nkind: BpfProgram\nmetadata: {name: NAME}\n\
        spec: {bytecode: {builtin: tcp-rtt}, attach: [{type: AllPods}], programs: [{name: measure}]}\n";

    #[test]
    fn documents_are_read_and_what_is_none_is_named() {
        let two = format!("{}---\n{}", PROGRAM.replace("NAME", "a"), PROGRAM.replace("NAME", "b"));
        let read: Vec<_> = documents("f", &two).unwrap().iter().map(|one| one.name().to_owned()).collect();
        assert_eq!(read, ["a", "b"]);
        for (text, problem) in [
            (PROGRAM.replace("NAME", "A_B"), "no DNS label"),
            (PROGRAM.replace("BpfProgram", "Pod"), "it is Pod"),
            (PROGRAM.replace("v1alpha1", "v1"), "must be BpfProgram of sockeye.dev/v1alpha1"),
            (PROGRAM.replace("type: AllPods", "type: Somewhere"), "f"),
            ("a: [".to_owned(), "no YAML"),
        ] {
            let error = format!("{:#}", documents("f", &text).unwrap_err());
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
