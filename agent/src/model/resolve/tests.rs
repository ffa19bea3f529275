//! Revisions as a whole, resolved on a made-up node.

use serde_json::{Value, json};
use sockeye_crds::{BpfRevision, Reason, Regression};
use sockeye_crds_testing::provoked;

use crate::model::{
    architecture::ARCHITECTURE,
    desired::Desired,
    kernel::{Machine, MissingFeatures, ProgramKind},
    node_context::NodeContext,
    observed::Observed,
    pods::Pods,
    refusal::Refusal,
    regressions::Regressions,
};

pub(super) fn node_context() -> NodeContext {
    let features = vec!["AllPods".to_owned()];
    let machine = Machine { page: 4096, cpus: 2 };
    let (pods_root, pods) = ("/kubepods".to_owned(), Pods::default());
    let (missing_features, regressions) = (MissingFeatures::default(), Regressions::default());
    NodeContext { machine, features, missing_features, regressions, pods_root, pods, has_api: false }
}

/// A revision of BpfProgram p with these fields of a template.
pub(super) fn revision(template: &Value) -> BpfRevision {
    let mut whole = json!({"digest": "sha256:0", "object": {}, "programs": []});
    for (field, value) in template.as_object().unwrap() {
        whole[field] = value.clone();
    }
    BpfRevision::of(
        serde_json::from_value(json!({
            "state": "Active", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
            "template": whole,
        }))
        .unwrap(),
    )
}

/// Records a refusal for the page of reasons, and returns its reason.
fn recorded(Refusal { reason, message }: Refusal) -> Reason {
    provoked(reason, &message);
    reason
}

fn desired(template: &Value) -> Result<Desired, Refusal> {
    Desired::new(&revision(template), &node_context(), &Observed::default())
}

#[test]
fn only_a_pinned_map_is_an_attach_target() {
    let desired = |map: &str, pinning: &str| {
        desired(&json!({
            "object": {
                "programs": [{"name": "f", "section": "sk_msg"}],
                "maps": [{"name": "m", "type": "Sockhash", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 1,
                    "definition": "BTF"}],
            },
            "programs": [{"name": "f", "attach": [{"type": "Map", "map": {"name": map}}]}],
            "maps": [{"name": "m", "pinning": pinning}],
        }))
    };
    let pinned = desired("m", "ByName").unwrap();
    assert!(pinned.attaches_to_maps && pinned.functions["f"].maps.contains("m") && pinned.paths().is_empty());
    for refused in [desired("m", "None"), desired("n", "ByName")] {
        assert_eq!(recorded(refused.unwrap_err()), Reason::InvalidSpec);
    }
}

#[test]
fn a_feature_that_the_agent_does_not_support_is_named() {
    let refusal = desired(&json!({"requires": ["AllPods", "Tomorrow"]})).unwrap_err();
    assert_eq!(refusal.reason, Reason::AgentTooOld);
    assert!(refusal.message.contains("requires Tomorrow,"), "{refusal}");
    recorded(refusal);
}

#[test]
fn an_image_without_an_object_for_the_node_names_those_that_it_has() {
    let variant = |architecture: &str| json!({"architecture": architecture, "digest": "sha256:1", "object": {}});
    let variants = json!([variant("riscv64"), variant("s390x")]);
    let refusal = desired(&json!({"requires": ["AllPods"], "variants": variants})).unwrap_err();
    assert!(refusal.message.contains("it has some for riscv64, s390x"), "{refusal}");
    let message = refusal.message.replace(ARCHITECTURE, "amd64");
    assert_eq!(recorded(Refusal { message, ..refusal }), Reason::ArchitectureMissing);
}

