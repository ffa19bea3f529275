//! The statuses that the agent of a node writes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::Node;

impl Node {
    pub fn program(&self, name: &str) -> Value {
        self.yaml(&self.status_file(name))
    }

    /// Returns the status of the node's BpfNode.
    pub fn node_status(&self) -> Value {
        self.yaml(&self.folder.join("node.status.yaml"))["status"].clone()
    }

    fn status_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.status.yaml"))
    }

    /// Returns the contents of a file, which is parsed only if its text changed, since tests poll it.
    fn yaml(&self, path: &Path) -> Value {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut read = self.read.borrow_mut();
        let (before, value) = read.entry(path.to_owned()).or_default();
        if *before != text {
            *value = serde_saphyr::from_str(&text).unwrap_or_default();
            *before = text;
        }
        value.clone()
    }

    /// Returns the status of the node's BpfNodeDetail.
    pub fn node_detail(&self) -> Value {
        self.yaml(&self.folder.join("node.detail.status.yaml"))["status"].clone()
    }

    /// Returns the entry of a BpfProgram in the node's BpfNode.
    pub fn entry(&self, name: &str) -> Value {
        let text = self.node_status()["programs"][name].clone();
        text.as_str().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
    }

    /// Returns the entry of a BpfProgram in the node's BpfNodeDetail.
    pub fn details(&self, name: &str) -> Value {
        named(&self.node_detail()["programs"], name)
    }

    pub fn condition(&self, name: &str, type_: &str) -> Value {
        let all = self.program(name)["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }

    pub fn condition_is(&self, name: &str, type_: &str, status: &str) -> Value {
        self.until(&format!("{type_}={status}"), |node| {
            node.is_status_current(name) && node.condition(name, type_)["status"] == status
        });
        self.condition(name, type_)
    }

    pub fn ready(&self, name: &str) -> Value {
        self.condition_is(name, "Ready", "True");
        self.program(name)
    }

    /// Returns whether the agent reports that the kernel has a feature.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.node_status()["node"]["features"].as_array().is_some_and(|all| all.iter().any(|name| name == feature))
    }

    /// Returns the details of a BpfProgram, whose IDs must be those of the pinned objects in the kernel.
    pub fn verified_details(&self, name: &str) -> Value {
        let details = self.details(name);
        for (kind, ours) in [("prog", "programs"), ("map", "maps"), ("link", "links")] {
            let reported = details[ours].as_array().unwrap();
            assert!(!reported.is_empty(), "{details}");
            for object in reported {
                assert_eq!(object["id"], self.bpftool(&[kind, "show", "pinned", &self.pin(object)])["id"], "{details}");
            }
        }
        details
    }
}

/// Returns the item of a list that has a name.
fn named(list: &Value, name: &str) -> Value {
    list.as_array().into_iter().flatten().find(|item| item["name"] == name).cloned().unwrap_or_default()
}
