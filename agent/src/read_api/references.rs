//! Everything that keeps a map alive. Does IO: it reads maps of maps, programs, and the agent's own descriptors.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use sockeye_read_api::map::{Reference, References};

use crate::{
    control::inspection::{InspectedReferences, OuterMap, UsingProgram},
    kernel::{info, own_descriptors, pages::MapPages},
    model::page::RawEntry,
};

/// Pages of a map of maps that are read, at most.
const MAX_PAGES: usize = 256;

/// Finds out what keeps a map alive, beside what is known already.
pub(super) fn references(inspected: InspectedReferences) -> References {
    let InspectedReferences { info, pins, users, links, outer, previous } = inspected;
    let mut unseen = vec![
        "descriptors of other processes, and what they have pinned elsewhere: the kernel tells only root with \
         CAP_SYS_ADMIN (bpftool map show id, bpftool prog show)"
            .to_owned(),
    ];
    let mut by: Vec<Reference> = pins.into_iter().map(|(path, program)| Reference::Pin { path, program }).collect();
    by.extend(users.into_iter().map(|UsingProgram { program, function, id, kept_by }| Reference::Program {
        program,
        function,
        id,
        kept_by,
    }));
    for (program, function, fd) in previous {
        match info::program(fd.as_fd()) {
            Ok(found) if found.map_ids.contains(&info.id) => {
                by.push(Reference::Program { program, function, id: found.id, kept_by: Vec::new() });
            }
            Ok(_) => {}
            Err(error) => unseen.push(format!("what program {program}/{function} of before uses: {error}")),
        }
    }
    by.extend(links.into_iter().map(|(program, function, path)| Reference::Link { program, function, path }));
    for outer in outer {
        match holds(&outer, info.id) {
            Ok(true) => {
                let OuterMap { program, map, info, fd: _ } = outer;
                by.push(Reference::OuterMap { program, map, id: info.id });
            }
            Ok(false) => {}
            Err(why) => unseen.push(format!("what map {} of BpfProgram {} holds: {why}", outer.map, outer.program)),
        }
    }
    match own_descriptors::of_map(info.id) {
        Ok(0) => {}
        Ok(count) => by.push(Reference::Descriptor { count }),
        Err(error) => unseen.push(format!("the agent's own descriptors: {error}")),
    }
    References { map_id: info.id, by: merged(by), unseen }
}

/// Returns whether a map of maps holds a map.
fn holds(outer: &OuterMap, id: u32) -> Result<bool, String> {
    let pages = MapPages::new(outer.fd.clone()).map_err(|error| error.to_string())?;
    let is_it = |RawEntry { value, .. }: &RawEntry| {
        value.as_ref().and_then(|value| value.first_chunk()).is_some_and(|bytes| u32::from_ne_bytes(*bytes) == id)
    };
    let mut from = None;
    for _ in 0..MAX_PAGES {
        let page = pages.page(from.as_ref(), u32::MAX).map_err(|error| error.to_string())?;
        if page.entries.iter().any(is_it) {
            return Ok(true);
        }
        from = page.next;
        if from.is_none() {
            return Ok(false);
        }
    }
    Err("it is too large to be searched".to_owned())
}

/// Leaves out what was found twice: a program in its place and among those of before.
fn merged(by: Vec<Reference>) -> Vec<Reference> {
    let mut programs = BTreeMap::new();
    by.into_iter()
        .filter(|reference| match reference {
            Reference::Program { id, .. } => programs.insert(*id, ()).is_none(),
            _ => true,
        })
        .collect()
}
