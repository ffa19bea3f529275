//! `Beside`: a glance at every cgroup and attach type on which something of ours is: one query each, however many
//! BpfPrograms are there. It tells what of ours the kernel no longer lists, and what others have attached beside it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use sockeye_ebpf::section::attach_type_name;

use crate::{drift, host::Host, observe::Query, track::Track};

/// A cgroup, by its path, and an attach type.
type Place = (String, u32);

/// What others have there, as it was last seen.
#[derive(Debug, Default)]
pub struct Beside(BTreeMap<Place, BTreeSet<u32>>);

/// A link of ours that was in effect.
struct Ours {
    name: String,
    cgroup: u64,
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
            let (path, attach_type) = &place;
            let query = match host.attached(path, *attach_type) {
                Ok(query) => query,
                Err(error) => {
                    tracing::warn!(cgroup = path, %error, "can't be queried");
                    continue;
                }
            };
            for name in missing(&ours, query.as_ref()) {
                news = true;
                tracks.entry(name.to_owned()).or_default().stirred = true;
            }
            let others = others(&ours, query.as_ref());
            let known = self.0.insert(place.clone(), others.clone());
            let come: BTreeSet<u32> = known.map(|known| &others - &known).unwrap_or_default();
            if !come.is_empty() {
                news = true;
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
}

/// Where something of ours is in effect, and what.
fn places(tracks: &BTreeMap<String, Track>) -> BTreeMap<Place, Vec<Ours>> {
    let mut places: BTreeMap<Place, Vec<Ours>> = BTreeMap::new();
    for (name, track) in tracks {
        for link in track.held.links.values().filter(|link| link.in_effect) {
            let Some(path) = &link.path else { continue };
            let ours = Ours { name: name.clone(), cgroup: link.info.cgroup_id, program: link.info.program_id };
            places.entry((path.clone(), link.info.attach_type)).or_default().push(ours);
        }
    }
    places
}

/// The BpfPrograms of which something is not listed, or whose cgroup is another one now.
fn missing<'a>(ours: &'a [Ours], query: Option<&'a Query>) -> impl Iterator<Item = &'a str> {
    let listed = move |ours: &Ours| {
        query.is_some_and(|query| query.cgroup == ours.cgroup && query.programs.contains(&ours.program))
    };
    ours.iter().filter(move |ours| !listed(ours)).map(|ours| ours.name.as_str())
}

fn others(ours: &[Ours], query: Option<&Query>) -> BTreeSet<u32> {
    let listed = query.into_iter().flat_map(|query| query.programs.iter().copied());
    listed.filter(|id| !ours.iter().any(|ours| ours.program == *id)).collect()
}
