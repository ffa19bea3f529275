//! Pods that a target selects, and links that follow as pods come and go.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::{Driver, Pods};
use crate::node::long;

#[test]
fn pods_are_selected_and_followed_under_both_cgroup_drivers() {
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
fn the_empty_root_of_a_former_cgroup_driver_is_ignored() {
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
fn containers_of_an_attached_pod_are_counted_from_their_first_connection() {
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
fn a_thousand_pods_come_and_go_and_leave_nothing_behind() {
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
fn links_of_cgroups_removed_while_no_agent_ran_are_removed_at_start() {
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
