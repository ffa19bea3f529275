//! `Beside`: a glance at every cgroup or map and attach type on which something of ours is: one query each, however many
//! BpfPrograms are there. It tells what of ours the kernel no longer lists, what others have attached beside it, and in which
//! order all of it runs. Nothing stands beside a map's program: whoever attaches another takes its place.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use sockeye_ebpf::kinds::section::attach_type_name;

use crate::{
    drift,
    held::{HeldLink, LinkKey},
    host::Host,
    kernel::SysError,
    observe::Query,
    track::Track,
};

/// What has something of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// A cgroup, by its path.
    Cgroup(String),
    /// A BpfProgram's map, by its pin name.
    Map(String, String),
}

impl Target {
    fn of(name: &str, key: &LinkKey, link: &HeldLink) -> Option<Self> {
        match key.map() {
            // The kernel does not say.
            Some(_) if link.believed => None,
            Some(pin) => Some(Self::Map(name.to_owned(), pin.to_owned())),
            None => link.path.clone().map(Self::Cgroup),
        }
    }

    fn query(&self, host: &impl Host, attach_type: u32) -> Result<Option<Query>, SysError> {
        match self {
            Self::Cgroup(path) => host.attached(path, attach_type),
            Self::Map(name, pin) => host.attached_to_map(name, pin, attach_type),
        }
    }
}

/// That, and an attach type.
type Place = (Target, u32);

/// What runs there, as it was last seen.
#[derive(Debug, Default)]
pub struct Beside(BTreeMap<Place, Seen>);

/// What runs at a cgroup.
#[derive(Debug)]
struct Seen {
    /// Program IDs, in order.
    runs: Vec<u32>,
    /// Those that others have attached.
    others: BTreeSet<u32>,
}

/// A link of ours that was in effect.
struct Ours {
    name: String,
    target: u64,
    program: u32,
}

impl Beside {
    /// Looks once. Whatever of ours is not listed is marked to be looked at; a program that others have attached since the
    /// last glance is noted with each BpfProgram beside which it stands. Says whether there was anything.
    pub fn glance(&mut self, host: &impl Host, tracks: &mut BTreeMap<String, Track>) -> bool {
        let places = places(tracks);
        self.0.retain(|place, _| places.contains_key(place));
        let mut news = false;
        for (place, ours) in places {
            let (target, attach_type) = &place;
            let query = match target.query(host, *attach_type) {
                Ok(query) => query,
                Err(error) => {
                    tracing::warn!(?target, %error, "can't be queried");
                    continue;
                }
            };
            for name in missing(&ours, query.as_ref()) {
                news = true;
                tracks.entry(name.to_owned()).or_default().stirred = true;
            }
            let Target::Cgroup(path) = target else { continue };
            let runs = query.map(|query| query.programs).unwrap_or_default();
            let others = others(&ours, &runs);
            let known = self.0.insert(place.clone(), Seen { runs, others: others.clone() });
            let Some(known) = known.filter(|known| known.others != others) else { continue };
            news = true;
            let come: BTreeSet<u32> = &others - &known.others;
            if !come.is_empty() {
                let seen = drift::beside(path, &attach_type_name(*attach_type), &come);
                tracing::warn!("{}", seen.message);
                for Ours { name, .. } in &ours {
                    let track = tracks.entry(name.clone()).or_default();
                    drift::remember(&mut track.drift, seen.clone(), Timestamp::now());
                }
            }
        }
        news
    }

    /// What runs at cgroups, by path and attach type, in order.
    pub fn lines(&self) -> impl Iterator<Item = (&str, u32, &[u32])> {
        self.0.iter().filter_map(|((target, attach_type), seen)| match target {
            Target::Cgroup(path) => Some((path.as_str(), *attach_type, seen.runs.as_slice())),
            Target::Map(..) => None,
        })
    }
}

/// Where something of ours is in effect, and what.
fn places(tracks: &BTreeMap<String, Track>) -> BTreeMap<Place, Vec<Ours>> {
    let mut places: BTreeMap<Place, Vec<Ours>> = BTreeMap::new();
    for (name, track) in tracks {
        for (key, link) in track.held.links.iter().filter(|(_, link)| link.in_effect) {
            let Some(target) = Target::of(name, key, link) else { continue };
            let id = key.map().map_or(link.info.cgroup_id, |_| link.info.map_id.into());
            let ours = Ours { name: name.clone(), target: id, program: link.info.program_id };
            places.entry((target, link.info.attach_type)).or_default().push(ours);
        }
    }
    places
}

/// The BpfPrograms of which something is not listed, or whose cgroup or map is another one now.
fn missing<'a>(ours: &'a [Ours], query: Option<&'a Query>) -> impl Iterator<Item = &'a str> {
    let listed = move |ours: &Ours| {
        query.is_some_and(|query| query.target == ours.target && query.programs.contains(&ours.program))
    };
    ours.iter().filter(move |ours| !listed(ours)).map(|ours| ours.name.as_str())
}

/// What others have attached: what is not ours, and what of ours runs there more often than we have attached it.
fn others(ours: &[Ours], runs: &[u32]) -> BTreeSet<u32> {
    let times = |id: u32| runs.iter().filter(|other| **other == id).count();
    let own = |id: u32| ours.iter().filter(|ours| ours.program == id).count();
    runs.iter().copied().filter(|&id| times(id) > own(id)).collect()
}
