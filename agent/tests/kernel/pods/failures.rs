//! Failures at one pod, of one path or of one revision: everything else stays attached.

use std::time::{Duration, Instant};

use serde_json::json;
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use super::{Driver, Pods};
use crate::node::Node;

#[test]
fn a_refusal_at_one_pod_does_not_affect_the_others() {
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
fn an_edit_refused_at_every_new_pod_keeps_the_old_links() {
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
fn the_known_good_revision_keeps_running_while_a_newer_one_fails() {
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
fn a_missing_cgroup_path_does_not_affect_pods_and_is_attached_when_it_appears() {
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
