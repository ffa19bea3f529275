//! docs/tutorial.md, done as it says on the local cluster: its files are written, and its commands run in order.
#![allow(missing_docs)]

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use sockeye_tests::{helper, kubectl, repo, run};

/// A part of the page that is done.
enum Part {
    /// A file with that ending.
    File(&'static str, String),
    /// A command of the user's shell, or of root's on the node, and what it prints according to the page.
    Command { on_node: bool, command: String, output: String },
}

/// Returns the parts of the page, in order.
fn parts(page: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match language {
            "c" => parts.push(Part::File("connects.bpf.c", block.join("\n") + "\n")),
            "yaml" => parts.push(Part::File("connects.yaml", block.join("\n") + "\n")),
            _ => parts.extend(commands(&block)),
        }
    }
    parts
}

/// Returns the commands of a block. A line that ends in a backslash goes on in the next.
fn commands(block: &[&str]) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    let mut goes_on = false;
    for line in block {
        let begun =
            line.strip_prefix("$ ").map(|rest| (false, rest)).or(line.strip_prefix("# ").map(|rest| (true, rest)));
        match (found.last_mut(), begun) {
            (Some(Part::Command { command, .. }), _) if goes_on => *command += &format!("\n{line}"),
            (_, Some((on_node, rest))) => {
                found.push(Part::Command { on_node, command: rest.to_owned(), output: String::new() });
            }
            (Some(Part::Command { output, .. }), None) => *output += &format!("{line}\n"),
            _ => {}
        }
        goes_on = line.ends_with('\\');
    }
    found
}

/// Removes what the tutorial makes, also if it is not done to its end.
struct Undone;

impl Drop for Undone {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "bpfprograms.sockeye.dev", "connects", "--ignore-not-found", "--timeout=60s"]);
        let _ = kubectl(&["delete", "configmap", "-n", "sockeye-system", "connects", "--ignore-not-found"]);
        let _ = kubectl(&["delete", "pod", "caller", "--ignore-not-found", "--force", "--grace-period=0"]);
    }
}

/// Makes the tools that the page names, as this machine has them.
fn tools(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir(folder)?;
    let kubectl = repo().join("target/cluster/kubectl").canonicalize()?.display().to_string();
    for (name, tool) in [("kubectl", kubectl.as_str()), ("clang", "clang-16"), ("llvm-strip", "llvm-strip-16")] {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\nexec {tool} \"$@\"\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Returns a text without what differs from run to run: numbers, lists of numbers, and the width of columns.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !(shape.ends_with('0') && matches!(c, '0' | ',')) {
            shape.push(c);
        }
    }
    shape.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tutorial_does_what_it_says() -> Result<()> {
    let _undone = Undone;
    let work = tempfile::tempdir()?;
    let bin = work.path().join("bin");
    tools(&bin)?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let page = fs::read_to_string(repo().join("docs/tutorial.md"))?;
    // What the page says of the local cluster.
    let image = "--image=localhost/sockeye-toolbox:dev --image-pull-policy=Never";
    ensure!(page.contains(image), "the page does not name {image}");
    let mut count = 0;
    for part in parts(&page) {
        match part {
            Part::File(name, text) => fs::write(work.path().join(name), text)?,
            Part::Command { on_node, command, output } => {
                count += 1;
                let command = command.replace("NODE", "node-1").replace("--image=busybox", image);
                let printed = if on_node {
                    helper("exec", &["node-1", "sh", "-c", &command])?
                } else {
                    let shell = ["-euo", "pipefail", "-c", &command];
                    run(Command::new("bash").args(shell).current_dir(work.path()).env("PATH", &path))?
                };
                println!("$ {command}\n{printed}");
                if on_node {
                    // Other pods may have connected too.
                    ensure!(printed.contains("\"key\": 443,"), "no connection to port 443 was counted: {printed}");
                } else {
                    ensure!(shape(&printed) == shape(&output), "{command}: {printed}\nnot as on the page: {output}");
                }
            }
        }
    }
    ensure!(count >= 20, "only {count} commands were found");
    let left = helper("exec", &["node-1", "sh", "-c", "ls -d /sys/fs/bpf/sockeye/connects 2>/dev/null || true"])?;
    ensure!(left.is_empty(), "{left}");
    fs::metadata(work.path().join("connects.o")).context("no object was compiled")?;
    Ok(())
}
