//! Pods whose labels a target no longer matches, because somebody relabelled them: the target goes on selecting them
//! until they end, if it says so.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use serde_json::{Value, json};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};

use super::{Driver, Pods, assert_soon, of_app, uid};
use crate::{
    killed::calls_of_an_idle_pass,
    node::{Node, text},
};

const DRIVER: Driver = Driver::Cgroupfs;

/// Returns the target of the pods with label app web, and what becomes of those that lose it.
fn web(when_unselected: &str) -> Value {
    let mut target = of_app("web");
    target["pods"]["whenUnselected"] = json!(when_unselected);
    target
}

/// Returns the IDs of a BpfProgram's links in effect, by their cgroups.
fn link_ids(pods: &Pods, name: &str) -> Vec<(String, Value)> {
    let details = pods.node.details(name);
    let links = details["links"].as_array().into_iter().flatten().filter(|link| link["inEffect"] == true);
    let mut ids: Vec<_> =
        links.map(|link| (link["cgroupPath"].as_str().unwrap().to_owned(), link["id"].clone())).collect();
    ids.sort_by(|a, b| a.0.cmp(&b.0));
    ids
}

/// Returns the number of notes of kept pods.
fn kept(node: &Node, name: &str) -> usize {
    node.notes(name).iter().filter(|note| note.starts_with("keeper~")).count()
}

impl Pods {
    fn relabel(&self, n: usize, app: &str) {
        self.set_pod(n, "shop", app, &["app"]);
        self.write_list();
    }

    /// Starts another agent, and waits until it has attempted this BpfProgram.
    fn restart(&mut self, name: &str, signal: &str, meanwhile: impl FnOnce(&Self)) {
        self.node.stop(signal);
        meanwhile(self);
        self.node.forget_log();
        let list = self.node.folder().join("pods.json").display().to_string();
        self.node.start_with(&["--pods", &list]);
        self.node.until("its attempt", |node| node.log().contains(&format!("attempt program=\"{name}\"")));
        sleep(Duration::from_millis(500));
    }

    /// Returns whether connections in a pod are counted by a BpfProgram.
    fn counts(&self, name: &str, n: usize) -> bool {
        let before = self.node.events(name);
        let [made] = self.node.connect_during([DRIVER.pod(n).trim_start_matches('/')], 3, || ());
        let counted = self.node.events(name)[4] - before[4];
        assert!(counted.is_multiple_of(made), "{counted} of {made}");
        counted > 0
    }
}

#[test]
fn a_relabelled_pod_keeps_its_link_until_it_ends_if_the_target_says_so() {
    let mut pods = Pods::new("kept");
    for n in [1, 2] {
        pods.add_pod(DRIVER, n);
    }
    let both = vec![DRIVER.pod(1), DRIVER.pod(2)];
    for (name, when_unselected) in [("keeps", "KeepUntilPodEnds"), ("detaches", "Detach")] {
        pods.apply(name, &[web(when_unselected)]);
        pods.wait_for_links(name, both.clone());
        pods.node.ready(name);
    }
    let made = link_ids(&pods, "keeps");
    assert_eq!((kept(&pods.node, "keeps"), kept(&pods.node, "detaches")), (2, 0));

    let relabelled: (&dyn Fn(), _) = (&|| pods.relabel(1, "other"), &both[1..]);
    pods.links_soon_follow("detaches", relabelled, (&|| pods.relabel(1, "web"), &both));
    sleep(Duration::from_secs(1));
    assert_eq!(link_ids(&pods, "keeps"), made, "the very links");
    assert!(pods.counts("keeps", 1) && !pods.counts("detaches", 1) && pods.counts("detaches", 2));
    assert_eq!(pods.links("keeps")[0].1, "shop/pod-1");
    assert_eq!(
        (pods.node.entry("keeps")["pods"].as_u64(), pods.node.entry("detaches")["pods"].as_u64()),
        (Some(2), Some(1))
    );

    // Another agent finds in the notes which pods are kept, also of those that were relabelled meanwhile.
    for signal in ["TERM", "KILL"] {
        pods.restart("keeps", signal, |_| ());
        assert_eq!(link_ids(&pods, "keeps"), made, "after SIG{signal}");
    }
    pods.restart("keeps", "KILL", |pods| pods.relabel(2, "other"));
    pods.wait_for_links("detaches", vec![]);
    assert_eq!(link_ids(&pods, "keeps"), made, "both were relabelled");

    // A new program runs in the links that are kept.
    let before = pods.node.details("keeps")["programs"][0]["id"].clone();
    pods.node.apply(
        "keeps",
        fixtures::TWICE,
        json!([{"name": "my_prog", "attach": [web("KeepUntilPodEnds")]}]),
        json!([]),
    );
    pods.node.ready("keeps");
    let updated = pods.node.verified_details("keeps");
    assert_eq!(link_ids(&pods, "keeps"), made);
    assert_ne!(updated["programs"][0]["id"], before);
    assert!(updated["links"].as_array().unwrap().iter().all(|link| link["programID"] == updated["programs"][0]["id"]));

    // A pod's list entry may go before its cgroup does. Once that is gone, so is the link; a cgroup that takes its path
    // is another pod's.
    pods.listed.borrow_mut().remove(&uid(1));
    pods.relabel(2, "another");
    sleep(Duration::from_secs(1));
    assert_eq!(link_ids(&pods, "keeps"), made, "the pod ends, and its cgroup lives");
    pods.remove_cgroup(&DRIVER.pod(1));
    pods.wait_for_links("keeps", vec![DRIVER.pod(2)]);
    pods.node.until("one note", |node| kept(node, "keeps") == 1);
    pods.make_cgroup(&DRIVER.pod(1));
    pods.relabel(1, "other");
    sleep(Duration::from_secs(1));
    assert_eq!(pods.links("keeps").len(), 1);

    // What keeps nothing any more loses what was kept.
    pods.apply("keeps", &[web("Detach")]);
    pods.wait_for_links("keeps", vec![]);
    assert_eq!(kept(&pods.node, "keeps"), 0);
    pods.node.ready("keeps");
    for name in ["keeps", "detaches"] {
        pods.node.remove(name);
    }
    pods.node.nothing_left();
}

