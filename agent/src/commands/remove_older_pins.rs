//! `remove-older-pins`: detaches and removes what a version of sockeye with another layout has pinned, for when that
//! version is gone for good. Does IO. Agents leave such pins alone.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::bpffs;
use crate::{
    kernel::{
        SysError, bpf,
        bpffs::{Dir, EntryKind},
        running::RunningKernel,
    },
    model::observed::LinkKey,
    node::{
        KernelNode, Node as _, directory,
        execute::Execution,
        failure::Failure,
        layout::{self, DIRECTORY, Home, Layout},
        open::{NodePaths, Opened},
    },
    plan,
};

/// Removes the homes of another layout, and prints each pin that it removes.
///
/// # Errors
/// Fails where there is no bpffs, or where something is still there.
pub fn run(paths: NodePaths) -> Result<()> {
    let root = bpffs::open(&Layout::new(&paths.bpffs, &paths.host_bpffs))?;
    let Opened { mut node, layout, .. } = paths.open()?;
    let homes = directory::older_homes(&root)?;
    if homes.is_empty() {
        println!("there are no pins of another layout in {}", layout.directory().display());
        return Ok(());
    }
    // First, because the node's agent writes a note of its own as soon as the last home is gone. Homes without a note
    // are of another layout too.
    root.remove(&layout::version()).context("the note of the layout's version can't be removed")?;
    let mut failed = Vec::new();
    for home in &homes {
        let path = Path::new(DIRECTORY).join(home);
        // What is attached goes first: without its pin, nobody could detach what a map holds without a link.
        let detached = detach(&mut node, home, &layout.home(home)).map_err(anyhow::Error::msg);
        match detached.and_then(|links| Ok(links + remove(&root, &path, layout.host_root())?)) {
            Ok(pins) => println!("{home}: removed {pins} pins"),
            Err(error) => {
                tracing::error!(home, "{error:#}");
                failed.push(home.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "not removed: {}", failed.join(", "));
    println!("removed {} BpfPrograms; the agent on this node goes on", homes.len());
    Ok(())
}

/// Detaches what is attached as this layout has it, if anything is. Prints the paths of its pins on the host, and
/// returns their number.
fn detach(node: &mut KernelNode, name: &str, home: &Home) -> Result<usize, Failure> {
    let observed = node.observe(name)?;
    let steps = plan::detach(&observed);
    if steps.is_empty() {
        return Ok(0);
    }
    let execution =
        Execution { steps: &steps, desired: None, bytes: None, lists: None, kernel: &RunningKernel::default() };
    let (executed, _) = node.execute(name, &observed, &execution)?;
    if let Some(failure) = executed.left {
        return Err(failure);
    }
    for LinkKey { function, place } in observed.links.keys() {
        println!("removed {}", home.host(&layout::link(function, place)));
    }
    Ok(observed.links.len())
}

/// Removes a directory or a pin, with whatever is below; returns the number of pins. Prints their paths on the host,
/// which has the bpffs at `host`.
fn remove(root: &Dir, path: &Path, host: &Path) -> Result<usize, SysError> {
    let mut pins = 0;
    match root.entry(path)?.map(|entry| entry.kind) {
        None => {}
        Some(EntryKind::Directory) => {
            for name in root.list(path)? {
                pins += remove(root, &path.join(name), host)?;
            }
            root.remove_dir(path)?;
        }
        Some(EntryKind::Note) => root.remove(path)?,
        Some(EntryKind::Pin) => {
            // A link of a layout that differs more is detached here; nothing but a link can be.
            if let Ok(object) = root.get(path) {
                let _ = bpf::link_detach(object.as_fd());
            }
            root.remove(path)?;
            println!("removed {}", host.join(path).display());
            pins += 1;
        }
    }
    Ok(pins)
}
