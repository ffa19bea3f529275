//! `remove-older-pins`: detaches and removes what a version of sockeye with another layout has pinned, for when that
//! version is gone for good. Does IO. Agents leave such pins alone.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::bpffs;
use crate::{
    kernel::{
        SysError, bpf,
        bpffs::{Dir, EntryKind},
        load::KernelBtf,
    },
    node::{
        KernelNode, Node as _, directory,
        execute::Execution,
        failure::Failure,
        layout::{self, DIRECTORY, Layout},
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
    let mut failed = Vec::new();
    for home in &homes {
        let path = Path::new(DIRECTORY).join(home);
        // What is attached goes first: without its pin, nobody could detach what a map holds without a link.
        match detach(&mut node, home)
            .map_err(anyhow::Error::msg)
            .and_then(|()| Ok(remove(&root, &path, layout.host_root())?))
        {
            Ok(pins) => println!("{home}: removed {pins} pins"),
            Err(error) => {
                tracing::error!(home, "{error:#}");
                failed.push(home.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "not removed: {}", failed.join(", "));
    // A note of another version goes with the pins that it is about.
    root.remove(&layout::version()).context("the pins are removed, and the note of their layout's version is not")?;
    println!("removed {} BpfPrograms; the agent on this node goes on", homes.len());
    Ok(())
}

/// Detaches what is attached as this layout has it, if anything is.
fn detach(node: &mut KernelNode, home: &str) -> Result<(), Failure> {
    let observed = node.observe(home)?;
    let steps = plan::detach(&observed);
    if steps.is_empty() {
        return Ok(());
    }
    let execution = Execution { steps: &steps, desired: None, bytes: None, kernel_btf: &KernelBtf::default() };
    let (executed, _) = node.execute(home, &observed, &execution)?;
    executed.left.map_or(Ok(()), Err)
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
