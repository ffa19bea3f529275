//! Pods: which cgroups a target picks, and how links follow as pods come and go. The pods' cgroups are made here as the
//! kubelet and the runtime make them, and the agent is told of the pods by a file, as it is by the API server elsewhere.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use crate::node::{Node, long, patience};

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

/// How a kubelet's cgroup driver names things.
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

    fn make(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn unmake(&self, path: &str) {
        fs::remove_dir(self.path(path)).unwrap();
    }

    /// Tells the agent of a pod, or of another one in its place.
    fn list(&self, n: usize, namespace: &str, app: &str, containers: &[&str]) {
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

    fn namespace(&self, name: &str, team: &str) {
        let labels = json!({"team": team, "kubernetes.io/metadata.name": name});
        self.namespaces.borrow_mut().push(json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
    }

    /// Makes a pod's cgroup, and tells the agent of it: one of shop's web.
    fn come(&self, driver: Driver, n: usize) {
        self.make(&driver.pod(n));
        self.list(n, "shop", "web", &[]);
        self.tell();
    }

    fn tell(&self) {
        let items: Vec<Value> = self.listed.borrow().values().chain(self.namespaces.borrow().iter()).cloned().collect();
        let staged = self.node.folder().join(".pods.json");
        fs::write(&staged, json!({"items": items}).to_string()).unwrap();
        fs::rename(staged, self.node.folder().join("pods.json")).unwrap();
    }

    fn apply(&self, name: &str, targets: &[Value]) {
        let attach: Vec<Value> = targets.iter().map(|target| json!({"cgroup": target})).collect();
        self.node.apply(name, TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": attach}]), json!([]));
    }

    /// Where a BpfProgram's links are, with whose cgroup that is.
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

    /// Waits until the links are at these cgroups, and at no others.
    fn linked(&self, name: &str, mut paths: Vec<String>) {
        paths.sort();
        let found = || self.links(name).into_iter().map(|(path, ..)| path).collect::<Vec<_>>();
        self.node.until(&format!("links at {paths:?}"), |_| found() == paths);
    }

    /// The same, and soon.
    fn follows(&self, name: &str, paths: Vec<String>) {
        let start = Instant::now();
        self.linked(name, paths);
        assert!(start.elapsed() < patience() / 20, "{:?}", start.elapsed());
    }
}

#[test]
fn pods_are_picked_and_followed_under_both_cgroup_drivers() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let pods = Pods::new("picked");
        pods.apply("web", &[json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}})]);
        let of_team =
            json!({"scope": "Pods", "namespaceSelector": {"matchLabels": {"team": "a"}}, "containers": ["app"]});
        pods.apply("team", &[of_team]);
        // Attached where it can be: nothing is wrong on a node that has no such pod.
        for name in ["web", "team"] {
            pods.node.ready(name);
            assert_eq!(pods.node.details(name)["links"], Value::Null);
        }
        pods.namespace("shop", "a");
        for (n, namespace, app) in [(1, "shop", "web"), (2, "bank", "web"), (3, "shop", "db")] {
            for container in ["app", "proxy", "sandbox"] {
                pods.make(&driver.container(n, container));
            }
            pods.list(n, namespace, app, &["app", "proxy"]);
        }
        pods.tell();
        pods.follows("web", vec![driver.pod(1), driver.pod(2)]);
        pods.follows("team", vec![driver.container(1, "app"), driver.container(3, "app")]);
        assert_eq!(pods.links("web")[0].1, "shop/pod-1");
        assert_eq!((&pods.links("team")[1].1, &pods.links("team")[1].2), (&json!("shop/pod-3"), &json!("app")));
        pods.node.until("its placement", |node| {
            let placement = &node.program("web")["status"]["placements"][0];
            placement["cgroups"] == 2 && placement["pods"] == json!(["bank/pod-2", "shop/pod-1"])
        });

        // Labels change; a pod is evicted, cgroups first; a container is started again under another ID.
        pods.list(3, "shop", "web", &["app", "proxy"]);
        pods.tell();
        pods.follows("web", vec![driver.pod(1), driver.pod(2), driver.pod(3)]);
        for container in ["app", "proxy", "sandbox"] {
            pods.unmake(&driver.container(2, container));
        }
        pods.unmake(&driver.pod(2));
        pods.follows("web", vec![driver.pod(1), driver.pod(3)]);
        pods.unmake(&driver.container(1, "app"));
        pods.follows("team", vec![driver.container(3, "app")]);
        pods.make(&driver.container(1, "app"));
        pods.follows("team", vec![driver.container(1, "app"), driver.container(3, "app")]);
        pods.node.ready("web");
        pods.node.agrees("team");

        // The node's root holds all of them: one link, and nothing counts twice.
        pods.apply("web", &[json!({"scope": "Pods", "podSelector": {}}), json!({"scope": "Node"})]);
        pods.linked("web", vec!["/".to_owned()]);
        pods.node.connect(3);
        assert_eq!(pods.node.events("web")[4], 3);
        for name in ["web", "team"] {
            pods.node.remove(name);
        }
        pods.node.nothing_left();
    }
}

