//! The manifests of a node: the folder from which its agent takes BpfPrograms.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::Node;

impl Node {
    /// Applies a manifest of deploy/examples, unchanged.
    pub fn apply_example(&self, name: &str, manifest: &str) -> u32 {
        let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
        self.apply_from(name, manifest["spec"]["bytecode"].clone(), manifest["spec"].clone())
    }

    /// Puts a manifest into the folder atomically, and returns its number.
    pub fn apply(&self, name: &str, object: &[u8], programs: Value, maps: Value) -> u32 {
        self.apply_spec(name, object, json!({"programs": programs, "maps": maps}))
    }

    /// Applies a manifest with these fields of the spec besides the bytecode.
    pub fn apply_spec(&self, name: &str, object: &[u8], spec: Value) -> u32 {
        self.apply_from(name, json!({"inline": STANDARD.encode(object)}), spec)
    }

    /// Applies a manifest with this bytecode.
    pub fn apply_from(&self, name: &str, bytecode: Value, mut spec: Value) -> u32 {
        let applied = {
            let mut all = self.applied.borrow_mut();
            let applied = all.entry(name.to_owned()).or_default();
            *applied += 1;
            *applied
        };
        spec["bytecode"] = bytecode;
        let manifest = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
            "metadata": {"name": name, "annotations": {"applied": applied.to_string()}},
            "spec": spec,
        });
        let staged = self.folder.join(format!(".{name}"));
        fs::write(&staged, manifest.to_string()).unwrap();
        fs::rename(staged, self.manifest(name)).unwrap();
        applied
    }

    /// Removes a manifest.
    pub fn withdraw(&self, name: &str) {
        fs::remove_file(self.manifest(name)).unwrap();
    }

    /// Removes a manifest, and waits until the agent has removed the BpfProgram.
    pub fn remove(&self, name: &str) {
        self.withdraw(name);
        self.until("its removal", |node| {
            let is_gone = node.entry(name).is_null() && !node.exists(&format!("{}/programs", node.home(name)));
            node.details(name).is_null() && (is_gone || node.is_retained(name))
        });
    }

    fn is_retained(&self, name: &str) -> bool {
        self.node_detail()["retained"].as_array().is_some_and(|all| all.iter().any(|m| m["program"] == name))
            && self.pins(name).iter().all(|pin| pin.starts_with("maps/"))
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    /// Returns whether the status is of the manifest that was applied last.
    pub fn is_status_current(&self, name: &str) -> bool {
        let number = self.applied.borrow()[name].to_string();
        self.program(name)["metadata"]["annotations"]["applied"] == number.as_str()
    }

    /// Returns whether the status is of the manifest with that number.
    pub fn is_status_of(&self, name: &str, number: u32) -> bool {
        self.program(name)["metadata"]["annotations"]["applied"] == number.to_string().as_str()
    }
}
