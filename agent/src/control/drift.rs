//! Drift: external changes to a BpfProgram's pins and attachments since they were last observed, and maps that were
//! made anew. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{Timestamp, Unit};
use sockeye_crds::node::{Drift, DriftKind, NodeProgram};
use sockeye_metrics::AgentMetrics;

use crate::model::{
    desired::Desired,
    kernel::Cgroup,
    observed::{LinkKey, Observed, ObservedLink, ObservedMap, ObservedProgram},
};

/// This many different changes of a BpfProgram are remembered.
const MAX_REMEMBERED: usize = NodeProgram::MAX_DRIFT;

/// One external change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its kind.
    pub kind: DriftKind,
    /// What was changed, and what the agent does about it.
    pub message: String,
}

/// Counts changes.
pub fn count(metrics: &AgentMetrics, changes: &[Change]) {
    changes.iter().for_each(|change| metrics.drift.inc(&[&change.kind.as_str()]));
}

/// Returns the external changes between two observations. `cgroups` are those that exist: a link that died with its
/// cgroup is no external change, and a link that went with its map is reported as the map's.
pub fn since(before: &Observed, now: &Observed, cgroups: &BTreeMap<String, Cgroup>) -> Vec<Change> {
    let notes_differ = before.uid != now.uid || before.retained != now.retained || before.kept_pods != now.kept_pods;
    let message = "notes under _meta were removed or changed: they are written again".to_owned();
    let notes = notes_differ.then_some(Change { kind: DriftKind::PinRemoved, message });
    let pins = programs_since(before, now).into_iter().chain(maps_since(before, now));
    pins.chain(links_since(before, now, cgroups)).chain(notes).collect()
}

fn programs_since(before: &Observed, now: &Observed) -> Vec<Change> {
    let change = |(function, was): (&String, &ObservedProgram)| {
        let became = match now.functions.get(function).filter(|is| is.info.id == was.info.id) {
            None => "the object is loaded anew, and its links are moved",
            Some(is) if was.pinned && !is.pinned => "it is pinned again; it never ceased to run",
            Some(_) => return None,
        };
        Some(pin_removed(&format!("program {function}"), became))
    };
    before.functions.iter().filter_map(change).collect()
}

fn maps_since(before: &Observed, now: &Observed) -> Vec<Change> {
    let change = |(pin, was): (&String, &ObservedMap)| {
        let became = match now.maps.get(pin).filter(|is| is.info.id == was.info.id) {
            None => "it is made anew, and its content is lost",
            Some(is) if was.pinned && !is.pinned => "it is pinned again, with its content",
            Some(_) => return None,
        };
        Some(pin_removed(&format!("map {pin}"), became))
    };
    before.maps.iter().filter_map(change).collect()
}

fn links_since(before: &Observed, now: &Observed, cgroups: &BTreeMap<String, Cgroup>) -> Vec<Change> {
    let change = |(key, was): (&LinkKey, &ObservedLink)| {
        let what = match key.map() {
            Some(map) => format!("the attachment of program {} to map {map}", key.function),
            None => {
                format!("the link of program {} on cgroup {}", key.function, was.path.as_deref().unwrap_or(&key.place))
            }
        };
        let lives = match key.map() {
            Some(map) => now.maps.get(map).is_some_and(|map| map.info.id == was.info.map_id),
            None => {
                let cgroup = was.path.as_ref().and_then(|path| cgroups.get(path));
                cgroup.is_some_and(|cgroup| cgroup.id.to_string() == key.place)
            }
        };
        match now.links.get(key).filter(|is| is.info.id == was.info.id) {
            None => Some(pin_removed(&what, "it is attached anew")),
            Some(is) if is.in_effect && was.pinned && !is.pinned => {
                Some(pin_removed(&what, "it is pinned again; it never ceased to run"))
            }
            Some(is) if !is.in_effect && lives => Some(Change {
                kind: DriftKind::LinkDetached,
                message: format!("{what} was detached by someone: it is attached anew"),
            }),
            Some(_) => None,
        }
    };
    before.links.iter().filter(|(_, was)| was.in_effect).filter_map(change).collect()
}

fn pin_removed(what: &str, became: &str) -> Change {
    let message = format!("the pin of {what} was removed or replaced: {became}");
    Change { kind: DriftKind::PinRemoved, message }
}

/// Returns the maps that a load made anew in the place of others of the same names: whoever has opened one of these
/// reads what nothing writes to any more. Maps that every load creates do not count.
pub fn recreated(before: &Observed, now: &Observed, desired: &Desired) -> Vec<Change> {
    let change = |(pin, was): (&String, &ObservedMap)| {
        let is = now.maps.get(pin).filter(|is| is.info.id != was.info.id)?;
        let of_load = desired.map_by_pin(pin).is_some_and(|(_, map)| map.of_load);
        let how = match &is.from {
            Some(from) => format!("is another one now, {from}"),
            None => "was made anew, without its content".to_owned(),
        };
        let message = format!(
            "map {pin} {how}: its ID was {} and is {}; whoever opened it before must open its pin again",
            was.info.id, is.info.id
        );
        (!of_load).then_some(Change { kind: DriftKind::MapRecreated, message })
    };
    before.maps.iter().filter_map(change).collect()
}

