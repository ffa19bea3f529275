//! Pods that a target selects, and links that follow as pods come and go.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::{Driver, Pods, of_app};
use crate::node::is_long_run;

#[test]
fn pods_are_selected_and_followed_under_both_cgroup_drivers() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let pods = Pods::new("picked");
        pods.apply("web", &[of_app("web")]);
        let of_team = json!({
            "podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "a"}}, "containers": ["app"],
        });
        pods.apply("team", &[json!({"type": "Pods", "pods": of_team})]);
        // A node without such a pod is ready.
        for name in ["web", "team"] {
            pods.node.ready(name);
            assert_eq!(pods.node.details(name)["links"], Value::Null);
        }
        pods.add_namespace("shop", "a");
        for (n, namespace, app) in [(1, "shop", "web"), (2, "bank", "web"), (3, "shop", "db")] {
            for container in ["app", "proxy", "sandbox"] {
                pods.make_cgroup(&driver.container(n, container));
            }
            pods.set_pod(n, namespace, app, &["app", "proxy"]);
        }
        pods.write_list();
        pods.wait_for_links("web", vec![driver.pod(1), driver.pod(2)]);
        pods.wait_for_links("team", vec![driver.container(1, "app"), driver.container(3, "app")]);
        assert_eq!(pods.links("web")[0].1, "shop/pod-1");
        assert_eq!((&pods.links("team")[1].1, &pods.links("team")[1].2), (&json!("shop/pod-3"), &json!("app")));
        pods.node.until("its numbers", |node| {
            let status = &node.program("web")["status"];
            let (summary, on_node) = (&status["summary"], &status["nodeStatuses"][0]);
            [summary, on_node].iter().all(|at| at["pods"] == 2 && at["links"] == 2)
        });
        let of_web: Vec<Value> = pods.links("web").into_iter().map(|(_, pod, _)| pod).collect();
        assert_eq!(of_web, ["shop/pod-1", "bank/pod-2"]);

        labels_change_and_cgroups_go(&pods, driver);
        pods.node.ready("web");
        pods.node.verified_details("team");

        // The node's root covers all pods: one link, and nothing counts twice.
        pods.apply("web", &[json!({"type": "Pods", "pods": {"podSelector": {}}}), json!({"type": "Node"})]);
        pods.wait_for_links("web", vec!["/".to_owned()]);
        pods.node.connect(3);
        assert_eq!(pods.node.events("web")[4], 3);
        for name in ["web", "team"] {
            pods.node.remove(name);
        }
        pods.node.nothing_left();
    }
}

/// Labels change; a pod is evicted, its cgroups first; a container is restarted.
fn labels_change_and_cgroups_go(pods: &Pods, driver: Driver) {
    let at = |numbers: &[usize]| numbers.iter().map(|n| driver.pod(*n)).collect::<Vec<_>>();
    let label = |app| {
        pods.set_pod(3, "shop", app, &["app", "proxy"]);
        pods.write_list();
    };
    pods.links_soon_follow("web", (&|| label("web"), &at(&[1, 2, 3])), (&|| label("db"), &at(&[1, 2])));
    let containers = ["app", "proxy", "sandbox"].map(|name| driver.container(2, name));
    let evict = || {
        containers.iter().for_each(|container| pods.remove_cgroup(container));
        pods.remove_cgroup(&driver.pod(2));
    };
    let run = || containers.iter().for_each(|container| pods.make_cgroup(container));
    pods.links_soon_follow("web", (&evict, &at(&[1, 3])), (&run, &at(&[1, 2, 3])));
    let (first, third) = (driver.container(1, "app"), driver.container(3, "app"));
    let both = [first.clone(), third.clone()];
    pods.links_soon_follow("team", (&|| pods.remove_cgroup(&first), &[third]), (&|| pods.make_cgroup(&first), &both));
    pods.make_cgroup(&first);
    pods.wait_for_links("team", both.to_vec());
}

