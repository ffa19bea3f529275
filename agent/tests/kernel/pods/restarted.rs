//! A newer revision fails, and the agent that brought its predecessor into effect is gone: the next one reads the
//! predecessor from the API server, and new pods get it.

use std::{fs, os::unix::fs::MetadataExt as _, sync::Arc};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use super::{Driver, Pods, of_app};
use crate::api_server::{Server, free_address, kubeconfig, name_of, revisions};

const DRIVER: Driver = Driver::Cgroupfs;

/// A node whose API server has a current revision that the verifier refuses, and a retired one that was in effect.
struct Restarted {
    pods: Pods,
    good: Value,
    bad: Value,
}

impl Restarted {
    /// Brings the good revision into effect at the first pod, and ends the agent.
    fn new(name: &str) -> Self {
        let pods = Pods::new(name);
        let apply = |object: &[u8], target: Value| {
            pods.node.apply("guard", object, json!([{"name": "my_prog", "attach": [target]}]), json!([]));
        };
        pods.add_pod(DRIVER, 1);
        apply(TCP_EVENTS_BTF, of_app("web"));
        pods.wait_for_links("guard", vec![DRIVER.pod(1)]);
        let mut restarted = Self { pods, good: Value::Null, bad: Value::Null };
        restarted.pods.node.stop("KILL");
        restarted.good = revisions(&restarted.pods.node)["guard"].clone();
        restarted.good["spec"]["state"] = json!("Retired");
        // It selects no pod: what must be known of pods follows from the good one.
        let target = json!({"type": "CgroupPath", "cgroupPath": "/"});
        let programs = json!([{"name": "my_prog", "attach": [target]}]);
        restarted.pods.node.apply("guard", fixtures::REFUSED, programs, json!([]));
        restarted.bad = revisions(&restarted.pods.node)["guard"].clone();
        restarted
    }

    /// Starts an agent of the cluster. The BpfNode has this entry of the BpfProgram.
    fn start(&mut self, entry: Option<Value>, retired: Option<&Value>) -> Arc<Server> {
        let at = free_address();
        let mut objects = Server::objects_of_node([&self.bad].into_iter().chain(retired).cloned().collect());
        let pod = |pod: &Value| {
            let mut pod = pod.clone();
            pod["metadata"]["resourceVersion"] = json!("1");
            pod
        };
        objects.insert("pods", self.pods.listed.borrow().values().map(pod).collect());
        if let Some(entry) = entry {
            let status = json!({"node": {}, "counts": {}, "programs": {"guard": entry.to_string()}});
            objects.get_mut("bpfnodes").unwrap()[0]["status"] = status;
        }
        let server = Server::with(at, objects, &[TCP_EVENTS_BTF, fixtures::REFUSED]);
        self.pods.node.start_in_cluster(&kubeconfig(&self.pods.node, at), "node");
        server
    }

    /// Returns whether the good program is attached to a pod.
    fn guards(&self, n: usize) -> bool {
        let Ok(cgroup) = fs::metadata(self.pods.path(&DRIVER.pod(n))) else { return false };
        let link = format!("{}/links/my_prog/{}", self.pods.node.home("guard"), cgroup.ino());
        self.pods.node.exists(&link) && !self.pods.node.attached_below(&DRIVER.pod(n)[1..]).is_empty()
    }

    /// Waits until the BpfNode says this of the BpfProgram.
    fn until_reported(&self, server: &Server, what: impl Fn(&Value) -> bool) {
        self.pods.node.until("the report", |_| {
            let patch: Value = serde_json::from_str(&server.last_status.lock().unwrap()).unwrap_or_default();
            let entry = patch[0]["value"]["programs"]["guard"].as_str().unwrap_or("null").to_owned();
            what(&serde_json::from_str(&entry).unwrap())
        });
    }

    fn end(mut self) {
        self.pods.node.stop("KILL");
        let list = self.pods.node.folder().join("pods.json");
        self.pods.node.start_with(&["--pods", &list.display().to_string()]);
        self.pods.node.remove("guard");
        self.pods.node.nothing_left();
    }
}

#[test]
fn after_a_restart_of_the_agent_new_pods_get_the_known_good_revision() {
    let mut restarted = Restarted::new("restarted");
    restarted.pods.set_pod(2, "shop", "web", &[]);
    let good = restarted.good.clone();
    let server = restarted.start(None, Some(&good));
    let name = name_of(&good);
    restarted.until_reported(&server, |entry| entry["revision"] == name && entry["reason"] == "VerifierRejected");
    restarted.pods.make_cgroup(&DRIVER.pod(2));
    restarted.pods.node.until("a guard at the new pod", |_| restarted.guards(2));
    assert!(restarted.guards(1));
    restarted.end();
}

#[test]
fn after_a_reboot_pods_get_the_known_good_revision_that_the_bpf_node_names() {
    let mut restarted = Restarted::new("rebooted");
    let home = restarted.pods.node.home("guard");
    restarted.pods.node.run("rm", &["-r", &home]);
    restarted.pods.node.until("that nothing is attached", |_| !restarted.guards(1));
    let good = restarted.good.clone();
    let uid = &good["spec"]["programRef"]["uid"];
    let entry = json!({"uid": uid, "revision": name_of(&good), "state": "Attached"});
    let server = restarted.start(Some(entry), Some(&good));
    restarted.pods.node.until("a guard", |_| restarted.guards(1));
    let name = name_of(&good);
    restarted.until_reported(&server, |entry| entry["revision"] == name && entry["reason"] == "VerifierRejected");
    restarted.end();
}

#[test]
fn a_known_good_revision_that_is_gone_stays_attached_and_its_absence_is_reported() {
    let mut restarted = Restarted::new("forgotten");
    let server = restarted.start(None, None);
    let name = name_of(&restarted.good).to_owned();
    restarted.until_reported(&server, |entry| {
        let message = entry["message"].as_str().unwrap_or_default();
        entry["revision"] == name && message.contains(&format!("{name} stays where it is attached, and no new pod"))
    });
    assert!(restarted.guards(1));
    restarted.end();
}
