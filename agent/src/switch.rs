//! Switch: `detach --all` and `attach --all`, the switch of one node, for when there is no API server to ask. Does IO. What
//! is said stands as a note on bpffs, where the agent that runs here, if one does, finds it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent::{Agent, Places},
    host::Kernel,
    kernel::bpffs::Dir,
    layout,
    policy::Policy,
};

/// Notes that nothing is to be attached, then detaches everything. In this order: an agent that attaches meanwhile sees the
/// note with its next glance.
pub fn detach_all(places: Places, reason: &str) -> Result<()> {
    let root = Dir::at(&places.bpffs)?;
    let mut agent = Agent::<Kernel>::start(places, Policy::default())?;
    root.make_dir(Path::new(layout::DIRECTORY))?;
    // A note is at most as long as a path.
    let reason = sockeye_crds::names::line(if reason.is_empty() { "no reason given" } else { reason }, 256);
    root.replace(&layout::suspension(), &layout::suspension_staging(), |at| root.make_note(at, &reason))?;
    let detached = agent.detach_all().context("reading what there is")?;
    let failed: Vec<&str> = detached.iter().filter(|(_, done)| done.is_err()).map(|(name, _)| name.as_str()).collect();
    ensure!(failed.is_empty(), "not detached: {}", failed.join(", "));
    println!("detached {} BpfPrograms; sockeye-agent attach --all takes that back", detached.len());
    Ok(())
}

/// Takes the note away.
pub fn attach_all(places: &Places) -> Result<()> {
    Dir::at(&places.bpffs)?.remove(&layout::suspension())?;
    println!("the agent on this node attaches again what is wanted");
    Ok(())
}
