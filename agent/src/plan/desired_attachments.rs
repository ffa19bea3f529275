//! `Attachment`: one function at one cgroup or map, and the order in which attachments are made and taken off. Pure.

use std::{cmp::Reverse, collections::BTreeMap};

use sockeye_ebpf::kinds::section::STREAM_PARSER;

use crate::model::{
    desired::{Desired, DesiredProgram},
    kernel::Cgroup,
    observed::{AttachSite, LinkKey, Observed, ObservedLink},
};

/// One function at one cgroup or map.
pub(super) struct Attachment<'a> {
    pub function: &'a str,
    pub attach_type: u32,
    pub site: AttachSite,
    pub key: LinkKey,
}

/// Returns all desired attachments whose cgroups exist, in the order in which to attach them.
pub(super) fn attachments<'a>(desired: &'a Desired, cgroups: &BTreeMap<String, Cgroup>) -> Vec<Attachment<'a>> {
    let mut attachments = Vec::new();
    for (function, DesiredProgram { kind, paths, maps, .. }) in &desired.functions {
        let existing = paths.keys().filter_map(|path| cgroups.get(path));
        let cgroups = existing.map(|cgroup| AttachSite::Cgroup(cgroup.clone()));
        let maps = maps.iter().map(|pin| AttachSite::Map(pin.clone()));
        attachments.extend(cgroups.chain(maps).map(|site| Attachment {
            function,
            attach_type: kind.attach_type,
            key: LinkKey::to(function, &site),
            site,
        }));
    }
    attachments.sort_by_key(|attachment| rank(&attachment.key, attachment.attach_type));
    attachments
}

/// Returns all links in the order in which to detach them, the reverse of attaching.
pub(super) fn detach_order(observed: &Observed) -> impl Iterator<Item = &LinkKey> {
    let mut links: Vec<(&LinkKey, &ObservedLink)> = observed.links.iter().collect();
    links.sort_by_key(|(key, link)| Reverse(rank(key, link.info.attach_type)));
    links.into_iter().map(|(key, _)| key)
}

/// Ranks attachments: a stream parser before the verdict that calls it, and both before the cgroup programs that add
/// sockets to the map, because a socket keeps the programs that it finds there.
fn rank(key: &LinkKey, attach_type: u32) -> u8 {
    match (key.map(), attach_type) {
        (Some(_), STREAM_PARSER) => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    }
}
