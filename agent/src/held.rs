//! `Held`: what one BpfProgram has on this node, as bpffs and the kernel tell it, and [`Names`], what of it there is. Values;
//! [`observe`](crate::observe) reads them.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{names::pin_name, program::MapRef};

use crate::{
    kernel::{
        cgroup::Cgroup,
        info::{LinkInfo, MapInfo, ProgramInfo},
    },
    layout::Trial,
    plan::Step,
    shape::Shape,
};

/// What one BpfProgram has on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The BpfProgram's UID, from the note; absent where there is no note.
    pub uid: Option<String>,
    /// The revision in effect, from the note.
    pub revision: Option<String>,
    /// Whether a revision cut the node off, from the note.
    pub trial: Option<Trial>,
    /// What ran before the revision on trial, where any of it can be gone back to.
    pub previous: Option<Former>,
    /// Programs, by function: pinned, or held by the agent alone.
    pub functions: BTreeMap<String, HeldFunction>,
    /// Maps, by pin name, likewise.
    pub maps: BTreeMap<String, HeldMap>,
    /// Links, likewise.
    pub links: BTreeMap<LinkKey, HeldLink>,
    /// The pin names of the maps to retain.
    pub retained: BTreeSet<String>,
    /// Whether a killed agent left something half-made, or a home with nothing in it.
    pub stray: bool,
}

/// What can be gone back to from what is on trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// The revision that was in effect; absent where some of it was replaced for good.
    pub revision: Option<String>,
    /// Its functions whose programs were replaced, and can be pinned again.
    pub functions: BTreeSet<String>,
    /// Where it was attached, by links that have not been made anew since.
    pub links: BTreeSet<LinkKey>,
}

/// A pinned program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFunction {
    /// What the kernel says of it.
    pub info: ProgramInfo,
    /// The load it came from; absent where no note of it is to be believed.
    pub load_key: Option<String>,
    /// Whether its pin and the note are there. Where someone removed these, the agent's own descriptor holds the program.
    pub pinned: bool,
}

/// A pinned map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMap {
    /// What the kernel says of it.
    pub info: MapInfo,
    /// Whether its pin is there. Where someone removed it, the agent's own descriptor still holds the map.
    pub pinned: bool,
    /// Where it is another BpfProgram's map, which one, from the note.
    pub from: Option<MapRef>,
}

impl HeldMap {
    /// Its shape.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.info)
    }
}

/// What a function is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// A cgroup.
    Cgroup(Cgroup),
    /// A map, by its pin name.
    Map(String),
}

/// Which link: a function's, at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey {
    /// The function.
    pub function: String,
    /// Where: the cgroup's ID, in decimal, or `map-` and the map's pin name.
    pub place: String,
}

impl LinkKey {
    /// What the name of a place begins with that is a map.
    const MAP: &'static str = "map-";

    /// The link of a function to a cgroup.
    pub fn at(function: &str, cgroup: &Cgroup) -> Self {
        Self { function: function.to_owned(), place: cgroup.id.to_string() }
    }

    /// The link of a function to a map.
    pub fn on_map(function: &str, pin: &str) -> Self {
        Self { function: function.to_owned(), place: format!("{}{pin}", Self::MAP) }
    }

    /// The link of a function to either.
    pub fn to(function: &str, site: &Site) -> Self {
        match site {
            Site::Cgroup(cgroup) => Self::at(function, cgroup),
            Site::Map(pin) => Self::on_map(function, pin),
        }
    }

    /// The map's pin name, where it is a link to a map.
    pub fn map(&self) -> Option<&str> {
        self.place.strip_prefix(Self::MAP)
    }
}

/// A pinned link; or, where the kernel has no links for maps, a program that is attached to a map and pinned in a link's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLink {
    /// What the kernel says of it.
    pub info: LinkInfo,
    /// The cgroup's path below the root, from the note.
    pub path: Option<String>,
    /// Whether the kernel's own query of the cgroup or map lists the program.
    pub in_effect: bool,
    /// Whether the kernel does not say what is attached there, and `in_effect` is that this agent attached it itself.
    pub believed: bool,
    /// Whether its pin and the note on its cgroup are there. Where someone removed these, the agent's own descriptor holds
    /// the link.
    pub pinned: bool,
}

