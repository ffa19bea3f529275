//! `Contents`: the functions and maps of one BpfProgram, in the order in which a report lists them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::Limits;
use crate::{
    control::program::ProgramState,
    model::observed::{Observed, ObservedMap, ObservedProgram},
};

/// The functions and maps of one BpfProgram.
pub(super) struct Contents<'a> {
    /// Functions, sorted by name.
    pub functions: Vec<(&'a str, &'a ObservedProgram)>,
    /// Maps, sorted by their names in the ELF object.
    pub maps: Vec<(String, &'a ObservedMap)>,
    /// The IDs of all maps that the functions use.
    pub used: BTreeSet<u32>,
    /// The IDs of those that have no pin of this BpfProgram.
    pub unpinned: BTreeSet<u32>,
    /// The other BpfPrograms that use its maps, by pin name.
    pub users: Option<&'a BTreeMap<&'a str, Vec<&'a str>>>,
    /// The longest lists of them.
    pub limits: &'static Limits,
}

impl<'a> Contents<'a> {
    /// Returns the contents of a BpfProgram whose maps have these users.
    pub(super) fn of(
        program: &'a ProgramState,
        users: Option<&'a BTreeMap<&'a str, Vec<&'a str>>>,
        limits: &'static Limits,
    ) -> Self {
        let Observed { functions, maps: pins, .. } = &program.observed;
        let desired = program.desired.iter().flat_map(|desired| &desired.maps);
        let names: BTreeMap<&str, &str> = desired.map(|(name, map)| (map.pin_name.as_str(), name.as_str())).collect();
        let name = |pin: &String| names.get(pin.as_str()).map_or_else(|| pin.clone(), |name| (*name).to_owned());
        let mut maps: Vec<_> = pins.iter().map(|(pin, map)| (name(pin), map)).collect();
        maps.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let used: BTreeSet<u32> = functions.values().flat_map(|f| f.info.map_ids.iter().copied()).collect();
        let pinned: BTreeSet<u32> = pins.values().map(|map| map.info.id).collect();
        Self {
            functions: functions.iter().map(|(name, function)| (name.as_str(), function)).collect(),
            maps,
            unpinned: used.difference(&pinned).copied().collect(),
            used,
            users,
            limits,
        }
    }
}
