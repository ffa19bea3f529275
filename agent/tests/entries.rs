//! The plan of a map's entries, executed step by step on a model of the kernel's maps: whatever was listed before, is
//! listed and is in the map, each state in between answers each look-up as the old content or as the new one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sockeye_agent::{
    model::entries::{
        AppliedEntries, EntryChanges, EntryShape, EntryWrite, ListedEntry, ListedMap, LiveEntries, MapForm,
    },
    plan::entry_changes::{Comparison, applied_after, applied_before},
};
use sockeye_crds::Reason;
use sockeye_crds_testing::provoked;

/// The size of a value: two bytes, of which a spec may name one, the other or both.
const VALUE: usize = 2;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A map as the kernel has it.
#[derive(Clone, Debug)]
struct Model {
    form: MapForm,
    content: Content,
    most: usize,
    /// The trie refuses to replace an entry while it is full, as before Linux 6.13.
    is_old: bool,
}

impl Model {
    /// Returns what a program finds: in a trie the value of the longest prefix that matches.
    fn look_up(&self, key: u8) -> Option<&Vec<u8>> {
        match self.form {
            MapForm::Trie => {
                let matching = (0..=8_u32).rev().map(|length| trie_key(length, key));
                matching.into_iter().find_map(|key| self.content.get(&key))
            }
            MapForm::Hash | MapForm::Array => self.content.get(&vec![key]),
        }
    }

    fn answers(&self) -> Vec<Option<Vec<u8>>> {
        (0..=u8::MAX).map(|key| self.look_up(key).cloned()).collect()
    }

    fn write(&mut self, EntryWrite { key, value, named, replaces }: &EntryWrite) {
        let is_new = !self.content.contains_key(key);
        assert_ne!(is_new, *replaces);
        let is_full = self.content.len() >= self.most;
        assert!(!is_full || !(is_new || self.is_old && self.form == MapForm::Trie), "the kernel refuses {key:?}");
        let live = self.content.entry(key.clone()).or_insert_with(|| vec![0; VALUE]);
        let named = named.clone().unwrap_or_else(|| vec![0xff; VALUE]);
        live.iter_mut().zip(value).zip(named).for_each(|((is, be), named)| *is = *is & !named | be & named);
    }

    fn shape(&self) -> EntryShape {
        let key_size = if self.form == MapForm::Trie { 5 } else { 1 };
        EntryShape { form: self.form, key_size, value_size: VALUE, max_entries: self.most, cpus: None }
    }

    fn changes(&self, listed: &ListedMap, applied: &AppliedEntries) -> EntryChanges {
        let live = self.live();
        Comparison { shape: self.shape(), listed, applied, live: &live }.changes()
    }

    fn live(&self) -> LiveEntries {
        LiveEntries { values: self.content.clone().into_iter().collect(), count: self.content.len() }
    }
}

fn trie_key(length: u32, data: u8) -> Vec<u8> {
    let kept = 0xff_u8.checked_shl(8 - length).unwrap_or_default();
    [&length.to_ne_bytes()[..], &[data & kept]].concat()
}

fn named() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![0xff, 0xff]), Just(vec![0xff, 0]), Just(vec![0, 0x0f])]
}

/// A key: few different ones, so that old, listed and live ones often are the same or lie within each other.
fn key(form: MapForm) -> BoxedStrategy<Vec<u8>> {
    match form {
        MapForm::Trie => (0..=8_u32, prop_oneof![Just(0xa5_u8), Just(0xa0), Just(0x80), any::<u8>()])
            .prop_map(|(length, data)| trie_key(length, data))
            .boxed(),
        MapForm::Hash | MapForm::Array => (0..12_u8).prop_map(|key| vec![key]).boxed(),
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4_u8, VALUE)
}

#[derive(Clone, Debug)]
struct Case {
    model: Model,
    applied: AppliedEntries,
    listed: ListedMap,
}

