use proptest::prelude::*;
use serde_json::json;
use sockeye_crds::revision::{self, RevisionState};

use super::*;
use crate::view::fixtures;

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn cluster() -> Cluster {
    let pod = |name: &str, node: &str, app: &str| Pod {
        namespace: "shop".into(),
        name: name.into(),
        node: node.into(),
        labels: labels(&[("app", app)]),
        namespace_labels: Some(BTreeMap::new()),
        ..Pod::default()
    };
    Cluster {
        nodes: Some(
            [("a".to_owned(), labels(&[("disk", "ssd")])), ("b".to_owned(), labels(&[("disk", "hdd")]))].into(),
        ),
        pods: Some(vec![pod("web", "a", "web"), pod("db", "a", "db"), pod("web2", "b", "web")]),
    }
}

fn map(name: &str, members: &Value) -> Value {
    let mut map = json!({
        "name": name, "type": "Hash", "keySizeBytes": 4, "valueSizeBytes": 8, "maxEntries": 10, "definition": "BTF",
        "usedBy": ["f"],
    });
    for (name, value) in members.as_object().unwrap() {
        map[name] = value.clone();
    }
    map
}

fn template(members: &Value) -> RevisionTemplate {
    let data = map(".data", &json!({"definition": "Data"}));
    let mut template = json!({
        "digest": "sha256:0",
        "object": {"programs": [], "maps": [map("counts", &json!({})), data], "btf": true},
        "programs": [{"name": "f", "attach": [{"type": "AllPods"}]}],
    });
    for (name, value) in members.as_object().unwrap() {
        template[name] = value.clone();
    }
    serde_json::from_value(template).unwrap()
}

fn of(old: &Value, new: &Value) -> Diff {
    diff("p", Some(&template(old)), &template(new), &cluster())
}

#[test]
fn another_selector_moves_nodes_and_pods_and_loads_nothing() {
    let ssd = json!({"matchLabels": {"disk": "ssd"}});
    let pods = json!({"type": "Pods", "pods": {"podSelector": {"matchLabels": {"app": "web"}}}});
    let new = json!({"nodeSelector": ssd, "programs": [{"name": "f", "attach": [pods]}]});
    let mut found = of(&json!({}), &new);
    found.fields = fields("spec", &json!({}), &json!({"nodeSelector": ssd}));
    let expected = "\
p: changes
  spec.nodeSelector: none -> {\"matchLabels\":{\"disk\":\"ssd\"}}
Load: none; what is loaded stays
Nodes: 0 gain it, 1 lose it, 1 stay
  - b
Pods: 0 gain it, 2 lose it, 1 stay
  - shop/db: f
  - shop/web2: f
Maps:
  .data   Kept
  counts  Kept
";
    assert_eq!(render(&found), expected);
    assert!(of(&json!({}), &json!({"suspend": true})).pods.unwrap().lost.len() == 3);
}

#[test]
fn each_option_of_a_load_is_named() {
    for (new, why) in [
        (json!({"digest": "sha256:1"}), "the object is another one"),
        (json!({"programs": [{"name": "g", "attach": [{"type": "AllPods"}]}]}), "program g is added"),
        (json!({"maps": [{"name": "counts", "maxEntries": 5}]}), "map counts"),
        (json!({"maps": [{"name": "counts", "pinning": "None"}]}), "map counts"),
        (json!({"globals": {"limit": 1}}), "global variables"),
    ] {
        let found = of(&json!({}), &new);
        assert!(found.loads.iter().any(|line| line.contains(why)), "{new}: {:?}", found.loads);
        assert_eq!(found.maps[0].fate, Fate::Recreated, "global data is each load's: {new}");
    }
    for new in [json!({"priority": 1}), json!({"maps": [{"name": "counts", "reclaimPolicy": "Retain"}]})] {
        assert_eq!(of(&json!({}), &new).loads, Vec::<String>::new(), "{new}");
    }
}

#[test]
fn maps_survive_a_load_by_their_shape_and_settings() {
    let object = |members: Value| json!({"programs": [], "maps": [map("counts", &members)], "btf": true});
    let loaded = |members: Value, maps: Value| {
        let found = of(&json!({}), &json!({"digest": "sha256:1", "object": object(members), "maps": maps}));
        let fate = found.maps.iter().find(|map| map.name == "counts").unwrap().clone();
        (fate.fate, fate.why)
    };
    assert_eq!(loaded(json!({}), json!([])), (Fate::Kept, String::new()));
    let (fate, why) = loaded(json!({"valueSizeBytes": 16}), json!([]));
    assert!(fate == Fate::Refused && why.contains("value size 8 -> 16"), "{why}");
    let (fate, why) = loaded(json!({"type": "Array"}), json!([{"name": "counts", "onIncompatible": "Recreate"}]));
    assert!(fate == Fate::Recreated && why.contains("type Hash -> Array"), "{why}");
    assert_eq!(loaded(json!({}), json!([{"name": "counts", "pinning": "None"}])).0, Fate::Recreated);
    let (fate, _) = loaded(json!({"maxEntries": 20}), json!([{"name": "counts", "maxEntries": 10}]));
    assert_eq!(fate, Fate::Kept, "the spec's number is what counts");
    let (fate, why) = loaded(json!({}), json!([{"name": "counts", "mapRef": {"program": "q", "name": "m"}}]));
    assert_eq!((fate, &*why), (Fate::Removed, "it becomes map m of BpfProgram q"));
}

#[test]
fn entries_of_a_map_that_exists_follow_their_policy() {
    let entries = |policy: &str| {
        let maps = json!([{"name": "counts", "entriesPolicy": policy, "entries": [{"key": 1, "value": 1}]}]);
        of(&json!({}), &json!({"maps": maps})).maps[1].why.clone()
    };
    assert!(entries("Sync").contains("brought in step") && entries("OnCreate").contains("stay as they are"));
}

#[test]
fn fields_of_named_items_are_found_by_name() {
    let old = json!({"maps": [{"name": "a", "maxEntries": 1}, {"name": "b"}], "l": [1, 2]});
    let new = json!({"maps": [{"name": "b"}, {"name": "a", "maxEntries": 2}, {"name": "c"}], "l": [1]});
    let found: Vec<String> = fields("spec", &old, &new).into_iter().map(|field| field.path).collect();
    assert_eq!(found, ["spec.l[1]", "spec.maps[a].maxEntries", "spec.maps[c]"]);
    assert_eq!(fields("spec", &old, &old), []);
}

#[test]
fn what_may_not_be_read_is_not_known() {
    let found = diff("p", None, &template(&json!({})), &Cluster::default());
    let text = render(&found);
    assert!(text.starts_with("p: is created\n") && text.contains("Pods: not known"), "{text}");
}

fn selector() -> impl Strategy<Value = Value> {
    let key = prop_oneof![Just("disk"), Just("zone")];
    let value = prop_oneof![Just("x"), Just("y")];
    prop_oneof![
        Just(Value::Null),
        (key.clone(), value.clone()).prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        (key, value, prop_oneof![Just("In"), Just("NotIn")]).prop_map(|(key, value, operator)| {
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]})
        }),
    ]
}