#[test]
fn a_name_that_could_lead_out_of_a_directory_is_refused() {
    let map = json!({"name": "m", "type": "Hash", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 1,
        "definition": "BTF"});
    let maps = |map_ref: Value| json!({"object": {"maps": [map]}, "maps": [{"name": "m", "mapRef": map_ref}]});
    assert!(desired(&maps(json!({"program": "lender", "name": "m"}))).is_ok());
    for map_ref in [
        json!({"program": "..", "name": "m"}),
        json!({"program": "lender", "name": "../m"}),
        json!({"program": "p", "name": "m"}),
    ] {
        assert_eq!(recorded(desired(&maps(map_ref)).unwrap_err()), Reason::InvalidSpec);
    }
    for name in ["../q", "p.q", ""] {
        let mut revision = revision(&json!({}));
        name.clone_into(&mut revision.spec.program_ref.name);
        let refusal = Desired::new(&revision, &node_context(), &Observed::default()).unwrap_err();
        assert_eq!(recorded(refusal), Reason::InvalidSpec);
    }
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named() {
    let revision = revision(&json!({
        "object": {
            "programs": [{"name": "f", "section": "cgroup/getpeername4"}],
            "maps": [{"name": "m", "type": "CgrpStorage", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 0,
                "flags": 1, "definition": "BTF"}],
        },
        "programs": [{"name": "f", "attach": [{"type": "Node"}]}],
    }));
    let desired = |node_context: &NodeContext| Desired::new(&revision, node_context, &Observed::default());
    let kind = desired(&node_context()).unwrap().functions["f"].kind;
    let other = ProgramKind { attach_type: 30, ..kind };
    for (programs, maps, words) in [
        (vec![kind], vec![], ["program f", "cgroup_inet4_getpeername", "5.8"]),
        (vec![other], vec![(32, (6, 2))], ["map m", "CgrpStorage", "6.2"]),
    ] {
        let missing_features = MissingFeatures {
            programs: programs.into_iter().collect(),
            maps: maps.into_iter().collect(),
            order: false,
        };
        let refusal = desired(&NodeContext { missing_features, ..node_context() }).unwrap_err();
        assert_eq!(refusal.reason, Reason::KernelUnsupported);
        assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
        recorded(refusal);
    }
}

/// The revision of a program that has sockets join a map, and of one on that map.
fn sockets(programs: &Value, more: &Value) -> Value {
    let mut template = json!({
        "object": {
            "programs": [
                {"name": "join", "section": "sockops"},
                {"name": "msg", "section": "sk_msg", "passesOnly": true},
                {"name": "judge", "section": "sk_skb/stream_verdict"},
            ],
            "maps": [{"name": "m", "type": "Sockhash", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 1,
                "definition": "BTF", "usedBy": ["join"]}],
        },
        "programs": programs,
    });
    more.as_object().unwrap().iter().for_each(|(field, value)| template[field] = value.clone());
    template
}

#[test]
fn a_regression_is_refused_where_a_revision_would_trigger_it() {
    let (node, map) = (json!([{"type": "Node"}]), json!([{"type": "Map", "map": {"name": "m"}}]));
    let join = json!({"name": "join", "attach": node});
    let (msg, judge) = (json!({"name": "msg", "attach": map}), json!({"name": "judge", "attach": map}));
    let found = Regressions { found: [Regression::SockmapFionread].into(), ..Regressions::default() };
    let unknown =
        Regressions { unknown: [(Regression::SockmapFionread, "denied".to_owned())].into(), ..Regressions::default() };
    let refusal = |template: &Value, regressions: &Regressions| {
        let context = NodeContext { regressions: regressions.clone(), ..node_context() };
        Desired::new(&revision(template), &context, &Observed::default()).err()
    };
    for (programs, words) in [
        (json!([join]), "program join, which adds sockets to map m"),
        (json!([msg]), "program msg, attached to map m"),
        (json!([join, msg]), "map m"),
    ] {
        let template = sockets(&programs, &json!({}));
        let refused = refusal(&template, &found).unwrap();
        assert_eq!(refused.reason, Reason::KernelUnsupported);
        assert!(refused.message.contains(words) && refused.message.contains("SockmapFIONREAD"), "{refused}");
        recorded(refused);
        let refused = refusal(&template, &unknown).unwrap();
        assert_eq!(refused.reason, Reason::InputsUnavailable, "the next probe may answer");
        assert!(!refused.reason.needs_edit());
        assert!(refused.message.contains("(denied)") && refused.message.contains(words), "{refused}");
        recorded(refused);
        assert_eq!(refusal(&template, &Regressions::default()), None);
        for more in [json!({"acceptedRegressions": ["SockmapFIONREAD"]}), json!({"suspend": true})] {
            assert_eq!(refusal(&sockets(&programs, &more), &found), None);
        }
        let other = sockets(&programs, &json!({"acceptedRegressions": ["Other"]}));
        assert!(refusal(&other, &found).is_some());
    }
    // FIONREAD counts what a verdict has passed.
    assert_eq!(refusal(&sockets(&json!([join, judge]), &json!({})), &found), None);
    assert_eq!(refusal(&sockets(&json!([join, msg, judge]), &json!({})), &found), None);
}

#[test]
fn a_regression_is_refused_where_sockets_join_a_map_by_a_tail_call() {
    let found = Regressions { found: [Regression::SockmapFionread].into(), ..Regressions::default() };
    let context = NodeContext { regressions: found, ..node_context() };
    let map = |name: &str, map_type: &str| {
        json!({"name": name, "type": map_type, "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 1,
            "definition": "BTF"})
    };
    let (mut joined, mut array) = (map("m", "Sockhash"), map("progs", "ProgArray"));
    (joined["usedBy"], array["usedBy"], array["holds"]) = (json!(["join"]), json!(["entry"]), json!(["join"]));
    let sections = ["entry", "join"].map(|name| json!({"name": name, "section": "sockops"}));
    let refusal = |attach: Value| {
        let template = json!({"object": {"programs": sections, "maps": [joined, array]},
            "programs": [{"name": "entry", "attach": attach}]});
        Desired::new(&revision(&template), &context, &Observed::default()).err()
    };
    let refused = refusal(json!([{"type": "Node"}])).unwrap();
    assert!(refused.message.starts_with("program join, which adds sockets to map m"), "{refused}");
    assert_eq!(refusal(json!([])), None, "nothing is attached");
}

#[test]
fn a_map_of_another_program_is_borrowed_while_programs_are_attached_to_it() {
    let target = |map: Value| json!([{"name": "msg", "attach": [{"type": "Map", "map": map}]}]);
    let template = sockets(&target(json!({"name": "m", "program": "lender"})), &json!({}));
    let borrowed = desired(&template).unwrap();
    assert!(borrowed.functions["msg"].maps.contains("lender~m"));
    let map = &borrowed.maps["lender~m"];
    assert!(map.attach_only && map.from.as_ref().unwrap().to_string() == "map m of BpfProgram lender");
    assert!(!borrowed.maps["m"].attach_only, "the object's own map of that name is another one");
    let suspended = desired(&sockets(&template["programs"], &json!({"suspend": true}))).unwrap();
    assert!(!suspended.maps.contains_key("lender~m"));
    for map in [json!({"name": "m", "program": "p"}), json!({"name": "m", "program": "../q"})] {
        assert_eq!(recorded(desired(&sockets(&target(map), &json!({}))).unwrap_err()), Reason::InvalidSpec);
    }
}

#[test]
fn only_a_message_program_that_passes_everything_lets_sockets_go() {
    let on_map = |name: &str| {
        let programs = json!([{"name": name, "attach": [{"type": "Map", "map": {"name": "m"}}]}]);
        desired(&sockets(&programs, &json!({}))).unwrap().diverts()
    };
    assert!(!on_map("msg") && on_map("judge"));
    let mut redirects =
        sockets(&json!([{"name": "msg", "attach": [{"type": "Map", "map": {"name": "m"}}]}]), &json!({}));
    redirects["object"]["programs"][1]["passesOnly"] = json!(false);
    assert!(desired(&redirects).unwrap().diverts());
}
