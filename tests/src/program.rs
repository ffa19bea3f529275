//! BpfPrograms on the local cluster, and what their status, the BpfNodes, the BpfNodeDetails and bpftool say of them.

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
                "attach": [{"type": "Node"}],
                "programs": [{"name": "my_prog"}],
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
            Ok(updated(&found) == nodes)
        })
        .with_context(|| format!("status: {:#}", found["status"]))?;
        Ok(found)
    }

    /// Waits until a node's BpfNodeDetail describes the same objects as its BpfNode, which is written more often, and
    /// returns that description.
    pub fn detail(&self, node: &str) -> Result<Value> {
        let mut found = Value::Null;
        wait_until(TIMEOUT, &format!("the detail of {} on {node}", self.0), || {
            let said = report(node, &self.0)?;
            found = detail(node, &self.0)?;
            Ok(describes(&found, &said))
        })
        .with_context(|| {
            format!("BpfNode: {:#}, BpfNodeDetail: {found:#}", report(node, &self.0).unwrap_or_default())
        })?;
        Ok(found)
    }

    /// Returns the BpfProgram's name.
    pub fn name(&self) -> &str {
        &self.0
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

/// Returns the nodes on which the latest accepted spec is in effect, of those on which it should be: "1/2".
pub fn updated(program: &Value) -> String {
    let nodes = &program["status"]["nodes"];
    format!("{}/{}", nodes["updated"], nodes["desired"])
}

/// Returns a node's entry from the status of a BpfProgram.
pub fn node_status<'a>(program: &'a Value, node: &str) -> Result<&'a Value> {
    let all = program["status"]["nodeStatuses"].as_array().context("no nodeStatuses")?;
    all.iter().find(|status| status["nodeName"] == node).with_context(|| format!("no status of {node}"))
}

/// Returns the entry of a BpfProgram from the status of a BpfNode.
pub fn report(node: &str, program: &str) -> Result<Value> {
    let status = json(&["get", "bpfnodes", node])?["status"].clone();
    let text = status["programs"][program].as_str().with_context(|| format!("bpfnodes/{node} lacks {program}"))?;
    Ok(serde_json::from_str(text)?)
}

/// Returns the entry of a BpfProgram from the status of a BpfNodeDetail, which may be ten seconds old.
pub fn detail(node: &str, program: &str) -> Result<Value> {
    let status = json(&["get", "bpfnodedetails", node])?["status"].clone();
    let mut all = status["programs"].as_array().into_iter().flatten();
    let found = all.find(|entry| entry["name"] == program).cloned();
    found.with_context(|| format!("bpfnodedetails/{node} lacks {program}"))
}

/// Returns whether a BpfNodeDetail's entry has the IDs and the number of links that the BpfNode's has.
fn describes(detail: &Value, said: &Value) -> bool {
    let ids = |kind: &str| sorted(detail[kind].as_array().into_iter().flatten().map(|object| &object["id"]));
    let listed = |kind: &str| sorted(said[kind].as_array().into_iter().flatten());
    let links = detail["links"].as_array().into_iter().flatten().filter(|link| link["inEffect"] == true).count();
    ids("programs") == listed("programIDs")
        && ids("maps") == listed("mapIDs")
        && links as u64 == said["links"].as_u64().unwrap_or_default()
}

fn sorted<'a>(ids: impl Iterator<Item = &'a Value>) -> Vec<u64> {
    let mut ids: Vec<u64> = ids.filter_map(Value::as_u64).collect();
    ids.sort_unstable();
    ids
}