impl HeldLink {
    /// Whether there is a link, which can be updated and ends by itself; without one the map alone holds the program.
    pub const fn is_link(&self) -> bool {
        self.info.id != 0
    }
}

impl Held {
    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that is left are maps that outlive their BpfProgram.
    pub fn is_retained_only(&self) -> bool {
        let Self { uid: _, revision, trial, previous: _, functions, maps, links, retained, stray } = self;
        !maps.is_empty()
            && maps.keys().all(|pin| retained.contains(pin))
            && revision.is_none()
            && trial.is_none()
            && functions.is_empty()
            && links.is_empty()
            && !stray
    }
}

/// The notes on all of what one BpfProgram has, and the names of what that is: all that has to be known to read the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The BpfProgram's UID.
    pub uid: Option<String>,
    /// The revision in effect.
    pub revision: Option<String>,
    /// Whether a revision cut the node off.
    pub trial: Option<Trial>,
    /// Pinned programs.
    pub functions: BTreeSet<String>,
    /// Pinned maps.
    pub maps: BTreeSet<String>,
    /// Pinned links.
    pub links: BTreeSet<LinkKey>,
    /// Maps to retain.
    pub retained: BTreeSet<String>,
    /// Maps of others.
    pub shared: BTreeSet<String>,
    /// Whether a killed agent left something half-made.
    pub stray: bool,
}

impl Names {
    /// Those of what is held.
    pub fn of(held: &Held) -> Self {
        let Held { uid, revision, trial, previous: _, functions, maps, links, retained, stray } = held;
        Self {
            uid: uid.clone(),
            revision: revision.clone(),
            trial: trial.clone(),
            functions: functions.keys().cloned().collect(),
            maps: maps.keys().cloned().collect(),
            links: links.keys().cloned().collect(),
            retained: retained.clone(),
            shared: maps.iter().filter(|(_, map)| map.from.is_some()).map(|(pin, _)| pin.clone()).collect(),
            stray: *stray,
        }
    }

    /// Those that are there once all steps have been executed.
    pub fn after(mut self, steps: &[Step]) -> Self {
        for step in steps {
            self.step(step);
        }
        self
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::RemoveStray => self.stray = false,
            Step::Claim { uid } => self.uid = Some(uid.clone()),
            Step::SetRevision(revision) => {
                self.revision.clone_from(revision);
                self.trial = self.trial.take().filter(|_| revision.is_some());
            }
            Step::SetTrial(trial) => self.trial = Some(trial.clone()),
            Step::Load { .. }
            | Step::Update(_)
            | Step::Move { .. }
            | Step::Restore(_)
            | Step::ForgetLoad(_)
            | Step::RepinProgram(_)
            | Step::RepinMap(_)
            | Step::RepinLink(_) => {}
            Step::Retain(pin) => drop(self.retained.insert(pin.clone())),
            Step::Release(pin) => drop(self.retained.remove(pin)),
            Step::PinMap(name) => {
                self.shared.remove(&pin_name(name));
                self.maps.insert(pin_name(name));
            }
            Step::ShareMap { name, from: _ } => {
                self.shared.insert(pin_name(name));
                self.maps.insert(pin_name(name));
            }
            Step::UnpinMap(pin) => {
                self.shared.remove(pin);
                self.maps.remove(pin);
            }
            Step::PinProgram(function) => drop(self.functions.insert(function.clone())),
            Step::UnpinProgram(function) => drop(self.functions.remove(function)),
            Step::Attach { function, site, before: _ } => drop(self.links.insert(LinkKey::to(function, site))),
            Step::Detach(key) => drop(self.links.remove(key)),
            Step::Leave => *self = Self::default(),
        }
    }
}
