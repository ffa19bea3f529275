//! BpfPrograms on the local cluster, and what their status, the BpfNodes and bpftool say of them.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{TIMEOUT, bpftool, condition, json, kubectl, repo, wait_until};

/// A BpfProgram that is deleted when the test ends.
pub struct TestProgram(String);

impl TestProgram {
    /// The index at which `my_map` counts connections made from the cgroup.
    pub const ACTIVE: usize = 4;

    /// Applies the example of the README.
    pub fn example() -> Result<Self> {
        let path = repo().join("deploy/examples/bpfprogram.yaml");
        kubectl(&["apply", "-f", &path.display().to_string()])?;
        Ok(Self("tcp-events".to_owned()))
    }

    /// Applies a BpfProgram that attaches `my_prog` to the node; `more` replaces fields of its spec.
    pub fn apply(name: &str, object: &[u8], more: Value) -> Result<Self> {
        let applied = Self(name.to_owned());
        applied.edit(object, more)?;
        Ok(applied)
    }

    /// Applies another spec, made in the same way.
    pub fn edit(&self, object: &[u8], more: Value) -> Result<()> {
        let mut manifest = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": self.0},
            "spec": {
                "bytecode": {"inline": STANDARD.encode(object)},
                "programs": [{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}],
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest["spec"][key] = value.clone();
        }
        let file = repo().join(format!("target/cluster/{}.json", self.0));
        std::fs::write(&file, manifest.to_string())?;
        kubectl(&["apply", "-f", &file.display().to_string()])?;
        Ok(())
    }

    /// Gets the BpfProgram from the API server.
    pub fn get(&self) -> Result<Value> {
        json(&["get", "bpfprograms.sockeye.dev", &self.0])
    }

    /// Waits until a condition has that status and observed the latest generation.
    pub fn condition_is(&self, type_: &str, status: &str) -> Result<Value> {
        let mut found = Value::Null;
        let waited = wait_until(TIMEOUT, &format!("{} of {}: {status}", type_, self.0), || {
            found = self.get()?;
            let generation = &found["metadata"]["generation"];
            Ok(condition(&found, type_)
                .is_some_and(|c| c["status"] == status && c["observedGeneration"] == *generation))
        });
        waited.with_context(|| format!("status: {:#}", found["status"]))?;
        Ok(found)
    }

    /// Waits until the BpfProgram is Ready on so many nodes ("2/2").
    pub fn ready_on(&self, nodes: &str) -> Result<Value> {
        let mut found = Value::Null;
        wait_until(TIMEOUT, &format!("{} on {nodes}", self.0), || {
            found = self.condition_is("Ready", "True")?;
            Ok(found["status"]["summary"]["nodes"] == nodes)
        })
        .with_context(|| format!("status: {:#}", found["status"]))?;
        Ok(found)
    }

    /// Returns the directory of its pins on bpffs.
    pub fn home(&self) -> String {
        format!("/sys/fs/bpf/sockeye/{}", self.0)
    }

    /// Returns what bpftool prints of a pin.
    pub fn pin(&self, node: &str, kind: &str, below: &str) -> Result<Value> {
        bpftool(node, &[kind, "show", "pinned", &format!("{}/{below}", self.home())])
    }

    /// Returns the values of `my_map` on a node.
    pub fn counts(&self, node: &str) -> Result<Vec<u64>> {
        let dump = bpftool(node, &["map", "dump", "pinned", &format!("{}/maps/my_map", self.home())])?;
        let entries = dump.as_array().context("no entries")?;
        Ok(entries.iter().map(|entry| little_endian(&entry["value"])).collect())
    }
}

impl Drop for TestProgram {
    fn drop(&mut self) {
        let gone = kubectl(&["delete", "bpfprograms.sockeye.dev", &self.0, "--ignore-not-found", "--timeout=30s"]);
        if let Err(error) = gone {
            eprintln!("{} could not be deleted: {error:#}", self.0);
        }
    }
}

fn little_endian(bytes: &Value) -> u64 {
    let digits = bytes.as_array().into_iter().flatten().rev().filter_map(Value::as_str);
    digits.fold(0, |n, byte| n << 8 | u64::from_str_radix(byte.trim_start_matches("0x"), 16).unwrap_or_default())
}

/// Returns a node's placement from the status of a BpfProgram.
pub fn placement<'a>(program: &'a Value, node: &str) -> Result<&'a Value> {
    let all = program["status"]["placements"].as_array().context("no placements")?;
    all.iter().find(|p| p["node"] == node).with_context(|| format!("no placement on {node}"))
}

/// Returns the details of a BpfProgram from the status of a BpfNode.
pub fn details(node: &str, program: &str) -> Result<Value> {
    let status = json(&["get", "bpfnodes", node])?["status"].clone();
    let all = status["details"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|d| d["name"] == program).with_context(|| format!("BpfNode {node} says nothing of {program}"))
}
