//! What of other BpfPrograms one depends on: the maps that it shares with them, and its place among them at cgroups. What they
//! have is as it was observed last; the order at a cgroup the kernel tells.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{Reason, program::MapRef};

use super::Agent;
use crate::{
    around::{Around, Lines},
    host::Host,
    kernel::{SysError, cgroup::Cgroup, info::MapInfo},
    order::{self, Neighbour},
    track::{self, Track},
    wanted::Wanted,
};

const NOT_YET: &str = "it is not pinned on this node yet; once it is, this is tried again at once";

impl<H: Host> Agent<H> {
    /// What a plan for a BpfProgram depends on; its cgroups are known.
    pub(super) fn around(
        &self,
        wanted: Option<&Wanted>,
        cgroups: BTreeMap<String, Cgroup>,
    ) -> Result<Around, SysError> {
        let Some(wanted) = wanted else { return Ok(Around::default()) };
        let (mut maps, mut absent) = (BTreeMap::new(), BTreeMap::new());
        for from in wanted.maps.values().filter_map(|map| map.from.as_ref()) {
            match self.pinned(from) {
                Some(map) => drop(maps.insert(from.clone(), map.clone())),
                None => drop(absent.insert(from.clone(), self.absent(from))),
            }
        }
        let is_wanted = |path: &str, attach_type: u32| {
            let mut functions = wanted.functions.values();
            functions.any(|function| function.kind.attach_type == attach_type && function.paths.contains_key(path))
        };
        let lines = self.lines(Some(wanted.priority), is_wanted)?;
        let on_maps = if wanted.attaches_to_maps { self.on_maps(&wanted.program.name) } else { BTreeMap::new() };
        Ok(Around { cgroups, maps, absent, on_maps, lines })
    }

    /// What all BpfPrograms but one have attached to maps.
    fn on_maps(&self, but: &str) -> BTreeMap<u32, BTreeMap<u32, String>> {
        let mut on_maps: BTreeMap<u32, BTreeMap<u32, String>> = BTreeMap::new();
        for (name, track) in self.tracks.iter().filter(|(name, _)| *name != but) {
            for (_, link) in track.held.links.iter().filter(|(key, link)| key.map().is_some() && link.in_effect) {
                on_maps.entry(link.info.map_id).or_default().insert(link.info.attach_type, name.clone());
            }
        }
        on_maps
    }

    /// A BpfProgram's map, where it is pinned.
    fn pinned(&self, from: &MapRef) -> Option<&MapInfo> {
        track::shared(&self.tracks, from).filter(|map| map.pinned).map(|map| &map.info)
    }

    /// Why a BpfProgram's map is not there to be shared, and what to do about it.
    fn absent(&self, from: &MapRef) -> String {
        let Some(other) = self.tracks.get(&from.program).filter(|other| other.is_wanted()) else {
            return "that BpfProgram is not to run on this node; once it is there, this is tried again at once"
                .to_owned();
        };
        let Some(wanted) = &other.wanted else { return NOT_YET.to_owned() };
        match wanted.map_by_pin(&from.map) {
            None => {
                let names: Vec<&str> = wanted.maps.values().map(|map| map.pin_name.as_str()).collect();
                format!("that BpfProgram has no such map; its maps: {}", names.join(", "))
            }
            Some((_, map)) if !map.pin => "it is not pinned there (pin: false)".to_owned(),
            Some(_) if self.circles(from) => {
                "that one is from another in turn, in a circle: one of them must define it without from".to_owned()
            }
            Some(_) => NOT_YET.to_owned(),
        }
    }

    /// Whether a map is another's, which is another's, and so on, without end.
    fn circles(&self, from: &MapRef) -> bool {
        let next =
            |from: &&MapRef| self.tracks.get(&from.program)?.wanted.as_ref()?.map_by_pin(&from.map)?.1.from.as_ref();
        let mut seen = BTreeSet::new();
        !std::iter::successors(Some(from), next).all(|map| seen.insert(map))
    }

    /// What of ours runs at those places at which priorities differ, also from that of a newcomer. Where all are the same, as
    /// they mostly are, the kernel is not asked.
    fn lines(&self, newcomer: Option<i64>, at: impl Fn(&str, u32) -> bool) -> Result<Lines, SysError> {
        let mut lines = Lines::new();
        if !self.ordered {
            return Ok(lines);
        }
        let mut places: BTreeMap<(&str, u32), BTreeMap<u32, Neighbour>> = BTreeMap::new();
        for (name, Track { wanted, held, .. }) in &self.tracks {
            let Some(Wanted { priority, .. }) = wanted.as_deref() else { continue };
            for (key, link) in held.links.iter().filter(|(_, link)| link.in_effect) {
                let Some(path) = link.path.as_deref().filter(|path| at(path, link.info.attach_type)) else { continue };
                let one = Neighbour { program: name.clone(), key: key.clone(), priority: *priority };
                places.entry((path, link.info.attach_type)).or_default().insert(link.info.program_id, one);
            }
        }
        for ((path, attach_type), mut ours) in places {
            if !differ(newcomer.into_iter().chain(ours.values().map(|one| one.priority))) {
                continue;
            }
            let runs = self.host.attached(path, attach_type)?.map(|query| query.programs).unwrap_or_default();
            let line = runs.iter().filter_map(|id| ours.remove(id)).collect();
            lines.entry(path.to_owned()).or_default().insert(attach_type, line);
        }
        Ok(lines)
    }

    /// Those for which others, which were looked at after them, have left something to do: a map that they wait for, or
    /// share, is there now, or is another one; or they stand in the wrong place.
    pub(super) fn stale(&self) -> BTreeSet<String> {
        if self.suspended.is_some() {
            return BTreeSet::new();
        }
        let settled = |track: &Track| track.failure.is_none();
        let waits = |track: &Track| matches!(&track.failure, Some(why) if why.reason == Reason::SharedMapMissing);
        let sharing = self.sharing.then_some(&self.tracks).into_iter().flatten();
        let maps = sharing.filter(|(_, track)| {
            track.shares() && (settled(track) && self.shares_another(track) || waits(track) && self.has_all(track))
        });
        let mut stale: BTreeSet<String> = maps.map(|(name, _)| name.clone()).collect();
        match self.lines(None, |_, _| true) {
            Ok(lines) => {
                for line in lines.values().flat_map(BTreeMap::values) {
                    stale.extend(order::astray(line).into_iter().map(|i| line[i].program.clone()));
                }
            }
            Err(error) => tracing::warn!(%error, "the order at cgroups can't be told"),
        }
        stale.retain(|name| self.tracks.get(name).is_some_and(|track| settled(track) || waits(track)));
        stale
    }

    /// Whether it has another map than the one that it is to share.
    fn shares_another(&self, Track { wanted, held, .. }: &Track) -> bool {
        wanted.iter().flat_map(|wanted| wanted.maps.values()).any(|map| {
            let other = map.from.as_ref().and_then(|from| self.pinned(from));
            other.is_some_and(|other| held.maps.get(&map.pin_name).is_none_or(|own| own.info.id != other.id))
        })
    }

    /// Whether all maps that it is to share are there.
    fn has_all(&self, Track { wanted, .. }: &Track) -> bool {
        let mut from = wanted.iter().flat_map(|wanted| wanted.maps.values()).filter_map(|map| map.from.as_ref());
        from.all(|from| self.pinned(from).is_some())
    }
}

fn differ(mut priorities: impl Iterator<Item = i64>) -> bool {
    priorities.next().is_some_and(|first| priorities.any(|priority| priority != first))
}
