//! The bpffs of a node: pins, notes, and the contents of pinned maps.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::Node;

impl Node {
    pub const fn bpffs(&self) -> &'static str {
        "/sys/fs/bpf"
    }

    pub fn home(&self, name: &str) -> String {
        format!("{}/sockeye/{name}", self.bpffs())
    }

    pub fn pin(&self, object: &Value) -> String {
        object["pinPath"].as_str().unwrap().to_owned()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.outer_path(path).exists()
    }

    /// Returns a path of the node as this process sees it. Tests poll paths often, and this needs no new process.
    pub fn outer_path(&self, path: &str) -> PathBuf {
        let holder = self.holder.as_ref().map_or_else(|| "self".to_owned(), |holder| holder.id().to_string());
        PathBuf::from(format!("/proc/{holder}/root{path}"))
    }

    /// Returns the pins below a BpfProgram's home, without notes.
    pub fn pins(&self, name: &str) -> Vec<String> {
        let home = self.outer_path(&self.home(name));
        let found = Command::new("find").arg(&home).args(["-type", "f"]).output().unwrap();
        let relative = |pin: &str| Path::new(pin).strip_prefix(&home).unwrap().display().to_string();
        let mut pins: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(relative).collect();
        pins.sort();
        pins
    }

    /// Returns the notes below a BpfProgram's home.
    pub fn notes(&self, name: &str) -> Vec<String> {
        let meta = self.outer_path(&format!("{}/_meta", self.home(name)));
        fs::read_dir(meta).into_iter().flatten().flatten().map(|e| e.file_name().into_string().unwrap()).collect()
    }

    /// Loads and pins the program of an object with bpftool, so that it is foreign to the agent.
    pub fn foreign_program(&self, object: &[u8], pin: &str) {
        assert!(self.loads_foreign(object, pin), "bpftool can't load it");
    }

    /// Does the same, and returns false if libbpf or the kernel refuse the program.
    pub fn loads_foreign(&self, object: &[u8], pin: &str) -> bool {
        let file = self.folder.join("foreign.o");
        fs::write(&file, object).unwrap();
        self.bpftool_succeeds(&["prog", "load", &file.display().to_string(), pin])
    }

    /// Returns the counts of `my_map`, by event.
    pub fn events(&self, name: &str) -> Vec<u64> {
        self.counts(&["pinned", &format!("{}/maps/my_map", self.home(name))])
    }

    /// Returns the values of a map that bpftool finds by these arguments.
    pub fn counts(&self, map: &[&str]) -> Vec<u64> {
        let dump = self.bpftool(&[&["map", "dump"], map].concat());
        let number = |bytes: &Value| {
            let bytes = bytes.as_array().unwrap().iter().rev();
            bytes.fold(0u64, |n, b| {
                n << 8 | u64::from_str_radix(b.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
            })
        };
        dump.as_array().unwrap().iter().map(|entry| number(&entry["value"])).collect()
    }

    /// Returns the entries of a map as bpftool formats them by their BTF types: `key` and `value` of each.
    pub fn entries(&self, name: &str, map: &str) -> Vec<Value> {
        let dump = self.bpftool(&["map", "dump", "pinned", &format!("{}/maps/{map}", self.home(name))]);
        dump.as_array().unwrap().iter().map(|entry| entry["formatted"].clone()).collect()
    }
}
