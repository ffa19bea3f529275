//! `detach --all` and `attach --all`: suspend one node, for when there is no API server to ask. Does IO. The suspension
//! is a note on bpffs, where an agent that runs on the node finds it.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use sockeye_crds::names;

use super::bpffs;
use crate::{
    control::{Controller, controller::Settings},
    node::{
        layout::{self, Layout},
        open::{NodePaths, Opened},
    },
    plan::quota::MapQuota,
};

/// Notes that nothing is to be attached, then detaches everything. In this order, so that an agent that attaches
/// meanwhile sees the note with its next poll.
///
/// # Errors
/// Fails where there is no bpffs, or where something is still attached.
pub fn detach_all(paths: NodePaths, reason: &str) -> Result<()> {
    let root = bpffs::open(&Layout::new(&paths.bpffs, &paths.host_bpffs))?;
    let Opened { node, layout, facts } = paths.open()?;
    root.make_dir(Path::new(layout::DIRECTORY))?;
    // A note is at most as long as a path.
    let reason = names::line(if reason.is_empty() { "no reason given" } else { reason }, 256);
    root.replace(&layout::suspension(), &layout::suspension_staging(), |at| root.make_note(at, &reason))?;
    let (quota, time_of_day) = (MapQuota::default(), Timestamp::now);
    let settings = Settings { layout, quota, facts, kernel_config: None, release_namespace: None, time_of_day };
    let mut controller = Controller::new(node, settings, Instant::now());
    let detached = controller.detach_all().context("reading what is attached")?;
    let failed: Vec<&str> =
        detached.iter().filter(|(_, outcome)| outcome.is_err()).map(|(name, _)| name.as_str()).collect();
    ensure!(failed.is_empty(), "not detached: {}", failed.join(", "));
    println!("detached {} BpfPrograms; sockeye-agent attach --all takes that back", detached.len());
    Ok(())
}

/// Removes the note.
///
/// # Errors
/// Fails where there is no bpffs, or where the note can't be removed.
pub fn attach_all(paths: &NodePaths) -> Result<()> {
    let root = bpffs::open(&Layout::new(&paths.bpffs, &paths.host_bpffs))?;
    root.remove(&layout::suspension())?;
    println!("the agent on this node attaches again what is desired");
    Ok(())
}
