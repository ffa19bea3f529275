//! The steps that attach programs: the link of each attachment is kept, updated, moved or made. Pure.

use std::collections::BTreeSet;

use sockeye_crds::{Reason, names::pin_name};
use sockeye_ebpf::kinds::section::exclude_each_other;

use super::{
    context::PlanContext,
    desired_attachments::{Attachment, attachments},
    missing_cgroup::missing_cgroup,
    order::{self, Neighbour, Rank},
    step::Step,
};
use crate::model::{
    desired::Desired,
    kernel::Cgroup,
    observed::{AttachSite, LinkKey, Observed, ObservedLink},
    refusal::Refusal,
};

/// The steps that attach programs, and the links that they concern.
pub(super) struct Attaching {
    pub steps: Vec<Step>,
    /// All links of the desired state.
    pub keys: BTreeSet<LinkKey>,
    /// The links that the steps detach.
    pub detached: BTreeSet<LinkKey>,
}

/// Returns the steps that put every desired attachment into effect once the steps of `making`, which load the object
/// and pin maps, are executed.
pub(super) fn attach(
    desired: &Desired,
    observed: &Observed,
    context: &PlanContext,
    making: &[Step],
) -> Result<Attaching, Refusal> {
    // A revision replaces another as a whole or not at all; one in effect goes on where its cgroups still exist.
    let loads = making.iter().any(|step| matches!(step, Step::Load { .. }));
    let is_in_effect = !loads && observed.revision.as_ref() == Some(&desired.revision);
    if let Some(refusal) = missing_cgroup(desired, &context.cgroups).filter(|_| !is_in_effect) {
        return Err(refusal);
    }
    let attachments = attachments(desired, &context.cgroups);
    let attaching = Attaching {
        steps: Vec::new(),
        keys: attachments.iter().map(|attachment| attachment.key.clone()).collect(),
        detached: BTreeSet::new(),
    };
    let mut planner = Planner { desired, observed, context, making, loads, attaching };
    for attachment in attachments {
        match planner.link_in_effect(&attachment) {
            Some(link) => planner.keep(attachment, link),
            None => planner.make(attachment)?,
        }
    }
    Ok(planner.attaching)
}

/// The arguments of [`attach`], and its result so far.
struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    context: &'a PlanContext,
    /// The steps that load, and that pin maps.
    making: &'a [Step],
    /// True if they load the object.
    loads: bool,
    attaching: Attaching,
}

