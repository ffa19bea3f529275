//! Plan: the steps from what is held to what is wanted. Pure: no IO, and the same answer for the same values.
//!
//! Guarantees, which the property test shows:
//! - after the steps are executed, planning again gives nothing to do;
//! - nothing that is in effect is taken away before what replaces it is in effect;
//! - nothing visible happens before the load has succeeded, so that a revision that does not load changes nothing.
//!
//! | file | what |
//! |---|---|
//! | this one | the steps, and the plan as a whole |
//! | `load` | what is loaded, and which maps stay |
//! | `attach` | links: made, moved, replaced |

mod attach;
mod load;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use sockeye_crds::{Reason, program::MapRef};

pub use self::attach::missing;
use self::{
    attach::{Attaching, attach, going},
    load::{keeps, load, needs_load, repin, retention},
};
use crate::{
    around::Around,
    held::{Former, Held, LinkKey, Site},
    kernel::cgroup::Cgroup,
    layout::{Trial, Verdict},
    order::Neighbour,
    wanted::{Refusal, Wanted},
};

/// One step; [`execute`](crate::execute) interprets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove what a killed agent left half-made.
    RemoveStray,
    /// Make the home and note whose it is.
    Claim {
        /// The BpfProgram's UID.
        uid: String,
    },
    /// Load the object: reuse these pinned maps, create the others.
    Load {
        /// Pin names of the maps whose content is carried over.
        reuse: BTreeSet<String>,
        /// Maps of other BpfPrograms, by the names that the ELF has for them.
        shared: BTreeMap<String, MapRef>,
    },
    /// Forget which load a pinned program comes from: until it is pinned anew, maps are that another load has made.
    ForgetLoad(String),
    /// Note that a map is to outlive its BpfProgram.
    Retain(String),
    /// Forget that a map is to outlive its BpfProgram.
    Release(String),
    /// Pin a loaded map, by its name in the ELF, over what may be there.
    PinMap(String),
    /// Note that a map is another BpfProgram's, and pin it here too, over what may be there.
    ShareMap {
        /// Its name in the ELF.
        name: String,
        /// Whose it is.
        from: MapRef,
    },
    /// Note where a loaded program comes from, and pin it over what may be there.
    PinProgram(String),
    /// Attach the pinned program, and pin the link over what may be there. What a map holds without a link is replaced.
    Attach {
        /// The function.
        function: String,
        /// Where.
        site: Site,
        /// What is to run right after it; nothing where it goes to the end.
        before: Option<Neighbour>,
    },
    /// Attach a link anew, elsewhere among others at its cgroup, and then detach what it was.
    Move {
        /// Which.
        key: LinkKey,
        /// Its cgroup.
        cgroup: Cgroup,
        /// What is to run right after it; nothing where it goes to the end.
        before: Option<Neighbour>,
    },
    /// Make a pinned link, or a map, run the pinned program, atomically.
    Update(LinkKey),
    /// Note whether a revision cuts the node off.
    SetTrial(Trial),
    /// Pin again the program that ran before the one on trial.
    Restore(String),
    /// Pin a program again whose pin someone removed.
    RepinProgram(String),
    /// Pin a map again whose pin someone removed.
    RepinMap(String),
    /// Pin a link again whose pin someone removed.
    RepinLink(LinkKey),
    /// Note the revision that is now in effect; where none is, nothing is on trial either.
    SetRevision(Option<String>),
    /// Detach and unpin a link.
    Detach(LinkKey),
    /// Unpin a program and forget where it came from.
    UnpinProgram(String),
    /// Unpin a map.
    UnpinMap(String),
    /// Remove the home, which is empty but for its notes and directories.
    Leave,
}

/// The steps that bring `held` to what is wanted.
pub fn plan(wanted: Option<&Wanted>, held: &Held, around: &Around) -> Result<Vec<Step>, Refusal> {
    let Some(wanted) = wanted else { return Ok(dismantle(held)) };
    let mut steps = Vec::new();
    let mut held = Cow::Borrowed(held);
    if held.uid.as_ref().is_some_and(|uid| *uid != wanted.program.uid) {
        // Another object of the same name: what is left of it goes, but for the maps it was asked to retain, whose
        // pins are there again then.
        steps.extend(dismantle(&held).into_iter().filter(|step| *step != Step::Leave));
        let Held { retained, mut maps, .. } = held.into_owned();
        maps.retain(|pin, _| retained.contains(pin));
        maps.values_mut().for_each(|map| map.pinned = true);
        held = Cow::Owned(Held { retained, maps, ..Held::default() });
    } else {
        steps.extend(held.stray.then_some(Step::RemoveStray));
    }
    let trial = held.trial.as_ref().filter(|trial| trial.revision == wanted.revision).map(|trial| trial.verdict);
    if let Some(refusal) = taken_back(wanted, trial) {
        return Err(refusal);
    }
    if held.uid.is_none() {
        steps.push(Step::Claim { uid: wanted.program.uid.clone() });
    }
    steps.extend(repin(wanted, &held));

    let load = if needs_load(wanted, &held, around) { load(wanted, &held, around)? } else { Vec::new() };
    let Attaching { steps: attach, keep, gone } = attach(wanted, &held, around, &load)?;
    steps.extend(load);
    steps.extend(retention(wanted, &held));
    // What another revision's trial has left open goes on with this one, if it may be to blame, and is over if it can't be.
    let open = trial.is_none() && held.trial.as_ref().is_some_and(|trial| trial.verdict.is_open());
    let risky = wanted.functions.values().any(|function| function.can_cut_off);
    let noted = |verdict| Step::SetTrial(Trial { revision: wanted.revision.clone(), verdict });
    if let Some(verdict) = begins(trial, held.links.is_empty())
        && (open && risky || attach.iter().any(|step| may_cut_off(wanted, step)))
    {
        steps.push(noted(verdict));
    }
    steps.extend(attach);
    if held.revision.as_ref() != Some(&wanted.revision) {
        steps.push(Step::SetRevision(Some(wanted.revision.clone())));
    }
    steps.extend(remove(wanted, &held, &keep, &gone));
    // Last: as long as anything of the other is left, it may be turned back to.
    steps.extend((open && !risky).then(|| noted(Verdict::Passed)));
    Ok(steps)
}

