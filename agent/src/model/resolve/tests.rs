//! Revisions as a whole, resolved on a made-up node.

use sockeye_crds::{BpfRevision, Reason};

use crate::model::{
    desired::Desired,
    kernel::{Machine, MissingFeatures, ProgramKind},
    node_context::NodeContext,
    pods::Pods,
};

pub(super) fn node_context() -> NodeContext {
    let features = vec!["ScopePods".to_owned()];
    let machine = Machine { page: 4096, cpus: 2 };
    let (pods_root, pods) = ("/kubepods".to_owned(), Pods::default());
    NodeContext { machine, features, missing_features: MissingFeatures::default(), pods_root, pods, has_api: false }
}

#[test]
fn only_a_pinned_map_is_an_attach_target() {
    let desired = |map: &str, pin: bool| {
        let spec = serde_json::json!({
            "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
            "object": {
                "programs": [{"name": "f", "section": "sk_msg"}],
                "maps": [{"name": "m", "type": "Sockhash", "keySize": 4, "valueSize": 8, "maxEntries": 1,
                    "definition": "Btf"}],
            },
            "programs": [{"name": "f", "attach": [{"map": map}]}],
            "maps": [{"name": "m", "pin": pin}],
        });
        Desired::new(&BpfRevision::new("p-1", serde_json::from_value(spec).unwrap()), &node_context())
    };
    let pinned = desired("m", true).unwrap();
    assert!(pinned.attaches_to_maps && pinned.functions["f"].maps.contains("m") && pinned.paths().is_empty());
    for refused in [desired("m", false), desired("n", true)] {
        assert_eq!(refused.unwrap_err().reason, Reason::InvalidSpec);
    }
}

#[test]
fn a_feature_that_the_agent_does_not_support_is_named() {
    let spec = serde_json::json!({
        "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
        "object": {}, "requires": ["ScopePods", "Tomorrow"], "programs": [],
    });
    let revision = BpfRevision::new("p-1", serde_json::from_value(spec).unwrap());
    let refusal = Desired::new(&revision, &node_context()).unwrap_err();
    assert_eq!(refusal.reason, Reason::AgentTooOld);
    assert!(refusal.message.contains("requires Tomorrow,"), "{refusal}");
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named() {
    let spec = serde_json::json!({
        "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
        "object": {
            "programs": [{"name": "f", "section": "cgroup/getpeername4"}],
            "maps": [{"name": "m", "type": "CgrpStorage", "keySize": 4, "valueSize": 8, "maxEntries": 0, "flags": 1,
                "definition": "Btf"}],
        },
        "programs": [{"name": "f", "attach": [{"cgroup": {"scope": "Node"}}]}],
    });
    let revision = BpfRevision::new("p-1", serde_json::from_value(spec).unwrap());
    let kind = Desired::new(&revision, &node_context()).unwrap().functions["f"].kind;
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
        let refusal = Desired::new(&revision, &NodeContext { missing_features, ..node_context() }).unwrap_err();
        assert_eq!(refusal.reason, Reason::KernelUnsupported);
        assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
    }
}
