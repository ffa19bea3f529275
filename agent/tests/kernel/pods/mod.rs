//! Pods: the cgroups that a target selects, and links that follow as pods come and go.
//!
//! The tests make the pods' cgroups as the kubelet and the runtime do. The agent reads the list of pods from a file.

mod elsewhere;
mod failures;
mod kept;
mod restarted;
mod selection;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use crate::node::{Node, is_emulated, timeout};

/// A node with pods.
struct Pods {
    node: Node,
    listed: RefCell<BTreeMap<String, Value>>,
    namespaces: RefCell<Vec<Value>>,
}

fn uid(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

fn container_id(pod: usize, container: &str) -> String {
    format!("{:0>64}", format!("{pod:x}{}", container.bytes().map(|b| format!("{b:x}")).collect::<String>()))
}

/// The cgroup driver of a kubelet, which names cgroups.
#[derive(Clone, Copy)]
enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    fn pod(self, n: usize) -> String {
        match self {
            Self::Cgroupfs => format!("/kubepods/burstable/pod{}", uid(n)),
            Self::Systemd => {
                let name = format!("kubepods-besteffort-pod{}.slice", uid(n).replace('-', "_"));
                format!("/kubepods.slice/kubepods-besteffort.slice/{name}")
            }
        }
    }

    fn container(self, n: usize, name: &str) -> String {
        let id = container_id(n, name);
        match self {
            Self::Cgroupfs => format!("{}/{id}", self.pod(n)),
            Self::Systemd => format!("{}/cri-containerd-{id}.scope", self.pod(n)),
        }
    }
}

/// Returns the target of the pods with a label `app`.
fn of_app(app: &str) -> Value {
    json!({"type": "Pods", "pods": {"podSelector": {"matchLabels": {"app": app}}}})
}

/// Asserts of the times that links took after several changes of one kind that the shortest is that of an event, not of
/// a poll of each two seconds. Any other may be long on a busy machine, and all are on an emulated processor.
fn assert_soon(times: impl IntoIterator<Item = Duration>) {
    let shortest = times.into_iter().min().unwrap();
    assert!(is_emulated() || shortest < timeout() / 20, "{shortest:?}");
}

impl Pods {
    fn new(name: &str) -> Self {
        let mut node = Node::new(name);
        let pods = node.folder().join("pods.json");
        fs::write(&pods, r#"{"items": []}"#).unwrap();
        node.start_with(&["--pods", &pods.display().to_string()]);
        Self { node, listed: RefCell::default(), namespaces: RefCell::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.node.cgroup().join(path.trim_start_matches('/'))
    }

    fn make_cgroup(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn remove_cgroup(&self, path: &str) {
        fs::remove_dir(self.path(path)).unwrap();
    }

    /// Adds a pod to the list, or replaces it.
    fn set_pod(&self, n: usize, namespace: &str, app: &str, containers: &[&str]) {
        let status = |name: &&str| {
            json!({
                "name": name, "containerID": format!("containerd://{}", container_id(n, name)),
                "image": "", "imageID": "", "ready": true, "restartCount": 0,
            })
        };
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": format!("pod-{n}"), "namespace": namespace, "uid": uid(n), "labels": {"app": app}},
            "status": {"containerStatuses": containers.iter().map(status).collect::<Vec<_>>()},
        });
        self.listed.borrow_mut().insert(uid(n), pod);
    }

    fn add_namespace(&self, name: &str, team: &str) {
        let labels = json!({"team": team, "kubernetes.io/metadata.name": name});
        self.namespaces.borrow_mut().push(json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
    }

    /// Makes a pod's cgroup, and adds the pod to the list: app web in namespace shop.
    fn add_pod(&self, driver: Driver, n: usize) {
        self.make_cgroup(&driver.pod(n));
        self.set_pod(n, "shop", "web", &[]);
        self.write_list();
    }

    fn write_list(&self) {
        let items: Vec<Value> = self.listed.borrow().values().chain(self.namespaces.borrow().iter()).cloned().collect();
        let staged = self.node.folder().join(".pods.json");
        fs::write(&staged, json!({"items": items}).to_string()).unwrap();
        fs::rename(staged, self.node.folder().join("pods.json")).unwrap();
    }

    fn apply(&self, name: &str, targets: &[Value]) {
        self.node.apply(name, TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": targets}]), json!([]));
    }

    /// Returns the cgroup paths of a BpfProgram's links, with pod and container.
    fn links(&self, name: &str) -> Vec<(String, Value, Value)> {
        let details = self.node.details(name);
        let links = details["links"].as_array().cloned().unwrap_or_default();
        let mut links: Vec<_> = links
            .into_iter()
            .filter(|link| link["inEffect"] == true)
            .map(|link| {
                (link["cgroupPath"].as_str().unwrap().to_owned(), link["pod"].clone(), link["container"].clone())
            })
            .collect();
        links.sort_by(|a, b| a.0.cmp(&b.0));
        links
    }

    /// Waits until the links are at these cgroups and no others.
    fn wait_for_links(&self, name: &str, mut paths: Vec<String>) {
        paths.sort();
        let found = || self.links(name).into_iter().map(|(path, ..)| path).collect::<Vec<_>>();
        self.node.until(&format!("links at {paths:?}"), |_| found() == paths);
    }

    /// Makes a change, waits for the links that follow from it, and returns the time that they took.
    fn time_to_links(&self, name: &str, change: impl FnOnce(), paths: Vec<String>) -> Duration {
        let start = Instant::now();
        change();
        self.wait_for_links(name, paths);
        start.elapsed()
    }

    /// Makes a change and undoes it, a few times, and asserts that links soon follow the change. Leaves it made.
    ///
    /// Each comes with the cgroup paths of the links that follow. The first time does not count: what only a poll of
    /// each two seconds finds may come just before one. It then comes just after one.
    fn links_soon_follow(&self, name: &str, change: (&dyn Fn(), &[String]), undo: (&dyn Fn(), &[String])) {
        self.time_to_links(name, change.0, change.1.to_vec());
        assert_soon([(); 3].map(|()| {
            self.time_to_links(name, undo.0, undo.1.to_vec());
            self.time_to_links(name, change.0, change.1.to_vec())
        }));
    }
}
