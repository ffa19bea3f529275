//! Targets that are refused, both in `spec.attach` and in `spec.programs[].attach`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{apply_crds, dry_run, ensure_refused, with, without};

/// Returns invalid targets, each with the path of the field that the refusal names.
fn invalid() -> Vec<(Value, &'static str)> {
    let pods = json!({"podSelector": {}});
    let of_pods = |key: &str, value: Value| {
        let mut pods = json!({"podSelector": {}});
        pods[key] = value;
        json!({"type": "Pods", "pods": pods})
    };
    let at = |path: &str| json!({"type": "CgroupPath", "cgroupPath": path});
    let not_in = json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]});
    let many: Vec<String> = (0..17).map(|n| format!("c{n}")).collect();
    vec![
        // A member without its type, a type without its member, another's member, and both.
        (json!({}), ".type"),
        (json!({"pods": pods}), ".type"),
        (json!({"cgroupPath": "/a"}), ".type"),
        (json!({"map": {"name": "m"}}), ".type"),
        (json!({"type": "Pods"}), ".pods"),
        (json!({"type": "CgroupPath"}), ".cgroupPath"),
        (json!({"type": "Map"}), ".map"),
        (json!({"type": "Node", "pods": pods}), ".pods"),
        (json!({"type": "AllPods", "pods": pods}), ".pods"),
        (json!({"type": "CgroupPath", "cgroupPath": "/a", "pods": pods}), ".pods"),
        (json!({"type": "Map", "map": {"name": "m"}, "pods": pods}), ".pods"),
        (json!({"type": "Node", "cgroupPath": "/a"}), ".cgroupPath"),
        (json!({"type": "AllPods", "cgroupPath": "/a"}), ".cgroupPath"),
        (json!({"type": "Pods", "pods": pods, "cgroupPath": "/a"}), ".cgroupPath"),
        (json!({"type": "Map", "map": {"name": "m"}, "cgroupPath": "/a"}), ".cgroupPath"),
        (json!({"type": "Node", "map": {"name": "m"}}), ".map"),
        (json!({"type": "AllPods", "map": {"name": "m"}}), ".map"),
        (json!({"type": "Pods", "pods": pods, "map": {"name": "m"}}), ".map"),
        (json!({"type": "CgroupPath", "cgroupPath": "/a", "map": {"name": "m"}}), ".map"),
        // Unknown types, members and words.
        (json!({"type": "Everywhere"}), ".type"),
        (json!({"type": "node"}), ".type"),
        (json!({"type": null}), ".type"),
        (json!({"type": "Node", "cgroup": {"scope": "Node"}}), ".cgroup"),
        (json!({"type": "Node", "strict": true}), ".strict"),
        (of_pods("strict", json!(true)), ".pods.strict"),
        (of_pods("startPolicy", json!("Strict")), ".pods.startPolicy"),
        (of_pods("whenUnselected", json!("Keep")), ".pods.whenUnselected"),
        // Pods.
        (json!({"type": "Pods", "pods": {}}), ".pods.podSelector"),
        (json!({"type": "Pods", "pods": {"namespaceSelector": {}}}), ".pods.podSelector"),
        (json!({"type": "Pods", "pods": null}), ".pods"),
        (of_pods("podSelector", json!(null)), ".pods.podSelector"),
        // Whoever leaves the value out means a label. The API server drops the null.
        (of_pods("podSelector", json!({"matchLabels": {"app": null}})), ".pods.podSelector.matchLabels"),
        (of_pods("podSelector", not_in.clone()), ".pods.podSelector.matchExpressions[0]"),
        (of_pods("podSelector", json!({"matchLabels": {"a": "b c"}})), ".pods.podSelector.matchLabels.a"),
        (of_pods("namespaceSelector", not_in), ".pods.namespaceSelector.matchExpressions[0]"),
        (of_pods("containers", json!([])), ".pods.containers"),
        (of_pods("containers", json!([""])), ".pods.containers[0]"),
        (of_pods("containers", json!(["A_b"])), ".pods.containers[0]"),
        (of_pods("containers", json!(["c".repeat(64)])), ".pods.containers[0]"),
        (of_pods("containers", json!(["a", "a"])), ".pods.containers[1]"),
        (of_pods("containers", json!(many)), ".pods.containers"),
        // Paths.
        (at(""), ".cgroupPath"),
        (at("a"), ".cgroupPath"),
        (at("/a/../b"), ".cgroupPath"),
        (at("/.."), ".cgroupPath"),
        (at("/a/."), ".cgroupPath"),
        (at("/./a"), ".cgroupPath"),
        (at(&"/a".repeat(513)), ".cgroupPath"),
        (json!({"type": "CgroupPath", "cgroupPath": null}), ".cgroupPath"),
        (json!({"type": "CgroupPath", "cgroupPath": {"path": "/a"}}), ".cgroupPath"),
        // Maps.
        (json!({"type": "Map", "map": {}}), ".map.name"),
        (json!({"type": "Map", "map": {"name": ""}}), ".map.name"),
        (json!({"type": "Map", "map": {"name": "a b"}}), ".map.name"),
        (json!({"type": "Map", "map": {"name": "m".repeat(129)}}), ".map.name"),
        (json!({"type": "Map", "map": "m"}), ".map"),
    ]
}

#[test]
fn an_invalid_target_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    ensure_refused(invalid().into_iter().map(|(target, field)| {
        let object = with("/spec/programs", json!([{"name": "my_prog", "attach": [{"type": "Node"}, target]}]));
        (object, format!("spec.programs[0].attach[1]{field}"))
    }))
}

#[test]
fn an_invalid_default_target_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    ensure_refused(
        invalid()
            .into_iter()
            .map(|(target, field)| (with("/spec/attach", json!([target])), format!("spec.attach[0]{field}"))),
    )
}

#[test]
fn each_program_needs_a_target() -> Result<()> {
    apply_crds()?;
    let nodes = vec![json!({"type": "Node"}); 17];
    let own_and_none = json!([{"name": "one", "attach": [{"type": "Node"}]}, {"name": "two"}]);
    ensure_refused(
        [
            (without("/spec/programs/0/attach"), "spec.programs"),
            (with("/spec/programs", own_and_none), "spec.programs"),
            (with("/spec/programs/0/attach", json!([])), "spec.programs[0].attach"),
            (with("/spec/programs/0/attach", json!(nodes)), "spec.programs[0].attach"),
            (with("/spec/programs/0/attach", json!({"type": "Node"})), "spec.programs[0].attach"),
            (with("/spec/attach", json!([])), "spec.attach"),
            (with("/spec/attach", json!(nodes)), "spec.attach"),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}

#[test]
fn a_map_of_another_program_must_be_anothers() -> Result<()> {
    apply_crds()?;
    let target = |program: &str| json!([{"type": "Map", "map": {"name": "m", "program": program}}]);
    let own = |program: &str| json!([{"name": "my_prog", "attach": target(program)}]);
    let field = "attach[].map.program must be another BpfProgram";
    ensure_refused([
        (with("/spec/attach", target("tcp-events")), format!("spec.attach: Invalid value: {field}")),
        (with("/spec/programs", own("tcp-events")), format!("spec.programs: Invalid value: {field}")),
    ])?;
    dry_run(&with("/spec/attach", target("another")))?;
    dry_run(&with("/spec/programs", own("another"))).map(drop)
}