fn case(form: MapForm) -> impl Strategy<Value = Case> {
    let content = prop::collection::btree_map(key(form), value(), 0..10);
    let applied = prop::collection::hash_map(key(form), named(), 0..8);
    let listed = prop::collection::btree_map(key(form), (value(), named()), 0..8);
    (content, applied, listed, 0..8_usize, any::<bool>(), any::<bool>()).prop_map(
        move |(mut content, applied, listed, room, is_old, continues): (Content, AppliedEntries, _, _, _, _)| {
            if form == MapForm::Array {
                // Every element of an array exists.
                for key in 0..12 {
                    content.entry(vec![key]).or_insert_with(|| vec![0; VALUE]);
                }
            }
            if continues {
                // What was listed before is mostly there.
                for key in applied.keys() {
                    content.entry(key.clone()).or_insert_with(|| vec![1; VALUE]);
                }
            }
            // Bits that are not named are zero.
            let entry = |(key, (value, named)): (Vec<u8>, (Vec<u8>, Vec<u8>))| {
                let value = value.iter().zip(&named).map(|(value, named)| value & named).collect();
                ListedEntry { key, value, named }
            };
            let listed: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)> = listed;
            let entries = listed.into_iter().map(entry).collect();
            let listed = ListedMap { pin: "m".to_owned(), sync: true, entries };
            let most = content.len() + room;
            Case { model: Model { form, content, most, is_old }, applied, listed }
        },
    )
}

/// Returns the content that the spec asks for, written down independently of the plan.
fn expected(Case { model, applied, listed }: &Case) -> Content {
    let mut content = model.content.clone();
    for (key, named) in applied.iter().filter(|(key, _)| !listed.entries.iter().any(|entry| entry.key == **key)) {
        match (model.form, content.get_mut(key)) {
            (MapForm::Array, Some(live)) => live.iter_mut().zip(named).for_each(|(is, named)| *is &= !named),
            _ => drop(content.remove(key)),
        }
    }
    for ListedEntry { key, value, named } in &listed.entries {
        let live = content.entry(key.clone()).or_insert_with(|| value.clone());
        // What it named before and names no longer is as in a new entry.
        let before = applied.get(key).cloned().unwrap_or_default();
        live.iter_mut().zip(before).for_each(|(is, before)| *is &= !before);
        live.iter_mut().zip(value).zip(named).for_each(|((is, be), named)| *is = *is & !named | be & named);
    }
    content
}

/// Executes the plan of a case, and checks every state on the way.
fn check(case: &Case) {
    let Case { model, applied, listed } = case;
    let changes = model.changes(listed, applied);
    let (spare, live) = (usize::from(model.is_old), model.live());
    let comparison = Comparison { shape: model.shape(), listed, applied, live: &live };
    let refused = comparison.check_room("m", &changes, spare).is_err();
    let new = changes.writes.iter().filter(|write| !model.content.contains_key(&write.key)).count();
    if !model.is_old {
        assert_eq!(refused, new > 0 && model.content.len() + new > model.most, "refused where it does not fit, only");
    }
    if refused {
        return;
    }
    let (before, mut now) = (model.answers(), model.clone());
    let after = Model { content: expected(case), ..model.clone() }.answers();
    let check_state = |now: &Model, what: &str| {
        for (key, answer) in now.answers().iter().enumerate() {
            assert!(*answer == before[key] || *answer == after[key], "after {what}: {key} finds {answer:?}");
        }
    };
    for write in &changes.writes {
        now.write(write);
        check_state(&now, &format!("{write:?}"));
    }
    for key in &changes.deletes {
        assert!(now.content.remove(key).is_some(), "only what is there is deleted");
        check_state(&now, &format!("delete of {key:?}"));
    }
    assert_eq!(now.content, expected(case));
    // Planned again, with what is remembered meanwhile or with what is remembered then, nothing is left to do.
    for applied in [applied_before(listed, applied), applied_after(listed)] {
        assert_eq!(now.changes(listed, &applied), EntryChanges::default());
        let live = now.live();
        let counts = Comparison { shape: now.shape(), listed, applied: &applied, live: &live }.counts();
        assert!(counts.is_current(), "{counts:?}");
    }
}

