//! The manifests of a node: the folder from which its agent takes BpfPrograms.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::Node;

impl Node {
    /// Applies a manifest of deploy/examples, as it is.
    pub fn apply_example(&self, name: &str, manifest: &str) -> u32 {
        let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
        self.apply_from(name, manifest["spec"]["bytecode"].clone(), manifest["spec"].clone())
    }

    /// Puts a manifest into the folder, in one step; gives its number.
    pub fn apply(&self, name: &str, object: &[u8], programs: Value, maps: Value) -> u32 {
        self.apply_spec(name, object, json!({"programs": programs, "maps": maps}))
    }

    /// The same, with any fields of the spec but the bytecode.
    pub fn apply_spec(&self, name: &str, object: &[u8], spec: Value) -> u32 {
        self.apply_from(name, json!({"inline": STANDARD.encode(object)}), spec)
    }

    /// The same, with any bytecode.
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

    /// Takes a manifest away.
    pub fn withdraw(&self, name: &str) {
        fs::remove_file(self.manifest(name)).unwrap();
    }

    /// Takes a manifest away, and waits until the agent has done with it.
    pub fn remove(&self, name: &str) {
        self.withdraw(name);
        self.until("its end", |node| {
            let status = node.node_status();
            let named = status["programs"].as_array().is_some_and(|all| all.iter().any(|p| p["name"] == name));
            !named && !node.exists(&format!("{}/programs", node.home(name))) || node.is_retained(name)
        });
    }

    fn is_retained(&self, name: &str) -> bool {
        self.node_status()["retained"].as_array().is_some_and(|all| all.iter().any(|m| m["program"] == name))
            && self.pins(name).iter().all(|pin| pin.starts_with("maps/"))
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    /// Whether a status is about what was applied last.
    pub fn is_about(&self, name: &str) -> bool {
        let number = self.applied.borrow()[name].to_string();
        self.program(name)["metadata"]["annotations"]["applied"] == number.as_str()
    }

    /// Whether a manifest's status is about the one of that number.
    pub fn is_about_number(&self, name: &str, number: u32) -> bool {
        self.program(name)["metadata"]["annotations"]["applied"] == number.to_string().as_str()
    }
}
