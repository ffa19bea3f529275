//! Maps: a list of them, what they hold, and what keeps them alive.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sockeye_crds::node::LoadedMap;
use sockeye_read_api::{
    map::{Entries, Entry, Reference, References},
    node::Node,
};

use crate::output::{Table, jsonpath::shown, quantity, table::escaped};

/// A map on a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapOnNode {
    /// The node.
    pub node: String,
    /// The BpfProgram.
    pub program: String,
    /// The map. Null if the BpfProgram is deleted, or the map is given up: then only its pin is known.
    #[serde(flatten)]
    pub map: MapFacts,
    /// The things that keep it, in words.
    pub kept_by: String,
}

/// The facts on a map.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MapFacts {
    /// A BpfProgram's.
    Loaded(Box<LoadedMap>),
    /// One that outlived its BpfProgram.
    #[serde(rename_all = "camelCase")]
    Left {
        /// The file name of its pin.
        name: String,
        /// The kernel's ID.
        id: i64,
        /// The path of its pin.
        pin_path: String,
    },
}

/// Returns the maps of all BpfPrograms, or of one, on these nodes. Those that outlived their BpfPrograms come last.
pub fn list(nodes: &[Node], program: Option<&str>) -> Vec<MapOnNode> {
    let is_asked = |name: &str| program.is_none_or(|program| program == name);
    let mut maps = Vec::new();
    for node in nodes {
        let on_node = |program: &str, map, kept_by| MapOnNode {
            node: node.name.clone(),
            program: program.to_owned(),
            map,
            kept_by,
        };
        for program in node.programs.iter().filter(|program| is_asked(&program.name)) {
            let of_program = program.detail.maps.iter();
            maps.extend(
                of_program.map(|map| on_node(&program.name, MapFacts::Loaded(Box::new(map.clone())), kept_by(map))),
            );
        }
        for map in node.retained.iter().filter(|map| is_asked(&map.program)) {
            let left = MapFacts::Left { name: map.name.clone(), id: map.id, pin_path: map.pin_path.clone() };
            maps.push(on_node(&map.program, left, "its pin (reclaimPolicy: Retain)".to_owned()));
        }
        for map in node.draining.iter().filter(|map| is_asked(&map.program)) {
            let left = MapFacts::Left { name: map.name.clone(), id: map.id, pin_path: map.pin_path.clone() };
            maps.push(on_node(&map.program, left, format!("its pin, for {} sockets in it", map.sockets)));
        }
    }
    maps
}

/// Returns what keeps a map alive, in words: a program that uses it, its pin, both, or another BpfProgram.
fn kept_by(map: &LoadedMap) -> String {
    if let Some(other) = &map.map_ref {
        return format!("{}, whose map it is", other.program);
    }
    let mut words = Vec::new();
    if map.used {
        words.push("programs");
    }
    if map.pin_path.is_some() {
        words.push("pin");
    }
    let mut text = if words.is_empty() { "the agent".to_owned() } else { words.join(", ") };
    if !map.shared_by.is_empty() {
        text += &format!("; shared with {}", map.shared_by.join(", "));
    }
    text
}

/// Returns the table of a list.
pub fn table(maps: &[MapOnNode]) -> Table {
    let columns = ["node", "program", "map", "id", "type", "key", "value", "max", "memory", "kept-by"];
    let mut table = Table::new(&columns, &["pin"]);
    for MapOnNode { node, program, map, kept_by } in maps {
        let head = |name: &str, id: i64| [node.clone(), program.clone(), name.to_owned(), id.to_string()];
        let kept_by = kept_by.clone();
        match map {
            MapFacts::Loaded(map) => {
                let numbers = [map.key_size_bytes, map.value_size_bytes, map.max_entries].map(|n| n.to_string());
                let memory = quantity::format_bytes(u64::try_from(map.memlock_bytes).unwrap_or_default());
                let pin = map.pin_path.clone().unwrap_or_default();
                let rest = [map.map_type.clone()].into_iter().chain(numbers).chain([memory, kept_by, pin]);
                table.row(head(&map.name, map.id).into_iter().chain(rest));
            }
            MapFacts::Left { name, id, pin_path } => {
                let unknown = std::iter::repeat_n(String::new(), 5);
                table.row(head(name, *id).into_iter().chain(unknown).chain([kept_by, pin_path.clone()]));
            }
        }
    }
    table
}

/// The content of a map on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// The node.
    pub node: String,
    /// The kernel's ID of the map.
    #[serde(rename = "mapID")]
    pub map_id: u32,
    /// The map's type.
    #[serde(rename = "type")]
    pub map_type: String,
    /// The entries.
    pub entries: Vec<Entry>,
    /// True if there are more than were asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Why keys and values are bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecoded: Option<String>,
}

