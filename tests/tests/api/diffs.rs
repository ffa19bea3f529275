//! The documented BpfPrograms: each is applied, and three ways to compare it with what is stored find no difference.
//! GitOps tools compare all the time, and would report a field that the API server changed or added as drift.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sockeye_tests::{chart::kubectl, repo};

use crate::apply_crds;

/// Returns the files with an ending in a folder and the folders below.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the BpfPrograms in a page's blocks of YAML, without the indentation that a block has within a list.
fn in_page(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some((indent, "")) = line.split_once("```yaml") else { continue };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let block: Vec<&str> = block.map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
        if block.contains(&"kind: BpfProgram") {
            found.push(block.join("\n") + "\n");
        }
    }
    found
}

/// Returns all examples and all BpfPrograms in pages, with where they are.
fn documented() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for path in files(&repo().join("deploy/examples"), "yaml")? {
        found.push((path.display().to_string(), fs::read_to_string(&path)?));
    }
    ensure!(found.len() >= 17, "only {} examples", found.len());
    let mut in_pages = 0;
    for path in files(&repo().join("docs"), "md")? {
        for manifest in in_page(&fs::read_to_string(&path)?) {
            found.push((path.display().to_string(), manifest));
            in_pages += 1;
        }
    }
    ensure!(in_pages >= 2, "only {in_pages} BpfPrograms in pages");
    Ok(found)
}

/// Returns the path of the first field of `desired` that `live` has not or has with another value. Lists are compared
/// as a whole, as a client without the schema does.
fn difference(desired: &Value, live: &Value, path: &str) -> Option<String> {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            live.get(key).map_or_else(|| Some(path.clone()), |live| difference(value, live, &path))
        }),
        _ => (desired != live).then(|| format!("{path}: {desired:.200} is {live:.200}")),
    }
}

/// Runs `kubectl diff`, which exits with 1 if there is a difference.
fn ensure_same(args: &[&str], manifest: &str) -> Result<()> {
    kubectl(&[&["diff", "-f", "-"], args].concat(), manifest).map(drop).context("a difference, or kubectl failed")
}

#[test]
fn applied_bpfprograms_do_not_differ_from_their_manifests() -> Result<()> {
    apply_crds()?;
    for (place, manifest) in documented()? {
        let check = || -> Result<()> {
            let parsed = kubectl(&["create", "--dry-run=client", "-o", "json", "-f", "-"], &manifest)?;
            let desired: Value = serde_json::from_str(&parsed)?;
            let name = desired["metadata"]["name"].as_str().context("no name")?;
            let delete = || kubectl(&["delete", "bpfprograms.sockeye.dev", name, "--ignore-not-found"], "");
            delete()?;
            kubectl(&["apply", "-f", "-"], &manifest)?;
            ensure_same(&[], &manifest)?;
            // The three-way diff of a client alone: between what was applied, what is to be applied, and what is live.
            let live: Value =
                serde_json::from_str(&kubectl(&["get", "bpfprograms.sockeye.dev", name, "-o", "json"], "")?)?;
            let applied = &live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
            let applied: Value = serde_json::from_str(applied.as_str().context("no annotation")?)?;
            for (desired, of) in [(&desired["spec"], "the manifest"), (&applied["spec"], "what was applied")] {
                let difference = difference(desired, &live["spec"], "spec");
                ensure!(difference.is_none(), "{of}: {difference:?}");
                ensure!(*desired == live["spec"], "{of}: the API server added a field");
            }
            delete()?;
            kubectl(&["apply", "--server-side", "-f", "-"], &manifest)?;
            ensure_same(&["--server-side"], &manifest)?;
            delete().map(drop)
        };
        check().with_context(|| place.clone())?;
    }
    Ok(())
}

#[test]
fn a_change_is_a_difference() -> Result<()> {
    apply_crds()?;
    let manifest = fs::read_to_string(repo().join("deploy/examples/egress-guard.yaml"))?;
    kubectl(&["apply", "-f", "-"], &manifest)?;
    let changed = manifest.replace("dry_run: \"true\"", "dry_run: \"false\"");
    ensure!(changed != manifest, "the example has no dry_run: \"true\"");
    let found = ensure_same(&[], &changed).map_err(|error| format!("{error:#}"));
    kubectl(&["delete", "bpfprograms.sockeye.dev", "egress-guard"], "")?;
    let words = found.err().context("no difference")?;
    ensure!(words.contains("+    dry_run: \"false\""), "{words}");
    Ok(())
}