#[test]
fn the_empty_root_of_a_former_cgroup_driver_is_ignored() {
    let pods = Pods::new("driver");
    pods.make_cgroup("/kubepods.slice/kubepods-besteffort.slice");
    pods.add_pod(Driver::Cgroupfs, 1);
    pods.apply("web", &[json!({"type": "Pods", "pods": {"podSelector": {}}})]);
    pods.apply("all", &[json!({"type": "AllPods"})]);
    pods.wait_for_links("web", vec![Driver::Cgroupfs.pod(1)]);
    pods.wait_for_links("all", vec!["/kubepods".to_owned()]);
    for name in ["web", "all"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn containers_of_an_attached_pod_are_counted_from_their_first_connection() {
    let pods = Pods::new("first");
    let pod = Driver::Cgroupfs.pod(1);
    pods.make_cgroup(&pod);
    pods.set_pod(1, "shop", "web", &[]);
    pods.write_list();
    pods.apply("web", &[of_app("web")]);
    pods.wait_for_links("web", vec![pod.clone()]);
    let containers = if is_long_run() { 10_000 } else { 1000 };
    pods.node.connect_in_new_cgroups(&pods.path(&pod), containers);
    // The listener is outside the pod, and is not counted.
    assert_eq!(pods.node.events("web")[4], containers as u64);
    pods.node.remove("web");
    pods.node.nothing_left();
}

#[test]
fn a_thousand_pods_come_and_go_and_leave_nothing_behind() {
    let pods = Pods::new("thousand");
    let driver = Driver::Cgroupfs;
    pods.make_cgroup("/kubepods/burstable");
    let mut of_containers = of_app("web");
    of_containers["pods"]["containers"] = json!(["app"]);
    for (name, target) in [("pods", of_app("web")), ("containers", of_containers)] {
        pods.apply(name, &[target]);
        pods.node.ready(name);
    }
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", pods.node.process())).unwrap().count();
    let before = descriptors();
    let (rounds, at_once) = (if is_long_run() { 200 } else { 20 }, 50);
    for round in 0..rounds {
        let these = round * at_once..(round + 1) * at_once;
        for n in these.clone() {
            pods.set_pod(n, "shop", "web", &["app"]);
        }
        pods.write_list();
        for n in these.clone() {
            pods.make_cgroup(&driver.container(n, "app"));
        }
        pods.node
            .until("all links", |node| ["pods", "containers"].iter().all(|name| node.entry(name)["links"] == at_once));
        for n in these.clone() {
            pods.remove_cgroup(&driver.container(n, "app"));
            pods.remove_cgroup(&driver.pod(n));
        }
        // The pods leave the list after their cgroups are gone.
        pods.listed.borrow_mut().clear();
        pods.write_list();
        pods.node.until("no link", |node| {
            ["pods", "containers"].iter().all(|name| node.entry(name)["links"] == Value::Null)
        });
    }
    for name in ["pods", "containers"] {
        pods.node.ready(name);
        let left: Vec<String> = pods.node.pins(name).into_iter().filter(|pin| pin.starts_with("links/")).collect();
        assert_eq!(left, Vec::<String>::new());
        let notes = pods.node.notes(name);
        assert!(!notes.iter().any(|note| note.starts_with("cgroup~")), "{notes:?}");
    }
    pods.node.until(&format!("{before} descriptors, as before"), |_| descriptors() <= before);
    for name in ["pods", "containers"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn links_of_cgroups_removed_while_no_agent_ran_are_removed_at_start() {
    let mut pods = Pods::new("collected");
    let driver = Driver::Cgroupfs;
    for n in 1..3 {
        pods.add_pod(driver, n);
    }
    pods.apply("web", &[json!({"type": "Pods", "pods": {"podSelector": {}}})]);
    pods.wait_for_links("web", vec![driver.pod(1), driver.pod(2)]);
    pods.node.stop("KILL");
    pods.remove_cgroup(&driver.pod(2));
    let list = pods.node.folder().join("pods.json").display().to_string();
    pods.node.start_with(&["--pods", &list]);
    pods.wait_for_links("web", vec![driver.pod(1)]);
    pods.node.until("one pin", |node| node.pins("web").iter().filter(|pin| pin.starts_with("links/")).count() == 1);
    // If pods can no longer be listed, links stay.
    fs::write(&list, "no list").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    pods.wait_for_links("web", vec![driver.pod(1)]);
    pods.node.stop("KILL");
    pods.node.start_with(&["--pods", &list]);
    pods.node.until("the message", |node| {
        node.entry("web")["message"].as_str().is_some_and(|m| m.contains("can't be listed"))
    });
    pods.wait_for_links("web", vec![driver.pod(1)]);
    // Once pods can be listed again, links follow them again.
    pods.make_cgroup(&driver.pod(2));
    pods.write_list();
    pods.wait_for_links("web", vec![driver.pod(1), driver.pod(2)]);
    pods.node.ready("web");
    pods.node.remove("web");
    pods.node.nothing_left();
}
