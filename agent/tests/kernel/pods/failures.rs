//! Failures at one pod, of one path or of one revision: everything else stays attached.

use std::time::{Duration, Instant};

use serde_json::json;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use super::{Driver, Pods, assert_soon, of_app};
use crate::node::Node;

#[test]
fn a_refusal_at_one_pod_does_not_affect_the_others() {
    let pods = Pods::new("refused-pod");
    let driver = Driver::Cgroupfs;
    for n in 1..4 {
        pods.add_pod(driver, n);
    }
    // A foreign program excludes others from the second pod.
    pods.node.foreign_program(TCP_EVENTS_BTF, "/sys/fs/bpf/foreign");
    let second = pods.path(&driver.pod(2)).display().to_string();
    pods.node.run("bpftool", &["cgroup", "attach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.apply("web", &[json!({"type": "Pods", "pods": {"podSelector": {}}})]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "AttachFailed" && message.contains(&driver.pod(2)), "{ready}");
    pods.wait_for_links("web", vec![driver.pod(1), driver.pod(3)]);
    // A pod that comes meanwhile is attached at once.
    assert_soon([4, 5, 6].map(|n| {
        let others = [1].into_iter().chain(3..=n);
        pods.time_to_links("web", || pods.add_pod(driver, n), others.map(|n| driver.pod(n)).collect())
    }));
    pods.node.run("bpftool", &["cgroup", "detach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.wait_for_links("web", (1..7).map(|n| driver.pod(n)).collect());
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

/// The edit changes targets only, and loads nothing.
#[test]
fn an_edit_refused_at_every_new_pod_keeps_the_old_links() {
    let pods = Pods::new("refused-edit");
    let driver = Driver::Cgroupfs;
    for (n, app) in [(1, "web"), (2, "other")] {
        pods.make_cgroup(&driver.pod(n));
        pods.set_pod(n, "default", app, &[]);
    }
    pods.write_list();
    pods.node.foreign_program(TCP_EVENTS_BTF, "/sys/fs/bpf/foreign");
    let second = pods.path(&driver.pod(2)).display().to_string();
    pods.node.run("bpftool", &["cgroup", "attach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    let of = |app: &str| [of_app(app)];
    pods.apply("web", &of("web"));
    pods.wait_for_links("web", vec![driver.pod(1)]);
    pods.node.ready("web");
    pods.apply("web", &of("other"));
    let ready = pods.node.condition_is("web", "Ready", "False");
    assert_eq!(ready["reason"], "AttachFailed", "{ready}");
    pods.wait_for_links("web", vec![driver.pod(1)]);
    pods.node.run("bpftool", &["cgroup", "detach", &second, "sock_ops", "pinned", "/sys/fs/bpf/foreign"]);
    pods.wait_for_links("web", vec![driver.pod(2)]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn the_known_good_revision_keeps_running_while_a_newer_one_fails() {
    let pods = Pods::new("goes-on");
    let driver = Driver::Cgroupfs;
    let attach = json!([of_app("web")]);
    let apply =
        |object: &[u8]| pods.node.apply("web", object, json!([{"name": "my_prog", "attach": attach}]), json!([]));
    pods.add_pod(driver, 1);
    apply(TCP_EVENTS_BTF);
    pods.wait_for_links("web", vec![driver.pod(1)]);
    let program = pods.node.ready("web")["status"]["programIDs"].clone();
    let detachments = |pods: &Pods| {
        let drift = pods.node.entry("web")["drift"].as_array().cloned().unwrap_or_default();
        let detached = drift.iter().filter(|drift| drift["kind"] == "LinkDetached");
        detached.map(|drift| drift["count"].as_u64().unwrap()).sum::<u64>()
    };
    for bad in [fixtures::REFUSED, fixtures::RESHAPED] {
        apply(bad);
        pods.node.condition_is("web", "Ready", "False");
        let n = pods.links("web").len() + 3;
        assert_soon(
            [n - 2, n - 1, n].map(|n| {
                pods.time_to_links("web", || pods.add_pod(driver, n), (1..=n).map(|n| driver.pod(n)).collect())
            }),
        );
        // External changes are repaired and reported as usual, except at the moment in which the newer revision loads.
        let before = detachments(&pods);
        let is_reported = (0..3).any(|_| {
            let link = pods.node.details("web")["links"][0].clone();
            pods.node.run("bpftool", &["link", "detach", "pinned", &pods.node.pin(&link)]);
            let repaired = |node: &Node| {
                node.details("web")["links"].as_array().is_some_and(|links| links.iter().all(|l| l["id"] != link["id"]))
            };
            pods.node.until("another link", repaired);
            pods.wait_for_links("web", (1..=n).map(|n| driver.pod(n)).collect());
            detachments(&pods) > before
        });
        assert!(is_reported, "{}", pods.node.details("web"));
        assert_eq!(pods.node.program("web")["status"]["programIDs"], program, "the known good program runs");
    }
    apply(TCP_EVENTS_BTF);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_missing_cgroup_path_does_not_affect_pods_and_is_attached_when_it_appears() {
    let pods = Pods::new("path");
    let driver = Driver::Cgroupfs;
    let path = "/web.service".to_owned();
    pods.make_cgroup(&path);
    pods.apply(
        "web",
        &[json!({"type": "CgroupPath", "cgroupPath": path}), json!({"type": "Pods", "pods": {"podSelector": {}}})],
    );
    pods.wait_for_links("web", vec![path.clone()]);
    let mut times = Vec::new();
    for n in 1..3 {
        pods.remove_cgroup(&path);
        let ready = pods.node.condition_is("web", "Ready", "False");
        assert!(ready["reason"] == "CgroupNotFound" && ready["message"].as_str().unwrap().contains(&path), "{ready}");
        let with_this = (1..=n).map(|n| driver.pod(n)).collect();
        times.push(pods.time_to_links("web", || pods.add_pod(driver, n), with_this));
        // Long enough that the next retry is far away.
        std::thread::sleep(Duration::from_secs(8));
        pods.make_cgroup(&path);
        let start = Instant::now();
        pods.wait_for_links("web", (1..=n).map(|n| driver.pod(n)).chain([path.clone()]).collect());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        pods.node.ready("web");
    }
    assert_soon(times);
    // Links stay until the new cgroup path exists.
    let elsewhere = "/db.service".to_owned();
    pods.apply("web", &[json!({"type": "CgroupPath", "cgroupPath": elsewhere})]);
    let ready = pods.node.condition_is("web", "Ready", "False");
    let message = ready["message"].as_str().unwrap();
    assert!(ready["reason"] == "CgroupNotFound" && message.ends_with("keeps running there"), "{ready}");
    let all: Vec<String> = (1..3).map(|n| driver.pod(n)).chain([path.clone()]).collect();
    pods.wait_for_links("web", all.clone());
    std::thread::sleep(Duration::from_secs(3));
    pods.wait_for_links("web", all);
    pods.make_cgroup(&elsewhere);
    pods.wait_for_links("web", vec![elsewhere]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}
