//! [`World`]: an API server with one BpfProgram, and the agents of three nodes. It checks every write against the
//! operator's promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, core::DeserializeGuard};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgramStatus, BpfRevision, ConditionType, ObjectInfo, ProgramType, Reason, Refusal, condition, names,
    program::ProgramSpec, revision::desired,
};
use sockeye_ebpf::Accepted;
use sockeye_operator::{
    events::ProgramEvent,
    reconcile::{
        bytecode::GatheredBytecode,
        cache::ProgramCache,
        gather::Gathered,
        intent::Intent,
        plan::plan,
        step::Step,
        update_status::update_status,
        validate::{CheckOutcome, Validated},
    },
    watch::{nodes::Nodes, revisions::Revisions},
};

pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

#[derive(Clone, Debug, Default)]
pub struct World {
    pub generation: i64,
    /// The bytes that the spec names; none for a spec that is rejected.
    pub spec: Option<u8>,
    pub is_deleted: bool,
    /// Other BpfPrograms that borrow its maps.
    pub borrowers: Vec<String>,
    /// True once the finalizer is removed.
    pub is_gone: bool,
    pub finalizers: Vec<String>,
    pub status: BpfProgramStatus,
    pub revisions: Vec<BpfRevision>,
    /// The names of revisions that a newer operator created and this one cannot read.
    pub unreadable: BTreeSet<String>,
    pub stored_digests: BTreeSet<String>,
    /// The revision that each node runs.
    running: BTreeMap<&'static str, String>,
    pub live_nodes: BTreeSet<&'static str>,
    pub events: Vec<ProgramEvent>,
    created_revisions: u32,
}

impl World {
    pub fn new() -> Self {
        Self { generation: 1, spec: Some(0), live_nodes: NODES.into(), ..Self::default() }
    }

    /// Returns a world in which every node runs the spec.
    pub fn rolled_out() -> Self {
        let mut world = Self::new();
        world.converge();
        world.run_all_agents();
        world.converge();
        world
    }

    pub fn edit(&mut self, spec: Option<u8>) {
        (self.spec, self.generation) = (spec, self.generation + 1);
    }

    fn bytes(&self) -> Vec<u8> {
        vec![self.spec.unwrap_or_default(); 8]
    }

    fn validated(&self) -> Validated {
        let bytes = self.bytes();
        let result = match self.spec {
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
        // Gathering reads bytes only if they are not stored yet.
        let is_read = result.as_ref().is_ok_and(|accepted| !self.stored_digests.contains(&accepted.digest));
        Validated { outcome: CheckOutcome::Checked(Arc::new(result)), bytes: is_read.then_some(bytes) }
    }

    fn gathered(&self) -> Gathered {
        let mut meta = json!({"name": "p", "uid": "u", "generation": self.generation, "finalizers": self.finalizers});
        if self.is_deleted {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let spec = json!({"bytecode": {"inline": "AA=="}, "programs": [{"name": "my_prog", "attach": []}]});
        let status = serde_json::to_value(&self.status).unwrap();
        let object: Arc<DeserializeGuard<_>> = read(json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
            "metadata": meta, "spec": spec, "status": status}));
        assert!(object.0.is_ok(), "{object:?}");
        Gathered {
            intent: Intent::new(object, &ProgramCache::default()),
            bytecode: GatheredBytecode::Checked,
            revisions: self.gathered_revisions(),
            stored_digests: self.stored_digests.clone(),
            borrowers: if self.is_deleted { self.borrowers.clone() } else { vec![] },
            nodes: self.nodes(),
        }
    }

    fn gathered_revisions(&self) -> Revisions {
        let is_readable = |revision: &BpfRevision| !self.unreadable.contains(&revision.name_any());
        let (readable, unreadable): (Vec<_>, Vec<_>) = self.revisions.iter().cloned().partition(is_readable);
        Revisions { readable, unreadable: unreadable.into_iter().map(|revision| revision.metadata).collect() }
    }

