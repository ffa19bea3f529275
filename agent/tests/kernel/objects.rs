//! Objects whose names are this test's own, and what of them there is in the kernel: leaks are told by these names, whatever
//! else runs on the machine.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::node::Node;

/// A program and a map name that nobody else has.
pub struct Names {
    /// Instead of `my_prog`.
    pub program: String,
    /// Instead of `my_map`.
    pub map: String,
}

impl Names {
    /// For a test, told apart by a letter.
    pub fn new(letter: char) -> Self {
        let number = std::process::id() % 100_000;
        Self { program: format!("{letter}p{number:05}"), map: format!("{letter}{number:05}") }
    }

    /// The object with these names instead of `my_prog` and `my_map`, which are as long.
    pub fn in_object(&self, object: &[u8]) -> Vec<u8> {
        let replaced = replace(object, b"my_prog", self.program.as_bytes());
        replace(&replaced, b"my_map", self.map.as_bytes())
    }

    /// How many programs and maps of these names the kernel has.
    pub fn loaded(&self, node: &Node) -> (usize, usize) {
        let count = |kind: &str, name: &str| {
            let all = node.bpftool(&[kind, "show"]);
            all.as_array().map_or(0, |all| all.iter().filter(|one| one["name"] == name).count())
        };
        (count("prog", &self.program), count("map", &self.map))
    }
}

/// The bytes with another name, as long, in place of one.
pub fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// The node's links, by the cgroup that each is on: those of this test, since its cgroups are its own.
pub fn links(node: &Node, cgroups: &[u64]) -> BTreeMap<u64, usize> {
    let all = node.bpftool_of_all("link");
    let mut links = BTreeMap::new();
    for link in all.as_array().map(Vec::as_slice).unwrap_or_default() {
        if let Some(cgroup) = link["cgroup_id"].as_u64().filter(|id| cgroups.contains(id)) {
            *links.entry(cgroup).or_default() += 1;
        }
    }
    links
}

/// What a status says of one BpfProgram in one line, without what changes with every load.
pub fn entry(node: &Node, name: &str) -> Value {
    let status = node.node_status();
    let all = status["programs"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|program| program["name"] == name).unwrap_or_default()
}
