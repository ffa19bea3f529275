//! Drift: what others did to a BpfProgram's objects since they were last looked at. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{Timestamp, Unit};
use sockeye_crds::node::{Drift, DriftKind};

use crate::{held::Held, kernel::cgroup::Cgroup};

/// So much of it is remembered of a BpfProgram.
const MAX_REMEMBERED: usize = 8;

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// In one word.
    pub kind: DriftKind,
    /// In words.
    pub message: String,
}

/// What is no longer as it was. `cgroups` are those that exist: a link that died with its cgroup is nobody's doing, and one that
/// went with its map is told of the map.
pub fn since(before: &Held, now: &Held, cgroups: &BTreeMap<String, Cgroup>) -> Vec<Seen> {
    let removed = |what: String, became: &str| Seen {
        kind: DriftKind::PinRemoved,
        message: format!("the pin of {what} was removed or replaced: {became}"),
    };
    let mut seen = Vec::new();
    for (function, was) in &before.functions {
        if now.functions.get(function).is_none_or(|is| is.info.id != was.info.id) {
            seen.push(removed(format!("program {function}"), "the object is loaded anew, and its links are moved"));
        } else if was.pinned && now.functions.get(function).is_some_and(|is| !is.pinned) {
            seen.push(removed(format!("program {function}"), "it is pinned again; it never ceased to run"));
        }
    }
    for (pin, was) in &before.maps {
        match now.maps.get(pin) {
            Some(is) if is.info.id == was.info.id && (is.pinned || !was.pinned) => {}
            Some(is) if is.info.id == was.info.id => {
                seen.push(removed(format!("map {pin}"), "it is pinned again, with its content"));
            }
            _ => seen.push(removed(format!("map {pin}"), "it is made anew, and its content is lost")),
        }
    }
    for (key, was) in before.links.iter().filter(|(_, was)| was.in_effect) {
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
            Some(is) if is.in_effect && (is.pinned || !was.pinned) => {}
            Some(is) if is.in_effect => seen.push(removed(what, "it is pinned again; it never ceased to run")),
            None => seen.push(removed(what, "it is attached anew")),
            Some(_) if lives => seen.push(Seen {
                kind: DriftKind::LinkDetached,
                message: format!("{what} was detached by someone: it is attached anew"),
            }),
            Some(_) => {}
        }
    }
    if before.uid != now.uid || before.retained != now.retained {
        let message = "notes under _meta were removed or changed: they are written again".to_owned();
        seen.push(Seen { kind: DriftKind::PinRemoved, message });
    }
    seen
}

/// That programs which are not ours stand beside ours.
pub fn beside(path: &str, attach_type: &str, programs: &BTreeSet<u32>) -> Seen {
    let ids: Vec<String> = programs.iter().map(u32::to_string).collect();
    let message = format!(
        "program {} was attached beside it on cgroup {path}, {attach_type}: it is left alone, and may run before or after",
        ids.join(", ")
    );
    Seen { kind: DriftKind::AttachedBeside, message }
}

/// Adds to what is remembered, the same again as a count.
pub fn remember(drift: &mut Vec<Drift>, seen: Seen, now: Timestamp) {
    let Seen { kind, message } = seen;
    let message = sockeye_crds::names::clip(&message, 512);
    let same = drift.iter().position(|d| d.kind == kind && d.message == message);
    let count = same.map_or(0, |i| drift.remove(i).count) + 1;
    if drift.len() >= MAX_REMEMBERED {
        drift.remove(0);
    }
    let seen_at = now.round(Unit::Second).unwrap_or(now).to_string();
    drift.push(Drift { seen_at, kind, message, count });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        held::{HeldFunction, HeldLink, HeldMap, LinkKey},
        kernel::info::{LinkInfo, MapInfo, ProgramInfo},
    };

    fn held() -> (Held, BTreeMap<String, Cgroup>) {
        let cgroup = Cgroup { id: 7, path: "/a".into() };
        let program = ProgramInfo { id: 1, ..ProgramInfo::default() };
        let link = LinkInfo { id: 3, program_id: 1, cgroup_id: 7, ..LinkInfo::default() };
        let held = Held {
            uid: Some("u".into()),
            functions: [("f".into(), HeldFunction { info: program, load_key: None, pinned: true })].into(),
            maps: [("m".into(), HeldMap { info: MapInfo { id: 2, ..MapInfo::default() }, pinned: true, from: None })]
                .into(),
            links: [(
                LinkKey::at("f", &cgroup),
                HeldLink { info: link, path: Some("/a".into()), in_effect: true, believed: false, pinned: true },
            )]
            .into(),
            ..Held::default()
        };
        (held, [("/a".to_owned(), cgroup)].into())
    }

    fn kinds(edit: impl FnOnce(&mut Held, &mut BTreeMap<String, Cgroup>)) -> Vec<DriftKind> {
        let (before, mut cgroups) = held();
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
        let dead = |now: &mut Held| now.links.values_mut().for_each(|l| l.in_effect = false);
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
        let (mut before, cgroups) = held();
        let link = LinkInfo { id: 4, program_id: 1, map_id: 2, ..LinkInfo::default() };
        let link = HeldLink { info: link, path: None, in_effect: true, believed: false, pinned: true };
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
        let seen = |n: usize| Seen { kind: DriftKind::LinkDetached, message: format!("link {n}") };
        for n in 0..10 {
            remember(&mut drift, seen(n), Timestamp::UNIX_EPOCH);
        }
        remember(&mut drift, seen(5), Timestamp::UNIX_EPOCH);
        assert_eq!(drift.len(), MAX_REMEMBERED);
        assert_eq!(drift.last().map(|d| (d.message.as_str(), d.count)), Some(("link 5", 2)));
        assert_eq!(drift[0].message, "link 2");
    }
}