/// An agent that is killed after some changes plans again with what it remembered before the first one: the result is
/// the same, also where the spec has been edited back meanwhile.
fn check_killed(case: &Case, done: usize) {
    let Case { model, applied, listed } = case;
    let changes = model.changes(listed, applied);
    let remembered = applied_before(listed, applied);
    let mut now = Model { most: usize::MAX, ..model.clone() };
    let mut left = done;
    for write in changes.writes.iter().take(left) {
        now.write(write);
    }
    left = left.saturating_sub(changes.writes.len());
    for key in changes.deletes.iter().take(left) {
        now.content.remove(key);
    }
    let finish = |mut now: Model, listed: &ListedMap| {
        let changes = now.changes(listed, &remembered);
        changes.writes.iter().for_each(|write| now.write(write));
        changes.deletes.iter().for_each(|key| drop(now.content.remove(key)));
        now.content
    };
    assert_eq!(finish(now.clone(), listed), expected(case), "the same list again");
    // Nothing that only the spec ever listed stays once it lists nothing.
    let emptied = finish(now, &ListedMap { entries: Vec::new(), ..listed.clone() });
    if model.form != MapForm::Array {
        let is_spec = |key: &Vec<u8>| remembered.contains_key(key);
        assert!(!emptied.keys().any(is_spec), "{emptied:?}");
        let others = model.content.iter().filter(|(key, _)| !is_spec(key));
        others.for_each(|(key, value)| assert_eq!(emptied.get(key), Some(value), "others' entries stay"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_trie_answers_as_before_or_as_after(case in case(MapForm::Trie)) {
        check(&case);
    }

    #[test]
    fn a_hash_answers_as_before_or_as_after(case in case(MapForm::Hash)) {
        check(&case);
    }

    #[test]
    fn an_array_answers_as_before_or_as_after(case in case(MapForm::Array)) {
        check(&case);
    }

    #[test]
    fn a_killed_agent_ends_with_the_same(case in case(MapForm::Trie), done in 0..12_usize) {
        check_killed(&case, done);
    }

    #[test]
    fn a_killed_agent_ends_with_the_same_hash(case in case(MapForm::Hash), done in 0..12_usize) {
        check_killed(&case, done);
    }
}

#[test]
fn every_slot_of_a_per_cpu_map_counts_and_padding_does_not() {
    let shape = EntryShape { form: MapForm::Hash, key_size: 1, value_size: 2, max_entries: 4, cpus: Some(2) };
    let entry = ListedEntry { key: vec![1], value: vec![7, 8], named: vec![0xff, 0] };
    let listed = ListedMap { pin: "m".to_owned(), sync: true, entries: vec![entry] };
    let applied = AppliedEntries::new();
    let changes = |live: [u8; 16]| {
        let live = LiveEntries { values: [(vec![1], live.to_vec())].into(), count: 1 };
        Comparison { shape, listed: &listed, applied: &applied, live: &live }.changes().writes.len()
    };
    let mut live = [0; 16];
    (live[0], live[1], live[5], live[8]) = (7, 99, 1, 7);
    assert_eq!(changes(live), 0, "the first byte of both slots is as listed");
    live[8] = 6;
    assert_eq!(changes(live), 1, "the second slot differs");
}

#[test]
fn entries_without_room_are_refused_with_the_numbers() {
    let model = Model {
        form: MapForm::Hash,
        content: [(vec![1], vec![0; VALUE]), (vec![2], vec![0; VALUE])].into(),
        most: 2,
        is_old: false,
    };
    let entry = ListedEntry { key: vec![3], value: vec![1; VALUE], named: vec![0xff; VALUE] };
    let listed = ListedMap { pin: "m".to_owned(), sync: true, entries: vec![entry] };
    let (applied, live) = (AppliedEntries::new(), model.live());
    let comparison = Comparison { shape: model.shape(), listed: &listed, applied: &applied, live: &live };
    let refusal = comparison.check_room("allowed", &comparison.changes(), 0).unwrap_err();
    assert_eq!(refusal.reason, Reason::EntriesNotInStep);
    assert!(refusal.message.contains("it has 2 entries, and 1 new ones"), "{refusal}");
    provoked(refusal.reason, &refusal.message);
}
