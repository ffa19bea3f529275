//! BpfPrograms that are refused: all fields but targets and values.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{apply_crds, ensure_refused, with, without};

#[test]
fn an_invalid_object_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    let node = json!([{"type": "Node"}]);
    let (expressions, exists) = ("/spec/nodeSelector", json!({"key": "a b", "operator": "Exists"}));
    let selector = |requirement: Value| with(expressions, json!({"matchExpressions": [requirement]}));
    ensure_refused(
        [
            (with("/spec/nodeSelector", json!({"matchLabels": {"a": "b c"}})), "spec.nodeSelector.matchLabels.a"),
            (selector(exists), "spec.nodeSelector.matchExpressions[0].key"),
            (
                selector(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                "spec.nodeSelector.matchExpressions[0]",
            ),
            (selector(json!({"key": "a", "operator": "Near"})), "spec.nodeSelector.matchExpressions[0].operator"),
            (with("/spec/programs", json!([])), "spec.programs"),
            (without("/spec/programs"), "spec.programs"),
            (with("/spec/programs", json!(null)), "spec.programs"),
            (with("/spec/programs", json!([{"name": "a/b", "attach": node}])), "spec.programs[0].name"),
            (with("/spec/programs", json!([{"name": "p".repeat(129), "attach": node}])), "spec.programs[0].name"),
            (with("/spec/programs", json!([{"attach": node}])), "spec.programs[0].name"),
            (
                with("/spec/programs", json!([{"name": "p", "attach": node}, {"name": "p", "attach": node}])),
                "spec.programs[1]",
            ),
            (with("/spec/programs", json!([{"name": "p", "type": "Xdp", "attach": node}])), "spec.programs[0].type"),
            (with("/spec/priority", json!(1001)), "spec.priority"),
            (with("/spec/priority", json!(-1)), "spec.priority"),
            (with("/spec/priority", json!(1.5)), "spec.priority"),
            (with("/spec/suspend", json!("true")), "spec.suspend"),
            (with("/spec/surprise", json!(1)), "spec.surprise"),
            (with("/metadata/name", json!("tcp.events")), "metadata.name"),
            (with("/metadata/name", json!("n".repeat(64))), "metadata.name"),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}

#[test]
fn an_invalid_source_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    let zeros = "0".repeat(64);
    let good = format!("sha256:{zeros}");
    let source = |source: Value| with("/spec/bytecode", source);
    let from = |key: &str, value: Value| {
        let mut reference = json!({"name": "objects", "key": "tcp.o", "digest": good});
        reference[key] = value;
        source(json!({"configMapRef": reference}))
    };
    let reference = json!({"name": "objects", "key": "tcp.o", "digest": good});
    ensure_refused(
        [
            (source(json!({})), "spec.bytecode"),
            (without("/spec/bytecode"), "spec.bytecode"),
            (source(json!(null)), "spec.bytecode"),
            (source(json!({"inline": "AA==", "configMapRef": reference})), "spec.bytecode"),
            (source(json!({"inline": "AA==", "builtin": "tcp-events"})), "spec.bytecode"),
            (source(json!({"configMapRef": reference, "builtin": "tcp-events"})), "spec.bytecode"),
            (source(json!({"configMap": {"name": "a", "key": "b"}})), "spec.bytecode.configMap"),
            (source(json!({"builtin": "tcp-rtts"})), "spec.bytecode.builtin"),
            (source(json!({"inline": "not base64!"})), "spec.bytecode.inline"),
            (source(json!({"inline": ""})), "spec.bytecode.inline"),
            (source(json!({"inline": "A".repeat(174_768)})), "spec.bytecode.inline"),
            (source(json!({"inline": "A".repeat(174_764)})), "spec.bytecode.inline"),
            (source(json!({"configMapRef": {"key": "k", "digest": good}})), "spec.bytecode.configMapRef.name"),
            (source(json!({"configMapRef": {"name": "a", "digest": good}})), "spec.bytecode.configMapRef.key"),
            (source(json!({"configMapRef": {"name": "a", "key": "k"}})), "spec.bytecode.configMapRef.digest"),
            (from("name", json!("A_b")), "spec.bytecode.configMapRef.name"),
            (from("key", json!("a b")), "spec.bytecode.configMapRef.key"),
            (from("namespace", json!("default")), "spec.bytecode.configMapRef.namespace"),
            (from("digest", json!(null)), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!("")), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!(zeros)), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!("sha256:0")), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!(format!("{good}0"))), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!(format!("sha256:{}", "A".repeat(64)))), "spec.bytecode.configMapRef.digest"),
            (from("digest", json!(format!("sha512:{zeros}"))), "spec.bytecode.configMapRef.digest"),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}