#[test]
fn the_links_of_kept_pods_end_soon_after_their_cgroups() {
    let pods = Pods::new("kept-ends");
    (1..5).for_each(|n| pods.add_pod(DRIVER, n));
    pods.apply("keeps", &[web("KeepUntilPodEnds")]);
    pods.wait_for_links("keeps", (1..5).map(|n| DRIVER.pod(n)).collect());
    pods.listed.borrow_mut().clear();
    pods.write_list();
    sleep(Duration::from_secs(1));
    let end = |n| {
        let others = (n + 1..5).map(|n| DRIVER.pod(n)).collect();
        pods.time_to_links("keeps", || pods.remove_cgroup(&DRIVER.pod(n)), others)
    };
    // A poll of each two seconds may come just after the first.
    end(1);
    assert_soon([2, 3, 4].map(end));
    pods.node.remove("keeps");
    pods.node.nothing_left();
}

#[test]
fn containers_of_a_pod_whose_namespace_was_relabelled_keep_their_links() {
    let pods = Pods::new("kept-namespace");
    pods.add_namespace("shop", "a");
    let [app, proxy] = ["app", "proxy"].map(|name| DRIVER.container(1, name));
    for container in [&app, &proxy] {
        pods.make_cgroup(container);
    }
    pods.set_pod(1, "shop", "web", &["app", "proxy"]);
    pods.write_list();
    let of_team = json!({
        "podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "a"}}, "containers": ["app"],
        "whenUnselected": "KeepUntilPodEnds",
    });
    pods.apply("team", &[json!({"type": "Pods", "pods": of_team})]);
    pods.wait_for_links("team", vec![app.clone()]);
    let made = link_ids(&pods, "team");
    pods.namespaces.borrow_mut().clear();
    pods.add_namespace("shop", "b");
    // A pod that comes later is not selected.
    pods.add_pod(DRIVER, 2);
    pods.make_cgroup(&DRIVER.container(2, "app"));
    pods.set_pod(2, "shop", "web", &["app"]);
    pods.write_list();
    sleep(Duration::from_secs(2));
    assert_eq!(link_ids(&pods, "team"), made);
    assert_eq!((&pods.links("team")[0].1, &pods.links("team")[0].2), (&json!("shop/pod-1"), &json!("app")));
    // A container that is restarted has another cgroup.
    let its = std::slice::from_ref(&app);
    pods.links_soon_follow("team", (&|| pods.remove_cgroup(&app), &[]), (&|| pods.make_cgroup(&app), its));
    pods.make_cgroup(&app);
    pods.wait_for_links("team", vec![app.clone()]);
    // The pod is no longer listed, so that the names of its containers are unknown.
    pods.listed.borrow_mut().remove(&uid(1));
    pods.write_list();
    sleep(Duration::from_secs(1));
    pods.wait_for_links("team", vec![app.clone()]);
    for container in [&app, &proxy] {
        pods.remove_cgroup(container);
    }
    pods.remove_cgroup(&DRIVER.pod(1));
    pods.node.until("no note", |node| kept(node, "team") == 0);
    pods.node.remove("team");
    pods.node.nothing_left();
}

#[test]
fn a_pod_that_is_relabelled_twice_past_another_target_keeps_its_program() {
    let pods = Pods::new("kept-twice");
    pods.add_pod(DRIVER, 1);
    pods.apply("keeps", &[web("KeepUntilPodEnds"), of_app("audited")]);
    pods.wait_for_links("keeps", vec![DRIVER.pod(1)]);
    let made = link_ids(&pods, "keeps");
    for app in ["audited", "other"] {
        pods.relabel(1, app);
        sleep(Duration::from_secs(1));
        assert_eq!(link_ids(&pods, "keeps"), made, "{app}");
    }
    assert_eq!(pods.node.entry("keeps")["pods"], 1);
    pods.node.remove("keeps");
    pods.node.nothing_left();
}

