//! [`Diff`]: what an edit of a BpfProgram would change: nodes, pods, loads, maps.
//!
//! Both sides are templates of BpfRevisions. The same code decides here and on the nodes which nodes and pods are
//! selected, and whether a load is needed. A map's fate is predicted by the rule of `agent/src/plan/load.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use sockeye_crds::{
    MapInfo, RevisionTemplate,
    program::{MapSpec, ProgramSpec},
};

use super::which::{Pod, covers};
use crate::output::table::escaped;

/// The most nodes or pods that the page names of each kind.
const MAX_NAMED: usize = 20;
/// The longest value that the page shows.
const MAX_VALUE: usize = 60;

/// The effects of an edit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The BpfProgram.
    pub program: String,
    /// True if there is none of that name.
    pub is_new: bool,
    /// The fields of the spec that differ.
    pub fields: Vec<Field>,
    /// True if the object is another one, though the spec may name the same source.
    pub other_object: bool,
    /// Why the nodes load the programs again. Empty if they do not.
    pub loads: Vec<String>,
    /// The nodes, if they may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Change>,
    /// The functions on pods, if these may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Change>,
    /// The maps.
    pub maps: Vec<MapFate>,
}

/// A field of the spec that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// Its path.
    pub path: String,
    /// The value now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// The value then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// A list before and after an edit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The items that the edit adds.
    pub gained: Vec<String>,
    /// The items that the edit removes.
    pub lost: Vec<String>,
    /// The number of those that stay.
    pub unchanged: usize,
}

/// A map's fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapFate {
    /// The map.
    pub name: String,
    /// Its fate.
    pub fate: Fate,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The fate of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// It stays, with its content.
    Kept,
    /// It is created.
    Created,
    /// It is made anew, without its content.
    Recreated,
    /// It goes.
    Removed,
    /// Nodes that have it refuse the edit.
    Refused,
}

/// The nodes and pods of a cluster, as far as they may be read.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The labels of nodes, by name.
    pub nodes: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// The pods on nodes.
    pub pods: Option<Vec<Pod>>,
}

/// Returns what an edit changes in templates. The fields of the spec are the caller's to compare.
pub fn diff(program: &str, old: Option<&RevisionTemplate>, new: &RevisionTemplate, cluster: &Cluster) -> Diff {
    let loads = old.map_or_else(|| vec!["nothing of it is loaded yet".to_owned()], |old| loads(old, new));
    Diff {
        program: program.to_owned(),
        is_new: old.is_none(),
        fields: Vec::new(),
        other_object: old.is_some_and(|old| old.digest != new.digest),
        nodes: cluster.nodes.as_ref().map(|nodes| node_change(old, new, nodes)),
        pods: cluster.pods.as_ref().zip(cluster.nodes.as_ref()).map(|(pods, nodes)| pod_change(old, new, pods, nodes)),
        maps: maps(old, new, !loads.is_empty()),
        loads,
    }
}

impl Diff {
    /// Returns whether anything changes.
    pub fn is_empty(&self) -> bool {
        !self.is_new && self.fields.is_empty() && !self.other_object
    }
}

/// Returns why nodes load again, by what the load key is made of.
fn loads(old: &RevisionTemplate, new: &RevisionTemplate) -> Vec<String> {
    if old.load_key() == new.load_key() {
        return Vec::new();
    }
    let mut why = Vec::new();
    if old.digest != new.digest {
        why.push("the object is another one".to_owned());
    }
    let functions = |template: &RevisionTemplate| -> BTreeSet<(String, Option<String>)> {
        template.programs.iter().map(|program| (program.name.clone(), program.attach_type.clone())).collect()
    };
    let (before, after) = (functions(old), functions(new));
    why.extend(
        after.difference(&before).map(|(name, _)| format!("program {name} is added, or has another attach type")),
    );
    why.extend(
        before.difference(&after).map(|(name, _)| format!("program {name} is removed, or had another attach type")),
    );
    for name in old.maps.iter().chain(&new.maps).map(|map| &map.name).collect::<BTreeSet<_>>() {
        let loaded = |template: &RevisionTemplate| {
            let map = template.map(name).cloned().unwrap_or_else(|| MapSpec::named(name));
            let content = (!map.is_pinned()).then(|| (map.entries.clone(), map.list_digest().map(str::to_owned)));
            (map.is_pinned(), map.max_entries, map.map_ref.clone(), content)
        };
        if loaded(old) != loaded(new) {
            why.push(format!("map {name} has another size, pinning, owner or content"));
        }
    }
    if old.globals != new.globals {
        why.push("global variables have other values".to_owned());
    }
    if why.is_empty() {
        // The key decides; the words may know less than it.
        why.push("an option that changes a load differs".to_owned());
    }
    why
}

