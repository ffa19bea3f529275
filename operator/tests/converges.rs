//! Plans against a fake API server: whatever happened, a few looks lead to where nothing is left to do, and on the way no
//! promise is broken. No cluster, no clock.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, core::DeserializeGuard};
use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgramStatus, BpfRevision, ConditionType, ObjectInfo, ProgramType, Reason, Refusal, condition, names,
    program::ProgramSpec,
};
use sockeye_ebpf::Accepted;
use sockeye_operator::{
    cluster::Cluster,
    gather::{Bytecode, Gathered, Intent, Revisions},
    memory::Memory,
    plan::plan,
    step::{Announcement, Step},
    summarize::summarize,
    validate::{Judgement, Validated},
};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// An API server that holds one BpfProgram, and the agents of three nodes.
#[derive(Clone, Debug, Default)]
struct World {
    generation: i64,
    /// Which bytes the user asks for; `None` is a spec that will be refused.
    wants: Option<u8>,
    deleting: bool,
    /// Other BpfPrograms that use its maps.
    users: Vec<String>,
    gone: bool,
    finalizers: Vec<String>,
    status: BpfProgramStatus,
    revisions: Vec<BpfRevision>,
    /// Which of them a newer operator has made in words of its own.
    unreadable: BTreeSet<String>,
    stored: BTreeSet<String>,
    /// What each node has in effect.
    runs: BTreeMap<&'static str, String>,
    live: BTreeSet<&'static str>,
    announced: Vec<Announcement>,
    made: u32,
}