/// Why what was taken back is not attached again.
fn taken_back(Wanted { revision, .. }: &Wanted, trial: Option<Verdict>) -> Option<Refusal> {
    let lost = format!("revision {revision} was attached, this node then lost the API server");
    match trial? {
        Verdict::Reverted => Some(Refusal {
            reason: Reason::Reverted,
            message: format!(
                "{lost} until it was detached again: correct the program; the next revision is tried anew"
            ),
        }),
        Verdict::Suspected => Some(Refusal {
            reason: Reason::NotInEffect,
            message: format!("{lost}, and it was taken back: whether it was to blame is not known yet"),
        }),
        Verdict::Open | Verdict::Reprieved | Verdict::Reopened | Verdict::Passed => None,
    }
}

/// The trial that begins with an attachment, where one does. What has stood its trial and was detached everywhere since, as by who
/// suspends it, stands another: what it denies may be something else by now. What is repaired, or comes to pods, does not.
const fn begins(trial: Option<Verdict>, nowhere: bool) -> Option<Verdict> {
    match trial {
        None => Some(Verdict::Open),
        Some(Verdict::Passed) if nowhere => Some(Verdict::Open),
        Some(Verdict::Reprieved) => Some(Verdict::Reopened),
        Some(_) => None,
    }
}

/// Whether a step lets something run anew that can keep this agent from the API server.
fn may_cut_off(wanted: &Wanted, step: &Step) -> bool {
    let function = match step {
        Step::Attach { function, .. } => function,
        Step::Update(key) | Step::Move { key, .. } => &key.function,
        _ => return false,
    };
    wanted.functions.get(function).is_some_and(|function| function.can_cut_off)
}

/// What is held and no longer wanted: links first, so that nothing runs that is half gone.
fn remove(wanted: &Wanted, held: &Held, keep: &BTreeSet<LinkKey>, gone: &BTreeSet<LinkKey>) -> Vec<Step> {
    let links = going(held).filter(|key| !keep.contains(key) && !gone.contains(key)).cloned().map(Step::Detach);
    let functions =
        held.functions.keys().filter(|f| !wanted.functions.contains_key(*f)).cloned().map(Step::UnpinProgram);
    let maps = held.maps.keys().filter(|pin| !keeps(wanted, held, pin)).cloned().map(Step::UnpinMap);
    links.chain(functions).chain(maps).collect()
}

/// The steps after which nothing is attached, and everything else is as it was.
pub fn detach(held: &Held) -> Vec<Step> {
    going(held).cloned().map(Step::Detach).collect()
}

/// The steps that take back what is on trial: where something else ran before it, back to that, and all else detached. What ran
/// before is said to be in effect again only where all of it is.
pub fn revert(held: &Held) -> Vec<Step> {
    let Some(Former { revision, functions, links }) = &held.previous else { return detach(held) };
    let (former, new): (Vec<&LinkKey>, Vec<&LinkKey>) = going(held).partition(|key| links.contains(key));
    let replaced: Vec<&LinkKey> = former.into_iter().filter(|key| functions.contains(&key.function)).collect();
    let restored: BTreeSet<&String> = replaced.iter().map(|key| &key.function).collect();
    let is_whole = links.iter().all(|key| held.links.contains_key(key));
    let detach = new.into_iter().cloned().map(Step::Detach);
    let restore = restored.into_iter().cloned().map(Step::Restore);
    let update = replaced.into_iter().cloned().map(Step::Update);
    let revision = revision.clone().filter(|_| is_whole).map(|revision| Step::SetRevision(Some(revision)));
    detach.chain(restore).chain(update).chain(revision).collect()
}

/// The steps that leave nothing but the maps to retain.
fn dismantle(held: &Held) -> Vec<Step> {
    let Held { uid: _, revision, trial, previous: _, functions, maps, links: _, retained, stray } = held;
    let unpinned = maps.iter().filter(|(pin, map)| retained.contains(*pin) && !map.pinned);
    let mut steps: Vec<Step> = unpinned.map(|(pin, _)| Step::RepinMap(pin.clone())).collect();
    if held.is_empty() || held.is_retained_only() {
        return steps;
    }
    steps.extend(stray.then_some(Step::RemoveStray));
    steps.extend(going(held).cloned().map(Step::Detach));
    steps.extend(functions.keys().cloned().map(Step::UnpinProgram));
    steps.extend(maps.keys().filter(|pin| !retained.contains(*pin)).cloned().map(Step::UnpinMap));
    if maps.keys().any(|pin| retained.contains(pin)) {
        steps.extend((revision.is_some() || trial.is_some()).then_some(Step::SetRevision(None)));
    } else {
        steps.push(Step::Leave);
    }
    steps
}