#[test]
fn a_relabelled_pod_is_attached_to_again_after_everything_was_detached() {
    let mut pods = Pods::new("kept-detached");
    let apply = |pods: &Pods, suspend: bool| {
        let programs = json!([{"name": "my_prog", "attach": [web("KeepUntilPodEnds")]}]);
        pods.node.apply_spec("keeps", TCP_EVENTS_BTF, json!({"programs": programs, "suspend": suspend}));
    };
    pods.add_pod(DRIVER, 1);
    apply(&pods, false);
    pods.wait_for_links("keeps", vec![DRIVER.pod(1)]);
    pods.relabel(1, "other");
    pods.node.agent_command("detach", &["--all"]);
    pods.wait_for_links("keeps", vec![]);
    pods.restart("keeps", "KILL", |_| ());
    assert_eq!((pods.links("keeps").len(), kept(&pods.node, "keeps")), (0, 1));
    pods.node.agent_command("attach", &["--all"]);
    pods.wait_for_links("keeps", vec![DRIVER.pod(1)]);
    apply(&pods, true);
    pods.wait_for_links("keeps", vec![]);
    pods.restart("keeps", "TERM", |_| ());
    assert_eq!((pods.links("keeps").len(), kept(&pods.node, "keeps")), (0, 1));
    apply(&pods, false);
    pods.wait_for_links("keeps", vec![DRIVER.pod(1)]);
    pods.node.ready("keeps");
    pods.node.remove("keeps");
    pods.node.nothing_left();
}

#[test]
fn a_kept_link_survives_the_removal_of_its_pins() {
    let pods = Pods::new("kept-pins");
    for n in [1, 2] {
        pods.add_pod(DRIVER, n);
    }
    pods.apply("keeps", &[web("KeepUntilPodEnds")]);
    pods.wait_for_links("keeps", vec![DRIVER.pod(1), DRIVER.pod(2)]);
    pods.node.ready("keeps");
    let made = link_ids(&pods, "keeps");
    pods.relabel(1, "other");
    sleep(Duration::from_secs(1));
    let home = pods.node.home("keeps");
    for (what, is_restored) in [("_meta/keeper~*", "the notes"), ("links/*", "the links"), ("*", "the home")] {
        // Meanwhile the agent pins nothing anew.
        pods.node.signal("STOP");
        pods.node.run("sh", &["-c", &format!("rm -r {home}/{what}")]);
        pods.node.signal("CONT");
        pods.node.until(is_restored, |node| kept(node, "keeps") == 2 && node.pins("keeps").len() == 4);
        pods.node.ready("keeps");
        assert_eq!(link_ids(&pods, "keeps"), made, "{what} removed");
    }
    pods.node.remove("keeps");
    pods.node.nothing_left();
}

/// The pod is relabelled after the kill. If the killed agent noted it, it is attached to; otherwise not. Nothing is
/// attached to it without a note.
#[test]
fn an_agent_killed_before_any_call_leaves_no_link_at_a_pod_without_its_note() {
    let mut pods = Pods::new("kept-killed");
    pods.node.stop("KILL");
    pods.add_pod(DRIVER, 1);
    let list = pods.node.folder().join("pods.json").display().to_string();
    let once = |fault: Option<&str>| pods.node.once_with(fault, &["--pods", &list]);
    let attached = || pods.node.attached_below(DRIVER.pod(1).trim_start_matches('/')).len();
    let noted = || kept(&pods.node, "keeps");
    let idle_calls = calls_of_an_idle_pass(|call| once(Some(&format!("kill@*#{call}"))).status.success());
    let mut ends = BTreeMap::new();
    for call in idle_calls.. {
        assert!(call < 200, "it does not end");
        pods.relabel(1, "web");
        pods.apply("keeps", &[web("KeepUntilPodEnds")]);
        if once(Some(&format!("kill@*#{call}"))).status.success() {
            break;
        }
        let left = (noted(), attached());
        assert!(left.0 >= left.1, "after a kill before call {call}: {left:?} notes and links");
        pods.relabel(1, "other");
        let done = once(None);
        assert!(done.status.success(), "{}", text(&done));
        assert_eq!((noted(), attached()), (left.0, left.0), "after a kill before call {call}");
        *ends.entry(left).or_insert(0) += 1;
        pods.node.withdraw("keeps");
        assert!(once(None).status.success());
        pods.node.nothing_left();
    }
    println!("kills by notes and links that they left: {ends:?}");
    assert!(ends[&(0, 0)] > 5 && ends[&(1, 0)] > 1 && ends[&(1, 1)] > 1, "too few kills: {ends:?}");
    pods.node.withdraw("keeps");
    assert!(once(None).status.success());
    pods.node.nothing_left();
}