impl<'a> Planner<'a> {
    /// Returns the link of an attachment if it is in effect and no step detaches it or replaces its map.
    fn link_in_effect(&self, attachment: &Attachment<'_>) -> Option<&'a ObservedLink> {
        let Attachment { attach_type, key, .. } = attachment;
        let link = self.observed.links.get(key).filter(|_| !self.attaching.detached.contains(key))?;
        let is_replaced = key.map().is_some_and(|pin| self.is_replaced(pin));
        (link.in_effect && link.info.attach_type == *attach_type && !is_replaced).then_some(link)
    }

    /// Keeps a link: restores its pin, replaces its program and moves it, each if necessary.
    fn keep(&mut self, attachment: Attachment<'_>, link: &ObservedLink) {
        let Attachment { function, attach_type, site, key } = attachment;
        let steps = &mut self.attaching.steps;
        steps.extend((link.is_link() && !link.pinned).then(|| Step::RepinLink(key.clone())));
        let program = self.observed.functions.get(function).map(|program| program.info.id);
        let runs_another = self.loads || program != Some(link.info.program_id);
        steps.extend(runs_another.then(|| Step::Update(key.clone())));
        if let AttachSite::Cgroup(cgroup) = site {
            let attach_order = self.context.attach_order(&cgroup.path, attach_type);
            if order::is_misplaced(attach_order, &self.desired.program.name, &key) {
                let before = self.successors(&cgroup, attach_type, &key);
                self.attaching.steps.push(Step::Move { key, cgroup, before });
            }
        }
    }

    /// Makes a link, after the links that block it are detached.
    fn make(&mut self, attachment: Attachment<'_>) -> Result<(), Refusal> {
        let blocking = self.blocking_links(&attachment);
        self.attaching.steps.extend(blocking.iter().cloned().map(Step::Detach));
        self.attaching.detached.extend(blocking);
        let Attachment { function, attach_type, site, key } = attachment;
        let before = match &site {
            AttachSite::Cgroup(cgroup) => self.successors(cgroup, attach_type, &key),
            AttachSite::Map(pin) => match self.other_program(pin, attach_type) {
                Some(other) => return Err(map_is_taken(function, pin, other)),
                None => Vec::new(),
            },
        };
        self.attaching.steps.push(Step::Attach { function: function.to_owned(), site, before });
        Ok(())
    }

    /// Returns the BpfProgram's own links that must be detached before an attachment is made, the attachment's old link
    /// first.
    ///
    /// On a map these are the links of its kind, since the map runs one program of each kind, and dead links. There are
    /// none on a cgroup, which runs the old and the new link at once, nor on a map that the load replaces.
    fn blocking_links(&self, attachment: &Attachment<'_>) -> Vec<LinkKey> {
        let Some(map) = attachment.key.map().filter(|pin| !self.is_replaced(pin)) else { return Vec::new() };
        let blocks = |key: &LinkKey, link: &ObservedLink| {
            if *key == attachment.key {
                // A dead program that the map held without a link leaves nothing but its pin, which is replaced.
                return link.is_link() || link.in_effect;
            }
            let is_stale = !link.in_effect && !self.attaching.keys.contains(key);
            is_stale || exclude_each_other(link.info.attach_type, attachment.attach_type)
        };
        let on_map = self.observed.links.iter().filter(|(key, _)| key.map() == Some(map));
        let attached = on_map.filter(|(key, _)| !self.attaching.detached.contains(*key));
        let mut blocking: Vec<LinkKey> =
            attached.filter(|(key, link)| blocks(key, link)).map(|(key, _)| key.clone()).collect();
        blocking.sort_by_key(|key| *key != attachment.key);
        blocking
    }

    /// Returns whether another map is about to be pinned under this name.
    fn is_replaced(&self, pin: &str) -> bool {
        self.making.iter().any(|step| match step {
            Step::ShareMap { name, .. } => pin_name(name) == pin,
            Step::PinMap(name) | Step::BorrowMap { pin: name, .. } => name == pin,
            _ => false,
        })
    }

    /// Returns the links before which a link is to run on a cgroup.
    fn successors(&self, cgroup: &Cgroup, attach_type: u32, key: &LinkKey) -> Vec<Neighbour> {
        let attach_order = self.context.attach_order(&cgroup.path, attach_type);
        let rank = Rank { priority: self.desired.priority, claimed: self.context.claimed };
        order::successors(attach_order, &self.desired.program.name, key, rank)
    }

    /// Returns the BpfProgram whose program on a map excludes one of this attach type. A kernel without links for maps
    /// would replace that program without an error.
    fn other_program(&self, pin: &str, attach_type: u32) -> Option<&'a str> {
        let (_, map) = self.desired.map_by_pin(pin)?;
        let id = match &map.from {
            // Its owner may be gone.
            Some(from) => self.context.maps.get(from).or_else(|| self.observed.maps.get(pin).map(|map| &map.info))?.id,
            None => self.observed.maps.get(pin)?.info.id,
        };
        let mut on_map = self.context.on_maps.get(&id)?.iter();
        on_map.find(|(other, _)| exclude_each_other(**other, attach_type)).map(|(_, program)| program.as_str())
    }
}

fn map_is_taken(function: &str, pin: &str, other: &str) -> Refusal {
    let message = format!(
        "program {function}, map {pin}: BpfProgram {other} has a program attached to it, and a map runs one program of \
         a kind: attach to another map, or detach that program"
    );
    Refusal { reason: Reason::AttachFailed, message }
}