fn node_change(
    old: Option<&RevisionTemplate>,
    new: &RevisionTemplate,
    nodes: &BTreeMap<String, BTreeMap<String, String>>,
) -> Change {
    let mut change = Change::default();
    for (name, labels) in nodes {
        match (old.is_some_and(|old| old.selects(labels)), new.selects(labels)) {
            (false, true) => change.gained.push(name.clone()),
            (true, false) => change.lost.push(name.clone()),
            (true, true) => change.unchanged += 1,
            (false, false) => {}
        }
    }
    change
}

fn pod_change(
    old: Option<&RevisionTemplate>,
    new: &RevisionTemplate,
    pods: &[Pod],
    nodes: &BTreeMap<String, BTreeMap<String, String>>,
) -> Change {
    let mut change = Change::default();
    for pod in pods {
        let labels = nodes.get(&pod.node);
        let (before, after) = (functions_on(old, pod, labels), functions_on(Some(new), pod, labels));
        let line = |names: Vec<&&str>| {
            let names: Vec<&str> = names.into_iter().copied().collect();
            format!("{}/{}: {}", pod.namespace, pod.name, names.join(", "))
        };
        let gained: Vec<&&str> = after.difference(&before).collect();
        let lost: Vec<&&str> = before.difference(&after).collect();
        if gained.is_empty() && lost.is_empty() && !after.is_empty() {
            change.unchanged += 1;
        }
        if !gained.is_empty() {
            change.gained.push(line(gained));
        }
        if !lost.is_empty() {
            change.lost.push(line(lost));
        }
    }
    change.gained.sort();
    change.lost.sort();
    change
}

/// Returns the functions that a template attaches where they act on a pod. One that is suspended attaches none.
fn functions_on<'a>(
    template: Option<&'a RevisionTemplate>,
    pod: &Pod,
    node_labels: Option<&BTreeMap<String, String>>,
) -> BTreeSet<&'a str> {
    let Some((template, labels)) = template.zip(node_labels) else { return BTreeSet::new() };
    let is_on_node = template.selects(labels) && !template.suspend;
    let acts = |program: &&ProgramSpec| program.attach.iter().any(|target| covers(target, pod));
    let programs = template.programs.iter().filter(|_| is_on_node);
    programs.filter(acts).map(|program| program.name.as_str()).collect()
}

fn maps(old: Option<&RevisionTemplate>, new: &RevisionTemplate, is_loaded: bool) -> Vec<MapFate> {
    let of = |template: Option<&RevisionTemplate>| -> BTreeMap<String, MapInfo> {
        let maps = template.into_iter().flat_map(|template| &template.object.maps);
        maps.map(|map| (map.name.clone(), map.clone())).collect()
    };
    let (before, after) = (of(old), of(Some(new)));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let fates = names.into_iter().map(|name| {
        let (fate, why) = match (before.get(name), after.get(name), old) {
            (Some(was), Some(is), Some(old)) => fate((was, old), (is, new), is_loaded),
            (Some(_), None, _) => (Fate::Removed, "no program uses it any more".to_owned()),
            _ => (Fate::Created, String::new()),
        };
        MapFate { name: name.clone(), fate, why }
    });
    fates.collect()
}

