//! The writer of entries alone: how long it takes, and what programs find while it writes.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::json;
use sockeye_agent::{
    kernel::{
        bpf::{self, MapAttr},
        map_entries::MapEntries,
        record,
    },
    model::entries::{AppliedEntries, EntryChanges, EntryShape, ListedEntry, ListedMap, MapForm},
    plan::entry_changes::{Comparison, applied_after},
};

use super::{NAME, open, set};
use crate::node::{Node, is_emulated, timeout};

/// Makes the key of an entry of its number.
type KeyOf = fn(u32) -> Vec<u8>;

/// The entries that the writer takes within a second.
const MANY: u32 = 65_536;

fn map(map_type: u32, flags: u32, key_size: u32, max_entries: u32) -> OwnedFd {
    let attr = MapAttr { name: "many", map_type, key_size, value_size: 4, max_entries, flags, ..MapAttr::default() };
    bpf::map_create(&attr).unwrap()
}

fn entry(key: Vec<u8>, value: u32) -> ListedEntry {
    ListedEntry { key, value: value.to_ne_bytes().to_vec(), named: vec![0xff; 4] }
}

fn listed(entries: impl Iterator<Item = ListedEntry>) -> ListedMap {
    ListedMap { pin: "many".to_owned(), sync: true, entries: entries.collect() }
}

/// Brings a map in sync, and returns the changes that were made.
fn sync(entries: &mut MapEntries<'_>, shape: EntryShape, listed: &ListedMap, applied: &AppliedEntries) -> EntryChanges {
    let keys = listed.entries.iter().map(|entry| &entry.key).chain(applied.keys());
    let live = entries.read(keys).unwrap();
    let changes = Comparison { shape, listed, applied, live: &live }.changes();
    entries.write(&changes).unwrap();
    changes
}

/// Returns the processor time of this thread. On a machine that does nothing else, so much time passes too.
fn cpu_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Each list of 65,536 entries replaces another one half of whose keys it has.
#[test]
fn long_lists_are_written_within_a_second_with_batches_and_without() {
    // On an emulated processor the content alone is compared.
    let many = if is_emulated() { MANY / 16 } else { MANY };
    let trie_key: KeyOf = |n: u32| [&32_u32.to_ne_bytes()[..], &n.to_be_bytes()].concat();
    let key: KeyOf = |n: u32| n.to_ne_bytes().to_vec();
    // BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_LPM_TRIE, which requires BPF_F_NO_PREALLOC.
    let forms: [(MapForm, u32, u32, u32, KeyOf); 2] =
        [(MapForm::Hash, 1, 0, 4, key), (MapForm::Trie, 11, 1, 8, trie_key)];
    for (form, map_type, flags, key_size, key) in forms {
        for singly in [false, true] {
            let fd = map(map_type, flags, key_size, 2 * many);
            let shape = EntryShape {
                form,
                key_size: key_size as usize,
                value_size: 4,
                max_entries: 2 * many as usize,
                cpus: None,
            };
            let opened = MapEntries::new(fd.as_fd(), shape).unwrap();
            let mut entries = if singly { opened.singly() } else { opened };
            let first = listed((0..many).map(|n| entry(key(n), 1)));
            let second = listed((many / 2..many / 2 + many).map(|n| entry(key(n), 2)));
            let what = format!("{form:?}, {}", if singly { "singly" } else { "in batches" });

            let start = cpu_time();
            let changes = sync(&mut entries, shape, &first, &AppliedEntries::new());
            let filled = cpu_time() - start;
            assert_eq!((changes.writes.len(), changes.deletes.len()), (many as usize, 0), "{what}");
            let start = cpu_time();
            let changes = sync(&mut entries, shape, &second, &applied_after(&first));
            let replaced = cpu_time() - start;
            let half = many as usize / 2;
            assert_eq!((changes.writes.len(), changes.deletes.len()), (many as usize, half), "{what}");
            let changes = sync(&mut entries, shape, &second, &applied_after(&second));
            assert_eq!(changes, EntryChanges::default(), "{what}");
            println!("{what}: {many} entries filled in {filled:?}, replaced in {replaced:?}");
            // Without optimization the comparison alone takes most of a second.
            let bound = timeout() / if cfg!(debug_assertions) { 10 } else { 20 };
            assert!(is_emulated() || filled < bound && replaced < bound, "{what}: {filled:?}, {replaced:?}");
        }
    }
}

#[test]
fn a_record_holds_more_than_one_element() {
    for size in [0, 1, 20, 32 << 10, (1 << 20) + 7] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| n as u8 ^ (n >> 8) as u8).collect();
        let fd = record::create("record", &bytes).unwrap();
        let read = record::read(fd.as_fd()).unwrap();
        assert_eq!(read[..size], bytes);
        assert!(read[size..].iter().all(|byte| *byte == 0));
    }
}

/// The lists that the race goes between. The trie's have prefixes within prefixes, in other places each.
fn lists() -> [[ListedMap; 2]; 2] {
    let prefix = |length: u32, a: u8, b: u8, value| entry([&length.to_ne_bytes()[..], &[10, a, b, 0]].concat(), value);
    let key = |key: u32, value| entry(key.to_ne_bytes().to_vec(), value);
    [
        [
            listed(
                [prefix(8, 0, 0, 1), prefix(11, 32, 0, 2), prefix(17, 32, 128, 3), prefix(16, 64, 0, 4)].into_iter(),
            ),
            listed(
                [prefix(9, 0, 0, 5), prefix(17, 0, 128, 6), prefix(17, 32, 128, 5), prefix(10, 64, 0, 6)].into_iter(),
            ),
        ],
        [
            listed([key(0, 1), key(1, 2), key(2, 3), key(3, 4)].into_iter()),
            listed([key(1, 5), key(2, 6), key(4, 5), key(5, 6)].into_iter()),
        ],
    ]
}