impl Dump {
    /// Adds a page. One with which the walk began anew may have entries of before: the newer one counts.
    pub fn add(&mut self, page: Entries) {
        (self.map_id, self.map_type) = (page.map_id, page.map_type);
        self.undecoded = page.undecoded;
        if !page.restarted {
            self.entries.extend(page.entries);
            return;
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            places.insert(entry.key.to_string(), at);
        }
        for entry in page.entries {
            match places.get(&entry.key.to_string()).and_then(|at| self.entries.get_mut(*at)) {
                Some(slot) => *slot = entry,
                None => self.entries.push(entry),
            }
        }
    }
}

/// Returns the table of dumps; with several nodes their names are in the first column.
pub fn dump_table(dumps: &[Dump]) -> Table {
    let with_node = dumps.len() > 1;
    let mut table = match with_node {
        true => Table::new(&["node", "key", "value"], &[]),
        false => Table::new(&["key", "value"], &[]),
    };
    for dump in dumps {
        for entry in &dump.entries {
            let node = with_node.then(|| dump.node.clone());
            table.row(node.into_iter().chain([cell(&entry.key), value(entry)]));
        }
    }
    table
}

/// A change between two dumps.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The node.
    pub node: String,
    /// `added`, `changed` or `removed`.
    pub change: &'static str,
    /// The key.
    pub key: Value,
    /// The value, which is not there any more if it was removed.
    pub value: Value,
}

/// Returns what changed from one dump of a node's map to the next, by key.
pub fn changes(before: &Dump, after: &Dump) -> Vec<Change> {
    let by_key = |dump: &Dump| -> BTreeMap<String, (Value, Value)> {
        dump.entries.iter().map(|entry| (entry.key.to_string(), (entry.key.clone(), values(entry)))).collect()
    };
    let (old, new) = (by_key(before), by_key(after));
    let change = |change, (key, value): &(Value, Value)| Change {
        node: after.node.clone(),
        change,
        key: key.clone(),
        value: value.clone(),
    };
    let written = new.iter().filter_map(|(text, entry)| match old.get(text) {
        None => Some(change("added", entry)),
        Some((_, value)) if *value != entry.1 => Some(change("changed", entry)),
        Some(_) => None,
    });
    // A map that is not read to its end says nothing of what is not there.
    let removed = old.iter().filter(|(text, _)| !after.cut && !new.contains_key(*text));
    written.chain(removed.map(|(_, entry)| change("removed", entry))).collect()
}

/// Returns the line of a change.
pub fn change_line(change: &Change, with_node: bool) -> String {
    let Change { node, change, key, value } = change;
    let node = if with_node { format!("{node}  ") } else { String::new() };
    escaped(&format!("{node}{change:<8}{}  {}", cell(key), cell(value)).replace('\n', " ")) + "\n"
}

fn values(entry: &Entry) -> Value {
    entry.value.clone().unwrap_or_else(|| Value::Array(entry.values.clone()))
}

fn value(entry: &Entry) -> String {
    match &entry.value {
        Some(value) => cell(value),
        None => entry
            .values
            .iter()
            .enumerate()
            .map(|(cpu, value)| format!("cpu{cpu}={}", cell(value)))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(_) => escaped(&shown(value)),
        _ => value.to_string(),
    }
}

/// Returns what keeps a map alive `on` a node, as a tree: whatever is on the left goes when all on its right is gone.
pub fn references(on: &str, program: &str, map: &str, references: &References) -> String {
    let References { map_id, by, unseen } = references;
    let mut text = format!("map {map} of {program}, ID {map_id}, on {on}\n");
    for (at, reference) in by.iter().enumerate() {
        let is_last = at + 1 == by.len() && unseen.is_empty();
        let (branch, stem) = if is_last { ("`-", "  ") } else { ("|-", "| ") };
        let (line, below) = words(reference);
        text += &format!("{branch} {}\n", escaped(&line));
        for path in below {
            text += &format!("{stem}   `- {}\n", escaped(&path));
        }
    }
    for (at, words) in unseen.iter().enumerate() {
        let branch = if at + 1 == unseen.len() { "`-" } else { "|-" };
        text += &format!("{branch} perhaps: {}\n", escaped(words));
    }
    text + &verdict(by)
}

fn words(reference: &Reference) -> (String, Vec<String>) {
    match reference {
        Reference::Pin { path, program } => {
            (format!("pin {path} of {program}, until it is removed or the node boots"), vec![])
        }
        Reference::Program { program, function, id, kept_by } => {
            (format!("program {program}/{function}, ID {id}, which uses it"), kept_by.clone())
        }
        Reference::OuterMap { program, map, id } => {
            (format!("map {map} of {program}, ID {id}, which holds it"), vec![])
        }
        Reference::Link { program, function, path } => {
            (format!("link of {program}/{function}, which is attached to it"), vec![path.clone()])
        }
        Reference::Descriptor { count } => (format!("descriptors of the agent: {count}, until it ends"), vec![]),
    }
}

