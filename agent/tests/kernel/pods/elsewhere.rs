//! Pods whose cgroups are not where the kubelet's names below the given root say: they are found by their UIDs and
//! their containers' IDs, or reported.

use std::{
    fs,
    process::{Child, Command},
};

use serde_json::json;

use super::{Driver, Pods, assert_soon, container_id, of_app, uid};
use crate::node::Node;

const DRIVER: Driver = Driver::Cgroupfs;

/// A process in a cgroup, until it is dropped.
struct Process(Child);

impl Process {
    fn in_cgroup(pods: &Pods, path: &str) -> Self {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(pods.path(path).join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Adds a pod to the list of which a container runs, by the kubelet's word.
fn run_pod(pods: &Pods, n: usize, app: &str) {
    pods.set_pod(n, "shop", app, &["main"]);
    let mut listed = pods.listed.borrow_mut();
    listed.get_mut(&uid(n)).unwrap()["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    drop(listed);
    pods.write_list();
}

/// The kubelet of kind has the cgroup root /kubelet, and the agent is told nothing of it.
fn pods_are_found_below(name: &str, pods_root: &str, path: impl Fn(usize) -> String) {
    let pods = Pods::new(name);
    pods.make_cgroup(&path(1));
    let process = Process::in_cgroup(&pods, &path(1));
    run_pod(&pods, 1, "web");
    pods.apply("web", &[of_app("web")]);
    pods.wait_for_links("web", vec![path(1)]);
    pods.node.ready("web");
    // Others are then found as usual, by inotify.
    assert_soon([2, 3, 4].map(|n| {
        let come = || {
            pods.set_pod(n, "shop", "web", &[]);
            pods.write_list();
            pods.make_cgroup(&path(n));
        };
        pods.time_to_links("web", come, (1..=n).map(&path).collect())
    }));
    // The cgroup of all pods is known by them.
    pods.apply("all", &[json!({"type": "AllPods"})]);
    pods.wait_for_links("all", vec![pods_root.to_owned()]);
    pods.node.ready("all");
    drop(process);
    for name in ["web", "all"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn pods_below_another_cgroup_root_are_found_by_their_uids() {
    pods_are_found_below("kind", "/kubelet/kubepods", |n| format!("/kubelet{}", DRIVER.pod(n)));
    let systemd = |n| format!("/kubelet.slice{}", Driver::Systemd.pod(n).replace("/kubepods", "/kubelet-kubepods"));
    pods_are_found_below("kind-systemd", "/kubelet.slice/kubelet-kubepods.slice", systemd);
}

/// The name of the cgroup of a container outside of its pod's.
fn outside_name(pod: usize) -> String {
    let slice = format!("kubepods-burstable-pod{}.slice", uid(pod).replace('-', "_"));
    format!("{slice}:cri-containerd:{}", container_id(pod, "main"))
}

/// A runtime with another cgroup driver than the kubelet's puts containers below its own cgroup.
#[test]
fn containers_outside_their_pods_cgroups_are_found_by_their_ids() {
    let pods = Pods::new("mismatch");
    pods.make_cgroup(&DRIVER.pod(1));
    let outside = format!("/system.slice/containerd.service/{}", outside_name(1));
    pods.make_cgroup(&outside);
    let process = Process::in_cgroup(&pods, &outside);
    run_pod(&pods, 1, "web");
    pods.apply("web", &[of_app("web")]);
    pods.wait_for_links("web", vec![DRIVER.pod(1), outside.clone()]);
    pods.node.ready("web");
    let links = pods.links("web");
    assert!(links.iter().all(|(_, pod, _)| pod == "shop/pod-1"), "{links:?}");
    // A container that comes later is attached to at once, before the kubelet has said that it runs.
    pods.make_cgroup(&DRIVER.pod(2));
    pods.set_pod(2, "shop", "web", &[]);
    pods.write_list();
    pods.wait_for_links("web", vec![DRIVER.pod(1), outside.clone(), DRIVER.pod(2)]);
    let other = format!("/system.slice/containerd.service/{}", outside_name(2));
    let without = [DRIVER.pod(1), outside, DRIVER.pod(2)];
    let with = [&without[..], std::slice::from_ref(&other)].concat();
    pods.links_soon_follow("web", (&|| pods.make_cgroup(&other), &with), (&|| pods.remove_cgroup(&other), &without));
    pods.remove_cgroup(&other);
    pods.node.until("its end", |_| pods.links("web").len() == 3);
    drop(process);
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_selected_pod_that_is_nowhere_is_reported_with_the_setting() {
    let pods = Pods::new("nowhere");
    pods.make_cgroup(&DRIVER.pod(2));
    run_pod(&pods, 1, "web");
    run_pod(&pods, 2, "other");
    let process = Process::in_cgroup(&pods, &DRIVER.pod(2));
    pods.apply("web", &[of_app("web")]);
    pods.apply("other", &[of_app("other")]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "PodCgroupNotFound" && message.contains("shop/pod-1"), "{ready}");
    assert!(message.contains("cgroup.kubeletRoot"), "{ready}");
    pods.node.ready("other");
    // It ends, by the kubelet's word.
    pods.listed.borrow_mut().remove(&uid(1));
    pods.write_list();
    assert_eq!(pods.node.ready("web")["status"]["summary"]["pods"], 0);
    drop(process);
    for name in ["web", "other"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn a_missing_cgroup_of_all_pods_is_reported_with_the_setting() {
    let pods = Pods::new("all-elsewhere");
    pods.make_cgroup("/kubelet/kubepods");
    pods.apply("web", &[json!({"type": "AllPods"})]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "CgroupNotFound" && message.contains("cgroup.kubeletRoot"), "{ready}");
    // Once a pod runs, it says where.
    let elsewhere = format!("/kubelet{}", DRIVER.pod(1));
    pods.make_cgroup(&elsewhere);
    let process = Process::in_cgroup(&pods, &elsewhere);
    let says = |node: &Node, word: &str| node.condition("web", "Ready")["message"].to_string().contains(word);
    pods.node.until("where a pod runs", |node| says(node, &elsewhere));
    // The cgroup of all pods is there, and empty: a kubelet left it behind.
    pods.make_cgroup("/kubepods");
    pods.wait_for_links("web", vec!["/kubepods".to_owned()]);
    pods.node.until("the setting", |node| says(node, "AllPods: no process is in /kubepods"));
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "PodCgroupNotFound" && message.contains(&elsewhere), "{ready}");
    assert!(message.contains("cgroup.kubeletRoot"), "{ready}");
    pods.make_cgroup(&DRIVER.pod(2));
    let own = Process::in_cgroup(&pods, &DRIVER.pod(2));
    pods.node.ready("web");
    drop((process, own));
    pods.node.remove("web");
    pods.node.nothing_left();
}