#[test]
fn what_is_refused_at_one_pod_keeps_nothing_from_the_others() {
    let pods = Pods::new("refused-pod");
    let driver = Driver::Cgroupfs;
    for n in 1..4 {
        pods.come(driver, n);
    }
    // Someone has taken the second for himself.
    pods.node.foreign_program(TCP_EVENTS_BTF, "/sys/fs/bpf/foreign");
    let second = pods.path(&driver.pod(2)).display().to_string();
    pods.node.run("bpftool", &["cgroup", "attach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.apply("web", &[json!({"scope": "Pods", "podSelector": {}})]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "AttachRefused" && message.contains(&driver.pod(2)), "{ready}");
    pods.linked("web", vec![driver.pod(1), driver.pod(3)]);
    // One that comes meanwhile is attached at once.
    pods.come(driver, 4);
    pods.follows("web", vec![driver.pod(1), driver.pod(3), driver.pod(4)]);
    pods.node.run("bpftool", &["cgroup", "detach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.linked("web", (1..5).map(|n| driver.pod(n)).collect());
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

/// An edit of places alone, which loads nothing.
#[test]
fn an_edit_that_is_refused_at_each_new_pod_leaves_the_places_before() {
    let pods = Pods::new("refused-edit");
    let driver = Driver::Cgroupfs;
    for (n, app) in [(1, "web"), (2, "other")] {
        pods.make(&driver.pod(n));
        pods.list(n, "default", app, &[]);
    }
    pods.tell();
    pods.node.foreign_program(TCP_EVENTS_BTF, "/sys/fs/bpf/foreign");
    let second = pods.path(&driver.pod(2)).display().to_string();
    pods.node.run("bpftool", &["cgroup", "attach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    let of = |app: &str| [json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": app}}})];
    pods.apply("web", &of("web"));
    pods.linked("web", vec![driver.pod(1)]);
    pods.node.ready("web");
    pods.apply("web", &of("other"));
    let ready = pods.node.condition_is("web", "Ready", "False");
    assert_eq!(ready["reason"], "AttachRefused", "{ready}");
    pods.linked("web", vec![driver.pod(1)]);
    pods.node.run("bpftool", &["cgroup", "detach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.linked("web", vec![driver.pod(2)]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn what_ran_before_a_revision_that_fails_goes_on() {
    let pods = Pods::new("goes-on");
    let driver = Driver::Cgroupfs;
    let attach = json!([{"cgroup": {"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}}}]);
    let apply =
        |object: &[u8]| pods.node.apply("web", object, json!([{"name": "my_prog", "attach": attach}]), json!([]));
    pods.come(driver, 1);
    apply(TCP_EVENTS_BTF);
    pods.linked("web", vec![driver.pod(1)]);
    let program = pods.node.ready("web")["status"]["programIDs"].clone();
    let told = |pods: &Pods| {
        let drift = pods.node.details("web")["drift"].as_array().cloned().unwrap_or_default();
        let detached = drift.iter().filter(|drift| drift["kind"] == "LinkDetached");
        detached.map(|drift| drift["count"].as_u64().unwrap()).sum::<u64>()
    };
    for bad in [fixtures::REFUSED, fixtures::RESHAPED] {
        apply(bad);
        pods.node.condition_is("web", "Ready", "False");
        let n = pods.links("web").len() + 1;
        pods.come(driver, n);
        pods.follows("web", (1..=n).map(|n| driver.pod(n)).collect());
        // What others undo is repaired and told as ever; the moment in which the newer one is loading is not looked into.
        let before = told(&pods);
        let seen = (0..3).any(|_| {
            let link = pods.node.details("web")["links"][0].clone();
            pods.node.run("bpftool", &["link", "detach", "pinned", &pods.node.pin(&link)]);
            let repaired = |node: &Node| {
                node.details("web")["links"].as_array().is_some_and(|links| links.iter().all(|l| l["id"] != link["id"]))
            };
            pods.node.until("another link", repaired);
            pods.linked("web", (1..=n).map(|n| driver.pod(n)).collect());
            told(&pods) > before
        });
        assert!(seen, "{}", pods.node.details("web"));
        assert_eq!(pods.node.program("web")["status"]["programIDs"], program, "the one that ran before");
    }
    apply(TCP_EVENTS_BTF);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_place_that_is_not_there_keeps_nothing_from_pods_and_is_seen_when_it_comes() {
    let pods = Pods::new("place");
    let driver = Driver::Cgroupfs;
    let place = "/web.service".to_owned();
    pods.make(&place);
    pods.apply("web", &[json!({"scope": "Path", "path": place}), json!({"scope": "Pods", "podSelector": {}})]);
    pods.linked("web", vec![place.clone()]);
    for n in 1..3 {
        pods.unmake(&place);
        let ready = pods.node.condition_is("web", "Ready", "False");
        assert!(ready["reason"] == "CgroupNotFound" && ready["message"].as_str().unwrap().contains(&place), "{ready}");
        pods.come(driver, n);
        pods.follows("web", (1..=n).map(|n| driver.pod(n)).collect());
        // Long enough that it is not the next attempt that finds it.
        std::thread::sleep(Duration::from_secs(8));
        pods.make(&place);
        let start = Instant::now();
        pods.linked("web", (1..=n).map(|n| driver.pod(n)).chain([place.clone()]).collect());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        pods.node.ready("web");
    }
    // What is to be elsewhere stays where it is until that is there.
    let elsewhere = "/db.service".to_owned();
    pods.apply("web", &[json!({"scope": "Path", "path": elsewhere})]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let said = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "CgroupNotFound" && said.ends_with("keeps running there"), "{ready}");
    let all: Vec<String> = (1..3).map(|n| driver.pod(n)).chain([place.clone()]).collect();
    pods.linked("web", all.clone());
    std::thread::sleep(Duration::from_secs(3));
    pods.linked("web", all);
    pods.make(&elsewhere);
    pods.linked("web", vec![elsewhere]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_driver_that_was_changed_leaves_an_empty_root() {
    let pods = Pods::new("driver");
    pods.make("/kubepods.slice/kubepods-besteffort.slice");
    pods.come(Driver::Cgroupfs, 1);
    pods.apply("web", &[json!({"scope": "Pods", "podSelector": {}})]);
    pods.apply("all", &[json!({"scope": "Pods"})]);
    pods.linked("web", vec![Driver::Cgroupfs.pod(1)]);
    pods.linked("all", vec!["/kubepods".to_owned()]);
    for name in ["web", "all"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn containers_of_an_attached_pod_are_seen_from_their_first_connection() {
    let pods = Pods::new("first");
    let pod = Driver::Cgroupfs.pod(1);
    pods.make(&pod);
    pods.list(1, "shop", "web", &[]);
    pods.tell();
    pods.apply("web", &[json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}})]);
    pods.linked("web", vec![pod.clone()]);
    let containers = if long() { 10_000 } else { 1000 };
    pods.node.connect_in_new_cgroups(&pods.path(&pod), containers);
    // The listener is outside: it has no part in it.
    assert_eq!(pods.node.events("web")[4], containers as u64);
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_thousand_pods_come_and_go_and_leave_nothing() {
    let pods = Pods::new("thousand");
    let driver = Driver::Cgroupfs;
    pods.make("/kubepods/burstable");
    for (name, containers) in [("pods", json!([])), ("containers", json!(["app"]))] {
        pods.apply(
            name,
            &[json!({"scope": "Pods", "podSelector": {"matchLabels": {"app": "web"}}, "containers": containers})],
        );
        pods.node.ready(name);
    }
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", pods.node.process())).unwrap().count();
    let before = descriptors();
    let (rounds, at_once) = (if long() { 200 } else { 20 }, 50);
    for round in 0..rounds {
        let these = round * at_once..(round + 1) * at_once;
        for n in these.clone() {
            pods.list(n, "shop", "web", &["app"]);
        }
        pods.tell();
        for n in these.clone() {
            pods.make(&driver.container(n, "app"));
        }
        pods.node.until("all links", |node| {
            ["pods", "containers"].iter().all(|name| node.details(name)["cgroups"] == at_once)
        });
        for n in these.clone() {
            pods.unmake(&driver.container(n, "app"));
            pods.unmake(&driver.pod(n));
        }
        // Some of them go with the agent away: it finds dead links when it starts.
        pods.listed.borrow_mut().clear();
        pods.tell();
        pods.node.until("no link", |node| {
            ["pods", "containers"].iter().all(|name| node.details(name)["cgroups"] == Value::Null)
        });
    }
    for name in ["pods", "containers"] {
        pods.node.ready(name);
        let left: Vec<String> = pods.node.pins(name).into_iter().filter(|pin| pin.starts_with("links/")).collect();
        assert_eq!(left, Vec::<String>::new());
        let notes = pods.node.notes(name);
        assert!(!notes.iter().any(|note| note.starts_with("cgroup~")), "{notes:?}");
    }
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    for name in ["pods", "containers"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn links_whose_cgroups_died_while_no_agent_ran_are_collected_at_start() {
    let mut pods = Pods::new("collected");
    let driver = Driver::Cgroupfs;
    for n in 1..3 {
        pods.come(driver, n);
    }
    pods.apply("web", &[json!({"scope": "Pods", "podSelector": {}})]);
    pods.linked("web", vec![driver.pod(1), driver.pod(2)]);
    pods.node.stop("KILL");
    pods.unmake(&driver.pod(2));
    let list = pods.node.folder().join("pods.json").display().to_string();
    pods.node.start_with(&["--pods", &list]);
    pods.linked("web", vec![driver.pod(1)]);
    pods.node.until("one pin", |node| node.pins("web").iter().filter(|pin| pin.starts_with("links/")).count() == 1);
    // What can't be listed any more keeps what is there.
    fs::write(&list, "no list").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    pods.linked("web", vec![driver.pod(1)]);
    pods.node.stop("KILL");
    pods.node.start_with(&["--pods", &list]);
    pods.node.until("its word", |node| {
        node.details("web")["message"].as_str().is_some_and(|m| m.contains("can't be listed"))
    });
    pods.linked("web", vec![driver.pod(1)]);
    // And what can be listed again is followed again.
    pods.make(&driver.pod(2));
    pods.tell();
    pods.follows("web", vec![driver.pod(1), driver.pod(2)]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}