    fn nodes(&self) -> Nodes {
        let ready = |is_ready: bool| {
            let status = if is_ready { "True" } else { "False" };
            json!({"conditions": [{"type": "Ready", "status": status}]})
        };
        let node = |name| read(json!({"metadata": {"name": name}, "status": ready(self.live_nodes.contains(name))}));
        let pod = |name| read(json!({"metadata": {"name": name}, "spec": {"nodeName": name}, "status": ready(true)}));
        let report = |name| {
            let held = |revision| json!([{"name": "p", "uid": "u", "revision": revision, "state": "Attached"}]);
            let programs = self.running.get(name).map_or(json!([]), held);
            read(
                json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": name}, "spec": {},
                "status": {"programs": programs}}),
            )
        };
        Nodes::new(NODES.map(node), NODES.map(pod), NODES.map(report))
    }

    /// Reconciles once, and stops after `max_writes`. Returns the number of writes.
    pub fn reconcile(&mut self, max_writes: usize) -> usize {
        if self.is_gone {
            return 0;
        }
        let (gathered, validated) = (self.gathered(), self.validated());
        let planned = plan(&gathered, &validated);
        let planned_writes = planned.steps.len();
        self.apply(planned.steps.into_iter().take(max_writes));
        if planned_writes > max_writes {
            return max_writes;
        }
        let now = Timestamp::from_second(self.generation).unwrap();
        let steps = update_status(&gathered, &validated, planned.dispatched.as_ref(), now);
        let status_writes = steps.len().min(max_writes - planned_writes);
        self.apply(steps.into_iter().take(status_writes));
        planned_writes + status_writes
    }

    /// Reconciles until nothing is left to do.
    pub fn converge(&mut self) {
        for _ in 0..5 {
            if self.reconcile(usize::MAX) == 0 {
                return;
            }
        }
        panic!("it does not converge: {:?}", plan(&self.gathered(), &self.validated()));
    }

    fn apply(&mut self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            let is_event = matches!(step, Step::PublishEvent(_));
            assert!(is_event || !self.is_gone, "a write after the finalizer was removed: {step:?}");
            self.run(step);
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::AddFinalizer { present } => {
                assert_eq!(present, self.finalizers);
                self.finalizers.push(names::FINALIZER.into());
            }
            Step::StoreBytes { digest, bytes } => {
                assert_eq!(names::digest(&bytes), digest);
                self.stored_digests.insert(digest);
            }
            Step::Dispatch(revision) => self.create_revision(*revision),
            Step::Withdraw { revision, uid: _ } => {
                let live = self.revisions.iter().filter(|revision| revision.is_live()).count();
                assert!(live > 1, "the last live revision is withdrawn");
                let labels = self.revision_mut(&revision).metadata.labels.get_or_insert_default();
                labels.insert(names::LABEL_LIVE.into(), "false".into());
            }
            Step::DeleteRevision { revision, uid: _ } => {
                assert!(
                    self.is_deleted || !self.running.values().any(|running| *running == revision),
                    "a node runs it"
                );
                self.revisions.retain(|existing| existing.name_any() != revision);
            }
            Step::WriteStatus(status) => {
                assert_ne!(*status, self.status, "a write that changes nothing");
                self.status = *status;
            }
            Step::RemoveFinalizer { index } => {
                assert_eq!(self.finalizers.remove(index), names::FINALIZER);
                assert!(!self.live_nodes.iter().any(|node| self.running.contains_key(node)), "a live node runs it");
                assert!(self.revisions.is_empty(), "an agent could run it again");
                let ready = self.ready();
                assert_eq!((ready.reason, &*ready.message), (Reason::Deleting, "no live node holds it any more"));
                self.is_gone = true;
            }
            Step::PublishEvent(event) => self.events.push(event),
            Step::DeleteBytes { .. } => panic!("bytes belong to no BpfProgram"),
        }
    }

    fn create_revision(&mut self, mut revision: BpfRevision) {
        let has_finalizer = self.finalizers.iter().any(|finalizer| finalizer == names::FINALIZER);
        assert!(has_finalizer, "agents would keep it after its deletion");
        assert!(self.stored_digests.contains(&revision.spec.digest), "agents could not fetch its bytes");
        let readable = self.gathered_revisions().readable;
        assert!(readable.iter().all(|older| older.spec.sequence < revision.spec.sequence), "sequences increase");
        assert!(revision.is_live());
        self.created_revisions += 1;
        revision.metadata.uid = Some(format!("revision-{}", self.created_revisions));
        self.revisions.push(revision);
    }

    fn revision_mut(&mut self, name: &str) -> &mut BpfRevision {
        self.revisions.iter_mut().find(|revision| revision.name_any() == name).unwrap()
    }

    /// Lets a node's agent do its work. It keeps what it runs while it cannot read a live revision.
    pub fn run_agent(&mut self, node: &'static str) {
        if self.live_revisions().iter().any(|name| self.unreadable.contains(name)) {
            return;
        }
        let desired = desired(&self.revisions, &BTreeMap::new()).get("p").map(|revision| revision.name_any());
        match desired {
            Some(revision) => self.running.insert(node, revision),
            None => self.running.remove(node),
        };
    }

    pub fn run_all_agents(&mut self) {
        NODES.into_iter().for_each(|node| self.run_agent(node));
    }

    pub fn live_revisions(&self) -> Vec<String> {
        self.revisions.iter().filter(|revision| revision.is_live()).map(|revision| revision.name_any()).collect()
    }

    pub fn ready(&self) -> &condition::Condition {
        condition::find(&self.status.conditions, ConditionType::Ready).unwrap()
    }

    pub fn condition(&self, type_: ConditionType) -> Option<(condition::Status, Reason)> {
        condition::find(&self.status.conditions, type_).map(|condition| (condition.status, condition.reason))
    }
}

fn read<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}
