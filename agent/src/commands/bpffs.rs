//! The bpffs that a command's `--bpffs` names. Does IO; changes nothing.

use anyhow::{Result, bail};

use crate::{
    kernel::bpffs::Dir,
    node::{
        layout::Layout,
        observe::{self, ObserveError},
    },
};

/// What to do about a wrong path. It is the chart that mounts the node's bpffs there.
pub const HINT: &str = "set --bpffs to where this node's bpffs is mounted, which is /host/bpf in the agent's pod";

/// Opens the node's bpffs, before a command does anything else. On a wrong path a command would find nothing to do, and
/// succeed.
///
/// # Errors
/// Fails, with the path and the argument that sets it, where there is no bpffs that can be used.
pub fn open(layout: &Layout) -> Result<Dir> {
    let path = layout.root().display();
    match observe::open_bpffs(layout) {
        Ok((_, root)) => Ok(root),
        Err(ObserveError::NotBpffs(_)) => bail!("there is no bpffs at {path}: {HINT}"),
        Err(error) => bail!("the path of --bpffs, {path}, can't be used: {error}"),
    }
}
