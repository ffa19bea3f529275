//! All examples at once, unchanged: each is in effect, or refused for a named feature that this kernel lacks.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    node::Node,
    program_types::{PODS, example},
};

macro_rules! examples {
    ($($folder:literal: $($name:literal)*),*) => {
        &[$($(($name, include_str!(concat!("../../../deploy/examples/", $folder, $name, ".yaml"))),)*)*]
    };
}

/// All but `bpfprogram.yaml`, which is `tcp-events.yaml` with the object inline.
const ALL: &[(&str, &str)] = examples!(
    "": "connect-audit" "egress-guard" "pods" "sock-redirect" "tcp-events" "tcp-rtt" "tcp-tune",
    "types/": "cgroup-device" "cgroup-skb" "cgroup-sock" "cgroup-sock-addr" "cgroup-sock-addr-unix" "cgroup-sockopt"
        "cgroup-sysctl" "sk-msg" "sk-skb"
);

/// The examples that need a feature which some kernels lack.
const NEEDS: &[(&str, &str)] =
    &[("sock-redirect", "NetnsCookie"), ("cgroup-sock-addr-unix", "CgroupUnixConnect"), ("sk-skb", "SkSkbVerdict")];

#[test]
fn the_documentation_names_the_examples_that_not_every_kernel_runs() {
    let docs = include_str!("../../../docs/kernels.md").lines();
    let rows =
        docs.skip_while(|line| !line.starts_with("| example |")).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>();
    let documented: BTreeSet<(&str, &str)> = rows.map(cells).map(|row| (row[1], row[2])).collect();
    assert_eq!(documented, NEEDS.iter().copied().collect());
}

#[test]
fn every_example_is_in_effect_or_refused_for_a_missing_kernel_feature() {
    let mut node = Node::new("examples");
    node.make_cgroup(PODS);
    let pods = node.folder().join("pods.json");
    std::fs::write(&pods, r#"{"items": []}"#).unwrap();
    node.start_with(&["--pods", pods.to_str().unwrap()]);
    let (_, inline) = example!("../bpfprogram");
    node.apply_example("bpfprogram", inline);
    for (name, manifest) in ALL {
        node.apply_example(name, manifest);
    }
    let mut refused = Vec::new();
    for name in ALL.iter().map(|(name, _)| *name).chain(["bpfprogram"]) {
        node.until(&format!("a status of {name}"), |node| {
            node.is_status_current(name) && node.condition(name, "Ready")["reason"] != Value::Null
        });
        let ready = node.condition(name, "Ready");
        if ready["status"] != "True" {
            assert_eq!(ready["reason"], "KernelUnsupported", "{name}: {ready}");
            let message = ready["message"].as_str().unwrap();
            assert!(
                message.contains("which Linux has from") || message.contains("as Linux 6.1 does"),
                "{name}: {ready}"
            );
            assert_eq!(node.pins(name), Vec::<String>::new(), "nothing of it is loaded");
            refused.push(name);
        }
    }
    let lacking = NEEDS.iter().filter(|(_, feature)| !node.has_feature(feature)).map(|(name, _)| *name);
    assert_eq!(refused, lacking.collect::<Vec<_>>());
    for name in ALL.iter().map(|(name, _)| *name).chain(["bpfprogram"]) {
        node.remove(name);
    }
    node.nothing_left();
}
