//! Objects with names of one test's own, and their number in the kernel. Leaks are found by these names, whatever else
//! runs on the machine.

use std::collections::BTreeMap;

use crate::node::Node;

/// A program name and a map name that nothing else uses.
pub struct Names {
    /// The name instead of `my_prog`.
    pub program: String,
    /// The name instead of `my_map`.
    pub map: String,
}

impl Names {
    /// Returns the names of the test with a letter of its own.
    pub fn new(letter: char) -> Self {
        let number = std::process::id() % 100_000;
        Self { program: format!("{letter}p{number:05}"), map: format!("{letter}{number:05}") }
    }

    /// Returns the object with these names instead of `my_prog` and `my_map`, which have the same lengths.
    pub fn in_object(&self, object: &[u8]) -> Vec<u8> {
        let replaced = replace(object, b"my_prog", self.program.as_bytes());
        replace(&replaced, b"my_map", self.map.as_bytes())
    }

    /// Returns the numbers of programs and maps with these names in the kernel.
    pub fn loaded(&self, node: &Node) -> (usize, usize) {
        let count = |kind: &str, name: &str| {
            let all = node.bpftool(&[kind, "show"]);
            all.as_array().map_or(0, |all| all.iter().filter(|one| one["name"] == name).count())
        };
        (count("prog", &self.program), count("map", &self.map))
    }
}

/// Replaces a name in the bytes by another one of the same length.
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

/// Returns the number of links on each of these cgroups, which belong to this test alone.
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