#[test]
fn an_invalid_image_or_signature_is_refused_with_the_name_of_its_field() -> Result<()> {
    apply_crds()?;
    let image = |key: &str, value: Value| {
        let mut image = json!({"reference": "registry.example/team/guard:v1"});
        image[key] = value;
        with("/spec/bytecode", json!({"image": image}))
    };
    let reference = |reference: &str| (image("reference", json!(reference)), "spec.bytecode.image.reference");
    let signed = |signature: Value| with("/spec/bytecode", json!({"inline": "AA==", "signatures": [signature]}));
    let detached = json!({"signature": "AA=="});
    let digest = format!("registry.example/a@sha256:{}", "A".repeat(64));
    ensure_refused(
        [
            (with("/spec/bytecode", json!({"image": {}})), "spec.bytecode.image.reference"),
            (
                with("/spec/bytecode", json!({"inline": "AA==", "image": {"reference": "registry.example/a"}})),
                "spec.bytecode",
            ),
            (with("/spec/bytecode", json!({"signatures": []})), "spec.bytecode"),
            reference("guard"),
            reference("https://registry.example/a"),
            reference("registry.example/Team/guard"),
            reference("registry.example/../guard"),
            reference("registry.example/a:"),
            reference("registry.example/a:v1 "),
            reference(&digest),
            reference(&format!("registry.example/{}", "a".repeat(512))),
            (image("pullPolicy", json!("Never")), "spec.bytecode.image.pullPolicy"),
            (image("pullSecretRef", json!({})), "spec.bytecode.image.pullSecretRef.name"),
            (image("pullSecretRef", json!({"name": "../a"})), "spec.bytecode.image.pullSecretRef.name"),
            (image("tag", json!("v1")), "spec.bytecode.image.tag"),
            (signed(json!({"type": "Bundle"})), "spec.bytecode.signatures[0].bundle"),
            (signed(json!({"type": "Detached", "bundle": "{}"})), "spec.bytecode.signatures[0]"),
            (
                signed(json!({"type": "Bundle", "bundle": "{}", "detached": detached})),
                "spec.bytecode.signatures[0].detached",
            ),
            (signed(json!({"type": "Bundle", "bundle": "x".repeat(32_769)})), "spec.bytecode.signatures[0].bundle"),
            (
                signed(json!({"type": "Detached", "detached": {"signature": "no base64!"}})),
                "spec.bytecode.signatures[0].detached.signature",
            ),
            (
                with(
                    "/spec/bytecode",
                    json!({"inline": "AA==", "signatures":
                    vec![json!({"type": "Bundle", "bundle": "{}"}); 9]}),
                ),
                "spec.bytecode.signatures",
            ),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}

#[test]
fn invalid_map_settings_are_refused_with_the_name_of_their_field() -> Result<()> {
    apply_crds()?;
    let map = |key: &str, value: Value| {
        let mut map = json!({"name": "m"});
        map[key] = value;
        with("/spec/maps", json!([map]))
    };
    let list = || json!({"name": "list", "key": "list", "digest": format!("sha256:{}", "a".repeat(64))});
    let both = || {
        let mut object = map("entries", json!([{"key": 1, "value": 1}]));
        object["spec"]["maps"][0]["entriesFrom"] = json!({"configMapRef": list()});
        object
    };
    // The map is the other BpfProgram's, so it alone says these things.
    let borrowed = |key: &str, value: Value| {
        let mut object = map("mapRef", json!({"program": "other", "name": "m"}));
        object["spec"]["maps"][0][key] = value;
        object
    };
    ensure_refused(
        [
            (map("maxEntries", json!(0)), "spec.maps[0].maxEntries"),
            (map("maxEntries", json!(4_294_967_296_u64)), "spec.maps[0].maxEntries"),
            (map("maxEntries", json!("1")), "spec.maps[0].maxEntries"),
            (map("pinning", json!("Always")), "spec.maps[0].pinning"),
            (map("pinning", json!(true)), "spec.maps[0].pinning"),
            (map("reclaimPolicy", json!("Keep")), "spec.maps[0].reclaimPolicy"),
            (map("onIncompatible", json!("Refuse")), "spec.maps[0].onIncompatible"),
            (map("sharing", json!("Public")), "spec.maps[0].sharing"),
            (map("pin", json!(false)), "spec.maps[0].pin"),
            (map("onDelete", json!("Retain")), "spec.maps[0].onDelete"),
            (map("onShapeChange", json!("Recreate")), "spec.maps[0].onShapeChange"),
            (map("initial", json!([])), "spec.maps[0].initial"),
            (map("from", json!({"program": "other", "map": "m"})), "spec.maps[0].from"),
            (map("name", json!("a/b")), "spec.maps[0].name"),
            (with("/spec/maps", json!([{"pinning": "None"}])), "spec.maps[0].name"),
            (with("/spec/maps", json!([{"name": "m"}, {"name": "m"}])), "spec.maps[1]"),
            (borrowed("entries", json!([{"key": 1, "value": 1}])), "spec.maps[0]"),
            (borrowed("entriesPolicy", json!("Sync")), "spec.maps[0]"),
            (borrowed("entriesFrom", json!({"configMapRef": list()})), "spec.maps[0]"),
            (map("entriesPolicy", json!("Always")), "spec.maps[0].entriesPolicy"),
            (map("entriesFrom", json!({})), "spec.maps[0].entriesFrom.configMapRef"),
            (map("entriesFrom", json!({"configMapRef": {"name": "l", "key": "k"}})), "configMapRef.digest"),
            (both(), "spec.maps[0].entriesFrom"),
            (borrowed("onIncompatible", json!("Fail")), "spec.maps[0]"),
            (borrowed("pinning", json!("ByName")), "spec.maps[0]"),
            (borrowed("reclaimPolicy", json!("Delete")), "spec.maps[0]"),
            (borrowed("sharing", json!("Private")), "spec.maps[0]"),
            (map("mapRef", json!({"program": "o.p", "name": "m"})), "spec.maps[0].mapRef.program"),
            (map("mapRef", json!({"program": "other"})), "spec.maps[0].mapRef.name"),
            (map("mapRef", json!({"program": "other", "map": "m"})), "spec.maps[0].mapRef"),
            (map("mapRef", json!({"program": "other", "name": ".rodata"})), "spec.maps[0].mapRef.name"),
            (map("mapRef", json!({"program": "tcp-events", "name": "m"})), "another BpfProgram"),
        ]
        .map(|(object, field)| (object, field.to_owned())),
    )
}