/// Says in one line what would end the map.
fn verdict(by: &[Reference]) -> String {
    let pins = by.iter().filter(|one| matches!(one, Reference::Pin { .. })).count();
    let users = by.iter().filter(|one| !matches!(one, Reference::Pin { .. } | Reference::Descriptor { .. })).count();
    match (pins, users) {
        (0, 0) => "Nothing but the agent keeps it: it goes when the agent ends.\n",
        (0, _) => "It has no pin: it goes with the programs that use it.\n",
        (_, 0) => "No program uses it: only the pin keeps it.\n",
        _ => "The pin and the programs each keep it: it stays until both are gone.\n",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(key: Value, value: Value) -> Entry {
        Entry { key, value: Some(value), values: vec![] }
    }

    fn page(entries: Vec<Entry>, restarted: bool) -> Entries {
        Entries { map_id: 5, map_type: "Hash".into(), entries, restarted, ..Entries::default() }
    }

    #[test]
    fn a_walk_that_began_anew_brings_no_entry_twice() {
        let mut dump = Dump::default();
        dump.add(page(vec![entry(json!(1), json!("a")), entry(json!(2), json!("b"))], false));
        dump.add(page(vec![entry(json!(2), json!("c")), entry(json!(3), json!("d"))], true));
        let entries: Vec<_> = dump.entries.iter().map(|one| (one.key.clone(), one.value.clone().unwrap())).collect();
        assert_eq!(entries, [(json!(1), json!("a")), (json!(2), json!("c")), (json!(3), json!("d"))]);
    }

    #[test]
    fn changes_are_found_by_key() {
        let dump = |entries: Vec<Entry>| Dump { node: "a".into(), entries, ..Dump::default() };
        let before = dump(vec![entry(json!(1), json!(1)), entry(json!(2), json!(2)), entry(json!(3), json!(3))]);
        let after =
            dump(vec![entry(json!(3), json!(3)), entry(json!(2), json!(5)), entry(json!({"ip": "x"}), json!(4))]);
        let found = changes(&before, &after);
        let lines: String = found.iter().map(|change| change_line(change, false)).collect();
        assert_eq!(lines, "changed 2  5\nadded   {\"ip\":\"x\"}  4\nremoved 1  1\n");
        // JSON escapes the first controls only, and not those from U+0080 on.
        let hostile = Change { key: json!(["\u{9b}2J"]), value: json!("a\nb"), ..found[0].clone() };
        assert_eq!(change_line(&hostile, false), "changed [\"\\u{9b}2J\"]  a b\n");
        let cut = Dump { cut: true, ..after };
        assert!(changes(&before, &cut).iter().all(|change| change.change != "removed"));
    }

    #[test]
    fn a_table_names_nodes_only_if_there_are_several() {
        let dump = |node: &str| Dump {
            node: node.into(),
            entries: vec![entry(json!("k\u{1b}"), json!({"n": 1}))],
            ..Dump::default()
        };
        assert_eq!(dump_table(&[dump("a")]).render(false, false), "KEY   VALUE\nk^[   {\"n\":1}\n");
        assert!(dump_table(&[dump("a"), dump("b")]).render(false, false).starts_with("NODE   KEY   VALUE\n"));
        let cpus = Dump {
            entries: vec![Entry { key: Value::Null, value: None, values: vec![json!(1), json!(2)] }],
            ..Dump::default()
        };
        assert_eq!(dump_table(&[cpus]).render(false, true), "-     cpu0=1 cpu1=2\n");
    }

    #[test]
    fn references_say_what_would_end_the_map() {
        let by = vec![
            Reference::Pin { path: "/sys/fs/bpf/sockeye/p/maps/m".into(), program: "p".into() },
            Reference::Program {
                program: "p".into(),
                function: "f".into(),
                id: 7,
                kept_by: vec!["/x/links/f/1".into()],
            },
            Reference::Descriptor { count: 1 },
        ];
        let unseen = vec!["another process that opened the pin".to_owned()];
        let text = references("node a", "p", "m", &References { map_id: 5, by, unseen });
        let expected = "\
map m of p, ID 5, on node a
|- pin /sys/fs/bpf/sockeye/p/maps/m of p, until it is removed or the node boots
|- program p/f, ID 7, which uses it
|    `- /x/links/f/1
|- descriptors of the agent: 1, until it ends
`- perhaps: another process that opened the pin
The pin and the programs each keep it: it stays until both are gone.
";
        assert_eq!(text, expected);
        let pin = vec![Reference::Pin { path: "/x".into(), program: "p".into() }];
        assert!(
            references("node a", "p", "m", &References { map_id: 5, by: pin, unseen: vec![] }).contains("only the pin")
        );
    }
}