/// Returns the change that others attached programs beside ours.
pub fn attached_beside(path: &str, attach_type: &str, programs: &BTreeSet<u32>) -> Change {
    let ids: Vec<String> = programs.iter().map(u32::to_string).collect();
    let message = format!(
        "program {} was attached beside it on cgroup {path}, {attach_type}: it is left alone, and may run before or \
         after",
        ids.join(", ")
    );
    Change { kind: DriftKind::AttachedBeside, message }
}

/// Remembers a change; the same one again is counted.
pub fn remember(drift: &mut Vec<Drift>, change: Change, now: Timestamp) {
    let Change { kind, message } = change;
    let message = sockeye_crds::names::clip(&message, 512);
    let same = drift.iter().position(|d| d.kind == kind && d.message == message);
    let count = same.map_or(0, |i| drift.remove(i).count) + 1;
    if drift.len() >= MAX_REMEMBERED {
        drift.remove(0);
    }
    let seen_time = now.round(Unit::Second).unwrap_or(now).to_string();
    drift.push(Drift { seen_time, kind, message, count });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernel::{LinkInfo, MapInfo, ProgramInfo};

    fn observed() -> (Observed, BTreeMap<String, Cgroup>) {
        let cgroup = Cgroup { id: 7, path: "/a".into() };
        let program = ProgramInfo { id: 1, ..ProgramInfo::default() };
        let link = LinkInfo { id: 3, program_id: 1, cgroup_id: 7, ..LinkInfo::default() };
        let observed = Observed {
            uid: Some("u".into()),
            functions: [("f".into(), ObservedProgram { info: program, load_key: None, pinned: true })].into(),
            maps: [(
                "m".into(),
                ObservedMap { info: MapInfo { id: 2, ..MapInfo::default() }, pinned: true, ..ObservedMap::default() },
            )]
            .into(),
            links: [(
                LinkKey::at("f", &cgroup),
                ObservedLink { info: link, path: Some("/a".into()), in_effect: true, believed: false, pinned: true },
            )]
            .into(),
            ..Observed::default()
        };
        (observed, [("/a".to_owned(), cgroup)].into())
    }

    fn kinds(edit: impl FnOnce(&mut Observed, &mut BTreeMap<String, Cgroup>)) -> Vec<DriftKind> {
        let (before, mut cgroups) = observed();
        let mut now = before.clone();
        edit(&mut now, &mut cgroups);
        assert_eq!(since(&now, &now, &cgroups), [], "told once");
        since(&before, &now, &cgroups).into_iter().map(|seen| seen.kind).collect()
    }

    #[test]
    fn what_others_can_do_is_told_apart() {
        use DriftKind::{LinkDetached, PinRemoved};
        assert_eq!(kinds(|_, _| ()), []);
        assert_eq!(kinds(|now, _| now.functions.clear()), [PinRemoved]);
        assert_eq!(kinds(|now, _| now.functions.values_mut().for_each(|f| f.pinned = false)), [PinRemoved]);
        assert_eq!(kinds(|now, _| now.maps.values_mut().for_each(|m| m.pinned = false)), [PinRemoved]);
        assert_eq!(kinds(|now, _| now.maps.clear()), [PinRemoved]);
        assert_eq!(kinds(|now, _| now.links.values_mut().for_each(|l| l.pinned = false)), [PinRemoved]);
        assert_eq!(kinds(|now, _| now.links.clear()), [PinRemoved]);
        let dead = |now: &mut Observed| now.links.values_mut().for_each(|l| l.in_effect = false);
        assert_eq!(kinds(|now, _| dead(now)), [LinkDetached]);
        let died_with_it = kinds(|now, cgroups| {
            dead(now);
            cgroups.clear();
        });
        assert_eq!(died_with_it, [], "its cgroup is gone: nobody's doing");
        assert_eq!(kinds(|now, _| now.uid = None), [PinRemoved]);
    }

    #[test]
    fn what_is_taken_off_a_map_is_told_and_what_went_with_the_map_is_told_of_the_map() {
        let (mut before, cgroups) = observed();
        let link = LinkInfo { id: 4, program_id: 1, map_id: 2, ..LinkInfo::default() };
        let link = ObservedLink { info: link, path: None, in_effect: true, believed: false, pinned: true };
        before.links = [(LinkKey::on_map("f", "m"), link)].into();
        let mut now = before.clone();
        now.links.values_mut().for_each(|link| link.in_effect = false);
        let seen = since(&before, &now, &cgroups);
        assert!(
            seen.len() == 1 && seen[0].kind == DriftKind::LinkDetached && seen[0].message.contains("map m"),
            "{seen:?}"
        );
        now.maps.values_mut().for_each(|map| map.info.id = 9);
        let seen = since(&before, &now, &cgroups);
        assert!(seen.len() == 1 && seen[0].kind == DriftKind::PinRemoved, "{seen:?}");
    }

    #[test]
    fn the_same_again_is_counted_and_the_oldest_goes() {
        let mut drift = Vec::new();
        let seen = |n: usize| Change { kind: DriftKind::LinkDetached, message: format!("link {n}") };
        for n in 0..10 {
            remember(&mut drift, seen(n), Timestamp::UNIX_EPOCH);
        }
        remember(&mut drift, seen(5), Timestamp::UNIX_EPOCH);
        assert_eq!(drift.len(), MAX_REMEMBERED);
        assert_eq!(drift.last().map(|d| (d.message.as_str(), d.count)), Some(("link 5", 2)));
        assert_eq!(drift[0].message, "link 2");
    }
}
