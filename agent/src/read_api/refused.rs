//! Reads what guards count in their maps, for the node's status. Does IO: it reads maps, and lists cgroups.
//!
//! The controller waits for none of it: it answers an inquiry, and is told what was counted. It reports the pods.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{task::spawn_blocking, time::sleep};

use super::inquirer::Inquirer;
use crate::{
    control::{
        event::Event,
        inspection::{Inquiry, InspectedRefused, Inspection},
        run::Events,
    },
    kernel::{
        Fd, info,
        pages::{MapPages, PageError},
    },
    model::refused::{Count, ReportThrottle, Tally, is_readable},
    streams::pods::Owners,
};

/// The interval of readings.
const INTERVAL: Duration = Duration::from_secs(10);
/// The maps that are read at most, and the entries of each: a spec may make a map larger.
const MAX_MAPS: usize = 64;
const MAX_ENTRIES: usize = 4096;
/// The entries of a page.
const PAGE: u32 = 1024;

/// Reads the counts every ten seconds, and sends what changed to the controller.
///
/// # Errors
/// Fails if a reading panics.
pub async fn follow(inquirer: Inquirer, events: Events) -> Result<Infallible> {
    let (mut reader, mut throttle) = (Reader::default(), ReportThrottle::default());
    loop {
        sleep(INTERVAL).await;
        let Ok(Inspection::Refused(inspected)) = inquirer.ask(Inquiry::Refused).await else { continue };
        let read = move || {
            reader.read(&inspected);
            let counted = reader.tally.report(&inspected.pods, |ns| info::time_of_day(ns).ok());
            (reader, counted)
        };
        let (read, counted) = spawn_blocking(read).await.context("reading what guards refused")?;
        reader = read;
        if let Some(counted) = throttle.next(counted, Instant::now()) {
            events.send(Event::RefusedCounted(counted));
        }
    }
}

/// What was read before.
#[derive(Default)]
struct Reader {
    tally: Tally,
    owners: Option<Owners>,
}

impl Reader {
    /// Reads all maps.
    fn read(&mut self, InspectedRefused { maps, pods, cgroups }: &InspectedRefused) {
        let guards: BTreeSet<&str> = maps.iter().map(|(program, ..)| program.as_str()).collect();
        self.tally.keep(&guards, pods);
        if maps.is_empty() {
            self.owners = None;
            return;
        }
        let owners = self.owners.get_or_insert_with(|| Owners::new(cgroups.clone(), pods.clone()));
        owners.set_pods(pods.clone());
        let uids: HashMap<(&str, &str), &str> =
            pods.iter().map(|pod| ((pod.namespace.as_str(), pod.name.as_str()), pod.uid.as_str())).collect();
        for (program, info, fd) in maps.iter().take(MAX_MAPS).filter(|(_, info, _)| is_readable(info)) {
            let counts = match counts(fd.clone()) {
                Ok(counts) => counts,
                Err(error) => {
                    tracing::debug!(program, %error, "what it refused can't be read");
                    continue;
                }
            };
            self.tally.add(program, info.id, &counts, |cgroup| {
                let pod = owners.pod(cgroup)?;
                uids.get(&(pod.namespace.as_str(), pod.name.as_str())).map(|uid| (*uid).to_owned())
            });
        }
    }
}

/// Reads the entries of a map.
fn counts(fd: Fd) -> Result<Vec<Count>, PageError> {
    let pages = MapPages::new(fd)?;
    let (mut counts, mut from) = (Vec::new(), None);
    for _ in 0..MAX_ENTRIES / PAGE as usize {
        let page = pages.page(from.as_ref(), PAGE)?;
        counts.extend(page.entries.iter().filter_map(Count::read));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    Ok(counts)
}
