//! What may start: nothing that a strict target selects, before the BpfProgram is attached to it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Value, json};
use sockeye_agent::{
    agent::{Agent, Bytes, Missing, Wants},
    gate::{Asked, Gate},
    layout::Layout,
    nri::{Hooked, Pod, Starting},
    policy::Policy,
};
use sockeye_crds::{BpfRevision, names::digest, node::NodeFacts};
use sockeye_fake::FakeNode;
use tokio::sync::{mpsc, oneshot, watch};

struct Object(Result<Vec<u8>, Missing>);

impl Bytes for Object {
    async fn get(&self, _: &str) -> Result<Vec<u8>, Missing> {
        self.0.clone()
    }
}

fn wants(target: Value) -> Wants {
    let spec = json!({
        "program": {"name": "guard", "uid": "0b8a1b7e-6a3c-4b0f-9d7c-7f3a5f0d1c2e"}, "generation": 1, "sequence": 1,
        "digest": digest(b"object"), "programs": [{"name": "my_prog", "attach": [{"cgroup": target}]}],
        "object": {"programs": [{"name": "my_prog", "section": "sockops", "type": "SockOps"}]},
    });
    let revision = BpfRevision::named(serde_json::from_value(spec).unwrap());
    Wants { run: [("guard".to_owned(), Arc::new(revision))].into(), complete: true, ..Wants::default() }
}

fn pod() -> Pod {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    Pod { uid: "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(), namespace: "shop".into(), name: "web".into(), labels }
}

fn agent() -> Agent<FakeNode> {
    on(FakeNode::default())
}

fn on(node: FakeNode) -> Agent<FakeNode> {
    let layout = Layout::new(Path::new("/sys/fs/bpf"), Path::new("/sys/fs/bpf"));
    Agent::new(node, layout, Policy::default(), NodeFacts::default())
}

fn refused() -> Object {
    Object(Err(Missing::Refused("gone".into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_wait_for_what_is_attached_to_all_of_them() {
    let (wants, mut agent) = (wants(json!({"scope": "Pods", "strict": true})), agent());
    agent.pass(&wants, &refused(), true).await;
    let not_yet = agent.may_start(&wants, &pod(), None).unwrap_err();
    assert!(!not_yet.passes && not_yet.why.contains("BpfProgram guard") && not_yet.why.contains("gone"), "{not_yet}");
    let mut agent = self::agent();
    agent.pass(&wants, &Object(Err(Missing::Awaited)), true).await;
    assert!(agent.may_start(&wants, &pod(), None).unwrap_err().passes);
    let mut agent = self::agent();
    agent.pass(&wants, &Object(Ok(b"object".to_vec())), true).await;
    assert_eq!(agent.may_start(&wants, &pod(), None), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_come_at_any_moment_is_waited_for() {
    let (asks, starts) = mpsc::channel(1);
    let (_hooked, hooked) = watch::channel(Hooked::No { why: "not yet".to_owned() });
    let node = FakeNode::default();
    node.make_pod(&pod().uid);
    let (mut gate, mut agent) = (Gate::new(starts, hooked), on(node));
    let (answer, mut answered) = oneshot::channel();
    asks.send(Starting { pod: pod(), container: None, answer }).await.unwrap();
    let Asked::Start(start) = gate.asked().await else { panic!("a start was asked for") };
    gate.take(Asked::Start(start), &mut agent);

    // Which pods there are is not told yet.
    let selects = json!({"scope": "Pods", "strict": true, "podSelector": {"matchLabels": {"app": "web"}}});
    let untold = wants(selects);
    agent.pass(&untold, &refused(), true).await;
    gate.answer(&agent, &untold);
    assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty), "it waits");

    // Now it is, and what is wanted does not come at all.
    let told = Wants { pods: Some(Arc::default()), ..untold };
    agent.pass(&told, &refused(), true).await;
    gate.answer(&agent, &told);
    assert!(answered.try_recv().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_cgroup_is_not_found_does_not_get_by() {
    let selects = json!({"scope": "Pods", "strict": true, "podSelector": {"matchLabels": {"app": "web"}}});
    let (wants, mut agent) = (Wants { pods: Some(Arc::default()), ..wants(selects) }, agent());
    agent.starting(&pod(), None);
    agent.pass(&wants, &Object(Ok(b"object".to_vec())), true).await;
    let not_yet = agent.may_start(&wants, &pod(), None).unwrap_err();
    assert!(!not_yet.passes && not_yet.why.contains("its cgroup is not where the kubelet puts it"), "{not_yet}");
    let other = Pod { labels: BTreeMap::new(), ..pod() };
    assert_eq!(agent.may_start(&wants, &other, None), Ok(()));
}