/// Returns what a program finds with a list, by its question: 0 for nothing.
fn answers([trie, hash]: [&ListedMap; 2]) -> Vec<u64> {
    let value = |entry: &ListedEntry| u64::from(entry.value[0]);
    let in_trie = |question: u8| {
        let address = u32::from_be_bytes([10, (question >> 1) << 5, (question & 1) << 7, 1]);
        let matching = trie.entries.iter().filter_map(|entry| {
            let length = u32::from_ne_bytes(entry.key[..4].try_into().unwrap());
            let network = u32::from_be_bytes(entry.key[4..].try_into().unwrap());
            ((address ^ network).checked_shr(32 - length).unwrap_or_default() == 0).then_some((length, value(entry)))
        });
        matching.max().map_or(0, |(_, value)| value)
    };
    let in_hash = |question: u8| {
        hash.entries.iter().find(|entry| entry.key == u32::from(question).to_ne_bytes()).map_or(0, value)
    };
    (0..8).map(in_trie).chain((0..8).map(in_hash)).collect()
}

/// Runs the program again and again, by BPF_PROG_TEST_RUN.
fn race(node: &Node) -> Child {
    let packet = node.folder().join("packet");
    fs::write(&packet, [0; 64]).unwrap();
    let script = "while bpftool prog run pinned \"$1\" data_in \"$2\" repeat 1000000 >/dev/null 2>&1; do :; done";
    let pin = format!("{}/programs/ask", node.home(NAME));
    let mut command = node.inside("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c", script, "race", &pin]).arg(packet);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Replaces lists back and forth while the program runs. Returns, by question, the answers that it found. `order` may
/// put the changes into another order.
fn answers_found(node: &Node, rounds: [usize; 2], order: impl Fn(&mut EntryChanges)) -> Vec<BTreeSet<u64>> {
    let maps = ["trie", "hash"].map(|name| open(node, name));
    let shapes = [(MapForm::Trie, 8), (MapForm::Hash, 4)].map(|(form, key_size)| EntryShape {
        form,
        key_size,
        value_size: 4,
        max_entries: 16,
        cpus: None,
    });
    let lists = lists();
    let seen = open(node, "answers");
    for at in 0..128_u32 {
        bpf::map_update(seen.as_fd(), Some(&at.to_ne_bytes()), &[0; 8]).unwrap();
    }
    for (((fd, shape), list), rounds) in maps.iter().zip(shapes).zip(&lists).zip(rounds) {
        for round in 0..rounds {
            let (now, before) = (&list[(round + 1) % 2], applied_after(&list[round % 2]));
            let mut entries = MapEntries::new(fd.as_fd(), shape).unwrap();
            let keys = now.entries.iter().map(|entry| &entry.key).chain(before.keys());
            let live = entries.read(keys).unwrap();
            let mut changes = Comparison { shape, listed: now, applied: &before, live: &live }.changes();
            order(&mut changes);
            entries.write(&changes).unwrap();
        }
    }
    let answer = |at: u32| {
        let mut value = [0; 8];
        bpf::map_lookup(seen.as_fd(), &at.to_ne_bytes(), &mut value).unwrap();
        u64::from_ne_bytes(value)
    };
    let found = |question: u32| (0..8).filter(|value| answer(8 * question + value) > 0).map(u64::from).collect();
    (0..16).map(found).collect()
}

#[test]
fn a_program_finds_the_old_list_or_the_new_one_and_never_a_third() {
    let mut node = Node::new("entries-race");
    node.start();
    let entries = |list: &ListedMap, is_trie: bool| -> serde_json::Value {
        let entry = |entry: &ListedEntry| {
            let key = match is_trie {
                true => json!(format!("10.{}.{}.0/{}", entry.key[5], entry.key[6], entry.key[0])),
                false => json!(entry.key[0]),
            };
            json!({"key": key, "value": entry.value[0]})
        };
        list.entries.iter().map(entry).collect()
    };
    let [trie, hash] = lists();
    // They only fill the maps: here the test itself writes. The hash has so many buckets that its keys have one each.
    set(
        &node,
        json!([
            {"name": "trie", "entries": entries(&trie[0], true)},
            {"name": "hash", "maxEntries": 1 << 16, "entries": entries(&hash[0], false)},
        ]),
    );
    let mut racing = race(&node);
    let [old, new] = [0, 1].map(|i| answers([&trie[i], &hash[i]]));
    let thirds = |found: &[BTreeSet<u64>]| -> Vec<(usize, u64)> {
        let all = found.iter().enumerate().flat_map(|(question, found)| found.iter().map(move |one| (question, *one)));
        all.filter(|(question, one)| *one != old[*question] && *one != new[*question]).collect()
    };
    let found = answers_found(&node, [200, 200], |_| ());
    let naive = answers_found(&node, [200, 0], |changes| changes.writes.reverse());
    racing.kill().unwrap();
    racing.wait().unwrap();
    assert_eq!(thirds(&found), []);
    let both = (0..16).filter(|at| old[*at] != new[*at]).all(|at| found[at].len() == 2);
    assert!(both, "the program ran with both lists: {found:?}");
    assert_ne!(thirds(&naive), [], "in another order it finds a third: this test can fail");
    node.remove(NAME);
    node.nothing_left();
}