proptest! {
    /// The prediction for nodes is what the revisions, dispatched, have each node run.
    #[test]
    fn nodes_gain_and_lose_what_revisions_say(
        old in selector(),
        new in selector(),
        disks in prop::collection::vec((prop::option::of("[xy]"), prop::option::of("[xy]")), 1..6),
    ) {
        let nodes: BTreeMap<String, BTreeMap<String, String>> = disks
            .into_iter()
            .enumerate()
            .map(|(at, (disk, zone))| {
                let all = [("disk", disk), ("zone", zone)].into_iter();
                (format!("n{at}"), all.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
            })
            .collect();
        let with = |selector: &Value| {
            let object = json!({"programs": [], "maps": [], "btf": true});
            let mut members = json!({"digest": "sha256:0", "object": object, "programs": [{"name": "f"}]});
            if !selector.is_null() {
                members["nodeSelector"] = selector.clone();
            }
            members
        };
        let (mut before, after) = (fixtures::revision("p", 1, with(&old)), fixtures::revision("p", 2, with(&new)));
        let cluster = Cluster { nodes: Some(nodes.clone()), pods: None };
        let change = diff("p", Some(&before.spec.template), &after.spec.template, &cluster).nodes.unwrap();
        let runs = |revisions: &[&sockeye_crds::BpfRevision], labels| {
            revision::assigned(revisions.iter().copied(), labels).contains_key("p")
        };
        let ran: BTreeSet<&String> =
            nodes.iter().filter(|(_, labels)| runs(&[&before], labels)).map(|(name, _)| name).collect();
        before.spec.state = RevisionState::Retired;
        let will: BTreeSet<&String> =
            nodes.iter().filter(|(_, labels)| runs(&[&before, &after], labels)).map(|(name, _)| name).collect();
        prop_assert_eq!(change.gained.iter().collect::<BTreeSet<_>>(), will.difference(&ran).copied().collect());
        prop_assert_eq!(change.lost.iter().collect::<BTreeSet<_>>(), ran.difference(&will).copied().collect());
        prop_assert_eq!(change.unchanged, ran.intersection(&will).count());
    }
}