/// Returns the fate of a map that both objects have.
fn fate(
    (was, old): (&MapInfo, &RevisionTemplate),
    (is, new): (&MapInfo, &RevisionTemplate),
    is_loaded: bool,
) -> (Fate, String) {
    let settings =
        |template: &RevisionTemplate| template.map(&is.name).cloned().unwrap_or_else(|| MapSpec::named(&is.name));
    let (before, after) = (settings(old), settings(new));
    if before.map_ref != after.map_ref {
        return match &after.map_ref {
            Some(other) => (Fate::Removed, format!("it becomes {other}")),
            None => (Fate::Created, "it is no other BpfProgram's any more".to_owned()),
        };
    }
    if after.map_ref.is_some() {
        return (Fate::Kept, "it is another BpfProgram's".to_owned());
    }
    if !is_loaded {
        let entries = before.entries != after.entries || before.entries_from != after.entries_from;
        let why = match (entries, after.is_synced()) {
            (true, true) => "its entries are brought in step",
            (true, false) => "its entries stay as they are: entriesPolicy is OnCreate",
            (false, _) => "",
        };
        return (Fate::Kept, why.to_owned());
    }
    if is.is_of_load() {
        return (Fate::Recreated, format!("each load creates it: {}", is.of_load_because()));
    }
    if !(before.is_pinned() && after.is_pinned()) {
        return (Fate::Recreated, "it is not pinned, so each load creates it".to_owned());
    }
    let shape = |info: &MapInfo, spec: &MapSpec| {
        let max = spec.max_entries.unwrap_or(info.max_entries);
        [
            ("key size", info.key_size_bytes),
            ("value size", info.value_size_bytes),
            ("maximum entries", max),
            ("flags", info.flags),
        ]
    };
    let pairs = shape(was, &before).into_iter().zip(shape(is, &after));
    let mut differ: Vec<String> =
        pairs.filter(|(old, new)| old != new).map(|((what, old), (_, new))| format!("{what} {old} -> {new}")).collect();
    if was.map_type != is.map_type {
        differ.push(format!("type {} -> {}", was.map_type, is.map_type));
    }
    match (differ.is_empty(), after.is_recreated()) {
        (true, _) => (Fate::Kept, String::new()),
        (false, true) => (Fate::Recreated, format!("{}; onIncompatible is Recreate", differ.join(", "))),
        (false, false) => {
            let why =
                format!("{}; set onIncompatible: Recreate, which loses its content, or rename it", differ.join(", "));
            (Fate::Refused, why)
        }
    }
}

/// Returns the fields in which two values differ, with the paths of a spec.
pub fn fields(path: &str, old: &Value, new: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    compare(path, Some(old), Some(new), &mut found);
    found
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Field>) {
    match (old, new) {
        _ if old == new => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                compare(&format!("{path}.{name}"), a.get(name), b.get(name), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(path, a, b, found),
        _ => found.push(Field { path: path.to_owned(), from: old.cloned(), to: new.cloned() }),
    }
}

/// Compares lists whose items have names by these, as the API server merges them, and others by their places.
fn compare_lists(path: &str, old: &[Value], new: &[Value], found: &mut Vec<Field>) {
    if let (Some(a), Some(b)) = (by_name(old), by_name(new)) {
        for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            compare(&format!("{path}[{name}]"), a.get(name).copied(), b.get(name).copied(), found);
        }
        return;
    }
    for at in 0..old.len().max(new.len()) {
        compare(&format!("{path}[{at}]"), old.get(at), new.get(at), found);
    }
}

/// Returns the items of a list by their names, if each has one.
fn by_name(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    list.iter().map(|item| Some((item["name"].as_str()?, item))).collect()
}

/// Returns the page.
pub fn render(diff: &Diff) -> String {
    let Diff { program, is_new, fields, other_object, loads, nodes, pods, maps } = diff;
    if diff.is_empty() {
        return String::new();
    }
    let mut text = format!("{program}: {}\n", if *is_new { "is created" } else { "changes" });
    for Field { path, from, to } in fields {
        text += &format!("  {path}: {} -> {}\n", short(from.as_ref()), short(to.as_ref()));
    }
    if *other_object {
        text += "  the object's bytes\n";
    }
    text += &match loads.as_slice() {
        [] => "Load: none; what is loaded stays\n".to_owned(),
        why => format!("Load: on each node: {}\n", why.join("; ")),
    };
    text += &changes("Nodes", nodes.as_ref());
    text += &changes("Pods", pods.as_ref());
    if !maps.is_empty() {
        text += "Maps:\n";
    }
    let width = maps.iter().map(|map| map.name.len()).max().unwrap_or_default();
    for MapFate { name, fate, why } in maps {
        let line = format!("  {name:width$}  {:<9}  {why}", format!("{fate:?}"));
        text += &format!("{}\n", line.trim_end());
    }
    escaped(&text)
}

fn changes(what: &str, change: Option<&Change>) -> String {
    let Some(Change { gained, lost, unchanged }) = change else {
        return format!("{what}: not known, since they may not be read\n");
    };
    let mut text = format!("{what}: {} gain it, {} lose it, {unchanged} stay\n", gained.len(), lost.len());
    for (sign, names) in [("+", gained), ("-", lost)] {
        for name in names.iter().take(MAX_NAMED) {
            text += &format!("  {sign} {name}\n");
        }
        if names.len() > MAX_NAMED {
            text += &format!("  {sign} and {} more\n", names.len() - MAX_NAMED);
        }
    }
    text
}

fn short(value: Option<&Value>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}... ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