impl World {
    fn new() -> Self {
        Self { generation: 1, wants: Some(0), live: NODES.into(), ..Self::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        vec![self.wants.unwrap_or_default(); 8]
    }

    fn validated(&self) -> Validated {
        let bytes = self.bytes();
        let verdict = match self.wants {
            None => Err(Refusal { reason: Reason::NoSuchProgram, message: "no such program".into() }),
            Some(_) => Ok(Accepted {
                digest: names::digest(&bytes),
                object: ObjectInfo::default(),
                programs: vec![ProgramSpec {
                    name: "my_prog".into(),
                    program_type: Some(ProgramType::SockOps),
                    attach: vec![],
                }],
                maps: vec![],
                globals: BTreeMap::new(),
                node_selector: None,
                priority: None,
                suspend: false,
                notes: vec![],
            }),
        };
        // As gathered: bytes are read only where they are not stored yet.
        let needed = verdict.as_ref().is_ok_and(|accepted| !self.stored.contains(&accepted.digest));
        Validated { judgement: Judgement::Checked(Arc::new(verdict)), bytes: needed.then_some(bytes) }
    }

    fn gathered(&self) -> Gathered {
        let mut meta = json!({"name": "p", "uid": "u", "generation": self.generation, "finalizers": self.finalizers});
        if self.deleting {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let spec = json!({"bytecode": {"inline": "AA=="}, "programs": [{"name": "my_prog", "attach": []}]});
        let status = serde_json::to_value(&self.status).unwrap();
        let object = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": meta, "spec": spec, "status": status});
        let object: Arc<DeserializeGuard<_>> = read(object);
        assert!(object.0.is_ok(), "{object:?}");
        Gathered {
            intent: Intent::read(object, &Memory::default()),
            bytecode: Bytecode::Known,
            revisions: self.gathered_revisions(),
            stored: self.stored.clone(),
            users: if self.deleting { self.users.clone() } else { vec![] },
            cluster: self.cluster(),
        }
    }

    fn gathered_revisions(&self) -> Revisions {
        let is_known = |revision: &BpfRevision| !self.unreadable.contains(&revision.name_any());
        let (known, unreadable): (Vec<_>, Vec<_>) = self.revisions.iter().cloned().partition(is_known);
        Revisions { known, unreadable: unreadable.into_iter().map(|revision| revision.metadata).collect() }
    }

    fn cluster(&self) -> Cluster {
        let ready =
            |yes: bool| json!({"conditions": [{"type": "Ready", "status": if yes { "True" } else { "False" }}]});
        let node = |name| read(json!({"metadata": {"name": name}, "status": ready(self.live.contains(name))}));
        let pod = |name| read(json!({"metadata": {"name": name}, "spec": {"nodeName": name}, "status": ready(true)}));
        let report = |name| {
            let held = |revision| json!([{"name": "p", "uid": "u", "revision": revision, "state": "Attached"}]);
            let programs = self.runs.get(name).map_or(json!([]), held);
            let status = json!({"programs": programs});
            read(
                json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": name}, "spec": {}, "status": status}),
            )
        };
        Cluster::new(NODES.map(node), NODES.map(pod), NODES.map(report))
    }

    /// One look, cut off after `most` writes. Says how many there were.
    fn look(&mut self, most: usize) -> usize {
        if self.gone {
            return 0;
        }
        let (gathered, validated) = (self.gathered(), self.validated());
        let planned = plan(&gathered, &validated);
        let work = planned.steps.len();
        self.apply(planned.steps.into_iter().take(most));
        if work > most {
            return most;
        }
        let now = Timestamp::from_second(self.generation).unwrap();
        let summary = summarize(&gathered, &validated, planned.dispatched.as_ref(), now);
        let told = summary.len();
        self.apply(summary.into_iter().take(most - work));
        work + told.min(most - work)
    }

    fn settle(&mut self) {
        for _ in 0..5 {
            if self.look(usize::MAX) == 0 {
                return;
            }
        }
        panic!("it never settles: {:?}", plan(&self.gathered(), &self.validated()));
    }

    fn apply(&mut self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            let event = matches!(step, Step::Announce(_));
            assert!(event || !self.gone, "a write after the finalizer went: {step:?}");
            self.step(step);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::AddFinalizer { present } => {
                assert_eq!(present, self.finalizers);
                self.finalizers.push(names::FINALIZER.into());
            }
            Step::StoreBytes { digest, bytes } => {
                assert_eq!(names::digest(&bytes), digest);
                self.stored.insert(digest);
            }
            Step::Dispatch(revision) => self.dispatch(*revision),
            Step::Withdraw { revision, uid: _ } => {
                assert!(
                    self.revisions.iter().filter(|r| r.is_live()).count() > 1,
                    "the last live revision is withdrawn"
                );
                self.named(&revision)
                    .metadata
                    .labels
                    .get_or_insert_default()
                    .insert(names::LABEL_LIVE.into(), "false".into());
            }
            Step::DeleteRevision { revision, uid: _ } => {
                assert!(self.deleting || !self.runs.values().any(|it| *it == revision), "it runs somewhere");
                self.revisions.retain(|it| it.name_any() != revision);
            }
            Step::WriteStatus(status) => {
                assert_ne!(*status, self.status, "a write that changes nothing");
                self.status = *status;
            }
            Step::RemoveFinalizer { index } => {
                assert_eq!(self.finalizers.remove(index), names::FINALIZER);
                assert!(!self.live.iter().any(|node| self.runs.contains_key(node)), "a live node still holds it");
                assert!(self.revisions.is_empty(), "an agent could run it again");
                self.finished();
            }
            Step::Announce(announcement) => self.announced.push(announcement),
            Step::DeleteBytes { .. } => panic!("bytes belong to no BpfProgram"),
        }
    }

    fn dispatch(&mut self, mut revision: BpfRevision) {
        assert!(self.finalizers.iter().any(|it| it == names::FINALIZER), "agents would keep it when it is deleted");
        assert!(self.stored.contains(&revision.spec.digest), "agents could not get its bytes");
        let known = self.gathered_revisions().known;
        assert!(known.iter().all(|it| it.spec.sequence < revision.spec.sequence), "sequences rise");
        assert!(revision.is_live());
        self.made += 1;
        revision.metadata.uid = Some(format!("revision-{}", self.made));
        self.revisions.push(revision);
    }

    fn named(&mut self, name: &str) -> &mut BpfRevision {
        self.revisions.iter_mut().find(|revision| revision.name_any() == name).unwrap()
    }

    fn finished(&mut self) {
        let ready = condition::find(&self.status.conditions, ConditionType::Ready).unwrap();
        assert_eq!((ready.reason, &*ready.message), (Reason::Deleting, "no live node holds it any more"));
        self.gone = true;
    }

    /// The agent of a node does what agents do.
    fn agent(&mut self, node: &'static str) {
        if self.revisions.iter().any(|revision| revision.is_live() && self.unreadable.contains(&revision.name_any())) {
            return;
        }
        let wanted = sockeye_crds::revision::desired(&self.revisions, &BTreeMap::new()).get("p").map(|r| r.name_any());
        match wanted {
            Some(revision) => self.runs.insert(node, revision),
            None => self.runs.remove(node),
        };
    }

    fn live_revisions(&self) -> Vec<String> {
        self.revisions.iter().filter(|revision| revision.is_live()).map(|revision| revision.name_any()).collect()
    }

    fn says(&self, type_: ConditionType) -> Option<(condition::Status, Reason)> {
        condition::find(&self.status.conditions, type_).map(|c| (c.status, c.reason))
    }
}

fn read<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

#[derive(Clone, Debug)]
enum Deed {
    Edit(Option<u8>),
    Agent(&'static str),
    Live(&'static str, bool),
    Look(usize),
    LoseBytes,
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = || proptest::sample::select(NODES.to_vec());
    prop_oneof![
        proptest::option::weighted(0.8, 0..3u8).prop_map(Deed::Edit),
        node().prop_map(Deed::Agent),
        (node(), any::<bool>()).prop_map(|(node, live)| Deed::Live(node, live)),
        (0..6usize).prop_map(Deed::Look),
        Just(Deed::LoseBytes),
    ]
}

proptest! {
    /// However edits, agents, failures and half-done looks follow each other, it settles, with one live revision: the last
    /// accepted spec's; and, deleted, it goes.
    #[test]
    fn whatever_happens_it_settles(deeds in proptest::collection::vec(deed(), 0..30)) {
        let mut world = World::new();
        let mut accepted = None;
        for deed in deeds {
            match deed {
                Deed::Edit(wants) => {
                    (world.wants, world.generation) = (wants, world.generation + 1);
                }
                Deed::Agent(node) => world.agent(node),
                Deed::Live(node, true) => { world.live.insert(node); }
                Deed::Live(node, false) => { world.live.remove(node); }
                Deed::Look(most) => { world.look(most); }
                // Only an accepted spec's bytes can be stored again.
                Deed::LoseBytes if world.wants.is_some() => world.stored.clear(),
                Deed::LoseBytes => {}
            }
            if !world.live_revisions().is_empty() && world.wants.is_some() {
                accepted = world.wants;
            }
        }
        world.settle();
        prop_assert_eq!(world.status.observed_generation, world.generation);
        let live = world.live_revisions();
        prop_assert!(live.len() <= 1);
        if let Some(wants) = world.wants {
            let newest = world.revisions.iter().find(|revision| revision.is_live()).unwrap();
            prop_assert_eq!(&newest.spec.digest, &names::digest(&[wants; 8]));
            prop_assert!(world.stored.contains(&newest.spec.digest));
        } else {
            prop_assert_eq!(live.is_empty(), world.revisions.is_empty() || accepted.is_none());
        }

        NODES.into_iter().for_each(|node| world.agent(node));
        world.settle();
        prop_assert_eq!(world.revisions.len(), live.len(), "what runs nowhere is gone");

        world.deleting = true;
        world.look(usize::MAX);
        NODES.into_iter().for_each(|node| world.agent(node));
        if !world.finalizers.is_empty() {
            world.settle();
            prop_assert!(world.gone);
        }
    }
}

#[test]
fn a_refused_edit_changes_no_revision() {
    let mut world = World::new();
    world.settle();
    NODES.into_iter().for_each(|node| world.agent(node));
    world.settle();
    assert_eq!(world.says(ConditionType::Ready), Some((condition::Status::True, Reason::InEffect)));
    let before = world.revisions.clone();

    (world.wants, world.generation) = (None, 2);
    world.settle();
    assert_eq!(world.revisions, before);
    assert_eq!(world.says(ConditionType::Accepted), Some((condition::Status::False, Reason::NoSuchProgram)));
    assert_eq!(world.says(ConditionType::Attached), Some((condition::Status::True, Reason::InEffect)));
    assert_eq!(world.status.dispatch.as_ref().map(|dispatch| dispatch.generation), Some(1));

    (world.wants, world.generation) = (Some(0), 3);
    world.settle();
    assert_eq!(world.revisions, before, "the same content again needs no new revision");
    assert_eq!(world.says(ConditionType::Ready), Some((condition::Status::True, Reason::InEffect)));
    assert_eq!((world.status.observed_generation, world.status.dispatch.unwrap().generation), (3, 1));
}

#[test]
fn an_older_revision_is_withdrawn_at_once_and_kept_while_it_runs() {
    let mut world = World::new();
    world.settle();
    NODES.into_iter().for_each(|node| world.agent(node));
    (world.wants, world.generation) = (Some(1), 2);
    world.settle();
    assert_eq!((world.live_revisions().len(), world.revisions.len()), (1, 2));
    world.agent("node-1");
    world.settle();
    assert_eq!(world.revisions.len(), 2);
    world.agent("node-2");
    world.agent("node-3");
    world.settle();
    assert_eq!(world.revisions.len(), 1);
}

/// Agents leave alone what they can't read, and nobody else may take it away.
#[test]
fn what_a_newer_operator_has_made_stays_until_there_is_something_else_and_then_goes() {
    let ran_back = || {
        let mut world = World::new();
        world.settle();
        NODES.into_iter().for_each(|node| world.agent(node));
        world.settle();
        world.unreadable = world.live_revisions().into_iter().collect();
        world
    };
    let mut edited = ran_back();
    (edited.wants, edited.generation) = (None, 2);
    edited.settle();
    assert_eq!(edited.live_revisions().len(), 1, "the spec that asks for it can't be read either");
    (edited.wants, edited.generation) = (Some(1), 3);
    edited.settle();
    NODES.into_iter().for_each(|node| edited.agent(node));
    edited.settle();
    assert_eq!(edited.says(ConditionType::Ready), Some((condition::Status::True, Reason::InEffect)));
    assert!(edited.revisions.len() == 1 && !edited.unreadable.contains(&edited.live_revisions()[0]));

    let mut deleted = ran_back();
    (deleted.deleting, deleted.users) = (true, vec!["reader".into()]);
    deleted.settle();
    assert_eq!(deleted.live_revisions().len(), 1, "others use its maps");
    deleted.users.clear();
    deleted.settle();
    NODES.into_iter().for_each(|node| deleted.agent(node));
    deleted.settle();
    assert!(deleted.gone);
}

#[test]
fn deletion_waits_while_others_use_its_maps() {
    let mut world = World::new();
    world.settle();
    NODES.into_iter().for_each(|node| world.agent(node));
    world.settle();
    let (revisions, dispatch) = (world.revisions.clone(), world.status.dispatch.clone());
    (world.deleting, world.users) = (true, vec!["reader".into()]);
    world.settle();
    assert_eq!((&world.revisions, &world.status.dispatch), (&revisions, &dispatch), "agents go on running it");
    assert_eq!(world.says(ConditionType::Ready), Some((condition::Status::False, Reason::InUse)));
    assert_eq!(world.says(ConditionType::Reconciling), Some((condition::Status::True, Reason::InUse)));
    assert_eq!(world.says(ConditionType::Attached), Some((condition::Status::True, Reason::InEffect)));
    let told = world.announced.iter().filter(|it| it.reason == "InUse" && it.note.contains("reader"));
    assert_eq!(told.count(), 1);

    world.users.clear();
    world.settle();
    assert!(!world.gone && world.revisions.is_empty());
    // Who comes now, as one that is made anew with it, waits for the next of that name.
    world.users = vec!["writer".into()];
    NODES.into_iter().for_each(|node| world.agent(node));
    world.settle();
    assert!(world.gone);
}

#[test]
fn deletion_waits_for_live_nodes_alone() {
    let mut world = World::new();
    world.settle();
    NODES.into_iter().for_each(|node| world.agent(node));
    world.settle();
    world.deleting = true;
    world.settle();
    assert!(!world.gone && world.revisions.is_empty());
    let ready = condition::find(&world.status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.message, "being removed from node-1, node-2, node-3");

    world.agent("node-1");
    world.agent("node-2");
    world.live.remove("node-3");
    world.settle();
    assert!(world.gone);
    assert_eq!(world.announced.last().map(|it| &*it.reason), Some("Detached"));
}
