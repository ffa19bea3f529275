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
    program::{MapRef, MapSpec, ProgramSpec},
    revision::{RevisionState, assigned},
    target::{AttachTarget, MapTarget},
};
use sockeye_ebpf::Accepted;
use sockeye_operator::{
    events::ProgramEvent,
    reconcile::{
        bytecode::GatheredBytecode,
        cache::ProgramCache,
        gather::Gathered,
        intent::Intent,
        plan::{is_same_revision, plan},
        sharing::refuse_unshared,
        step::{ObjectVersion, Step},
        update_status::update_status,
        validate::{CheckOutcome, Validated},
    },
    watch::{nodes::Nodes, revisions::Revisions, sharing::Lender},
};

pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A write was refused with HTTP 409.
#[derive(Debug)]
pub struct Conflict;

#[derive(Clone, Debug, Default)]
pub struct World {
    pub generation: i64,
    /// The bytes that the spec names; none for a spec that is rejected.
    pub spec: Option<u8>,
    pub is_deleted: bool,
    /// Other BpfPrograms that borrow its maps.
    pub borrowers: Vec<String>,
    /// The map of another BpfProgram that the spec borrows.
    pub borrowed: Option<MapRef>,
    /// The map that the spec attaches its program to besides.
    pub attached: Option<MapTarget>,
    /// What the BpfPrograms share that the spec may borrow from.
    pub lenders: BTreeMap<String, Lender>,
    /// True once the finalizer is removed.
    pub is_gone: bool,
    pub finalizers: Vec<String>,
    pub status: BpfProgramStatus,
    pub revisions: Vec<BpfRevision>,
    /// The names of revisions that a newer operator created and this one cannot read.
    pub unreadable: BTreeSet<String>,
    pub stored_digests: BTreeSet<String>,
    /// True if a former leader's deletion of stored bytes arrives just after a dispatch.
    pub is_collected_late: bool,
    /// `spec.revisionHistoryLimit`
    pub history_limit: Option<usize>,
    /// The revision that each node runs.
    running: BTreeMap<&'static str, String>,
    pub live_nodes: BTreeSet<&'static str>,
    pub events: Vec<ProgramEvent>,
    /// The highest sequence of an earlier BpfProgram's revisions of the same name.
    pub foreign_sequence: i64,
    /// An old state of the world, whose revisions and status are all that the operator sees.
    pub view: Option<Box<World>>,
    /// The revisions that a watch which lags behind shows; none if it is up to date.
    pub watched_revisions: Option<Vec<BpfRevision>>,
    /// The number of writes that were refused because they were based on an old view.
    pub conflicts: u32,
    writes: u64,
}

impl World {
    pub fn new() -> Self {
        Self { generation: 1, spec: Some(0), history_limit: Some(0), live_nodes: NODES.into(), ..Self::default() }
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
            None => Err(Refusal { reason: Reason::ProgramNotFound, message: "no such program".into() }),
            Some(_) => Ok(Accepted {
                digest: names::digest(&bytes),
                origin: Default::default(),
                object: ObjectInfo::default(),
                programs: vec![ProgramSpec {
                    name: "my_prog".into(),
                    program_type: Some(ProgramType::SockOps),
                    attach_type: None,
                    attach: [AttachTarget::Node]
                        .into_iter()
                        .chain(self.attached.clone().map(|map| AttachTarget::Map { map }))
                        .collect(),
                }],
                maps: self.borrowed.iter().map(borrowing).collect(),
                globals: BTreeMap::new(),
                node_selector: None,
                priority: None,
                suspend: false,
                force_detach: false,
                accepted_regressions: Vec::new(),
                notes: vec![],
            }),
        };
        // Gathering reads bytes if they are not stored, and those of a spec that it has not checked before.
        let is_checked = self.status.observed_generation == Some(self.generation);
        let is_read = result.is_ok() && (!is_checked || !self.is_stored());
        Validated {
            outcome: CheckOutcome::Checked(Arc::new(result)),
            bytes: is_read.then_some(bytes),
            further: Vec::new(),
            lists: Default::default(),
        }
    }

    fn is_stored(&self) -> bool {
        self.stored_digests.contains(&names::digest(&self.bytes()))
    }

    fn gathered(&self) -> Gathered {
        let mut meta = json!({"name": "p", "uid": "u", "generation": self.generation, "finalizers": self.finalizers,
            "resourceVersion": self.writes.to_string()});
        if self.is_deleted {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let mut spec =
            json!({"bytecode": {"inline": "AA=="}, "programs": [{"name": "my_prog"}], "attach": [{"type": "Node"}]});
        spec.as_object_mut().unwrap().extend(self.history_limit.map(|n| ("revisionHistoryLimit".into(), n.into())));
        let seen = self.view.as_deref().unwrap_or(self);
        let status = serde_json::to_value(&seen.status).unwrap();
        let object: Arc<DeserializeGuard<_>> = read(json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
            "metadata": meta, "spec": spec, "status": status}));
        assert!(object.0.is_ok(), "{object:?}");
        Gathered {
            image_failure: None,
            intent: Intent::new(object, &ProgramCache::default()),
            bytecode: GatheredBytecode::Checked,
            revisions: self.gathered_revisions(seen),
            lenders: self.lenders.clone(),
            borrowers: if self.is_deleted { self.borrowers.clone() } else { vec![] },
            nodes: self.nodes(),
        }
    }

    /// Returns the watched revisions, or those that there are if the watch lags behind.
    fn gathered_revisions(&self, seen: &Self) -> Revisions {
        let watched = self.watched_revisions.as_ref().map(|watched| self.revisions_of(watched));
        let watched = watched.filter(|watched| !watched.lag_behind(&seen.status));
        watched.unwrap_or_else(|| seen.revisions_of(&seen.revisions))
    }

    fn revisions_of(&self, revisions: &[BpfRevision]) -> Revisions {
        let is_readable = |revision: &BpfRevision| !self.unreadable.contains(&revision.name_any());
        let sequences = revisions.iter().map(|revision| revision.spec.sequence);
        let highest_sequence = sequences.fold(self.foreign_sequence, i64::max);
        let (readable, unreadable): (Vec<_>, Vec<_>) = revisions.iter().cloned().partition(is_readable);
        let unreadable = unreadable.into_iter().map(|revision| revision.metadata).collect();
        Revisions { readable, unreadable, highest_sequence }
    }

    fn nodes(&self) -> Nodes {
        let ready = |is_ready: bool| {
            let status = if is_ready { "True" } else { "False" };
            json!({"conditions": [{"type": "Ready", "status": status}]})
        };
        let node = |name| read(json!({"metadata": {"name": name}, "status": ready(self.live_nodes.contains(name))}));
        let pod = |name| read(json!({"metadata": {"name": name}, "spec": {"nodeName": name}, "status": ready(true)}));
        let report = |name| {
            let held =
                |revision| json!({"p": json!({"uid": "u", "revision": revision, "state": "Attached"}).to_string()});
            let programs = self.running.get(name).map_or(json!({}), held);
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
        let (gathered, mut validated) = (self.gathered(), self.validated());
        refuse_unshared(&gathered, &mut validated);
        let planned = plan(&gathered, &validated, self.is_stored());
        let planned_writes = planned.steps.len();
        if self.apply(planned.steps.into_iter().take(max_writes)).is_err() || planned_writes > max_writes {
            return planned_writes.min(max_writes);
        }
        let now = Timestamp::from_second(self.generation).unwrap();
        let steps = update_status(&gathered, &validated, planned.current.as_ref(), now);
        let status_writes = steps.len().min(max_writes - planned_writes);
        self.apply(steps.into_iter().take(status_writes)).unwrap();
        planned_writes + status_writes
    }

    /// Reconciles until nothing is left to do.
    pub fn converge(&mut self) {
        for _ in 0..5 {
            if self.reconcile(usize::MAX) == 0 {
                return;
            }
        }
        panic!("it does not converge: {:?}", plan(&self.gathered(), &self.validated(), self.is_stored()));
    }

    /// Runs steps up to the first that collides with another write, as the operator does.
    fn apply(&mut self, steps: impl Iterator<Item = Step>) -> Result<(), Conflict> {
        for step in steps {
            let is_event = matches!(step, Step::PublishEvent(_));
            assert!(is_event || !self.is_gone, "a write after the finalizer was removed: {step:?}");
            self.writes += u64::from(!is_event);
            if let Err(conflict) = self.run(step) {
                self.conflicts += 1;
                return Err(conflict);
            }
        }
        Ok(())
    }

    fn run(&mut self, step: Step) -> Result<(), Conflict> {
        match step {
            Step::AddFinalizer { present } => {
                assert_eq!(present, self.finalizers);
                self.finalizers.push(names::FINALIZER.into());
            }
            Step::StoreBytes { digest, bytes } => {
                assert_eq!(names::digest(&bytes), digest);
                self.stored_digests.insert(digest);
            }
            Step::Dispatch(revision) => {
                self.create_revision(*revision)?;
                if self.is_collected_late {
                    self.stored_digests.clear();
                }
            }
            Step::KeepBytes { digest, bytes } => {
                assert_eq!(names::digest(&bytes), digest);
                self.stored_digests.insert(digest);
            }
            Step::Retire(version) => {
                let active = self.revisions.iter().filter(|revision| revision.is_live()).count();
                assert!(active > 1, "the last active revision is retired");
                let writes = self.writes.to_string();
                let revision = self.revision_mut(&version)?;
                revision.spec.state = RevisionState::Retired;
                revision.metadata.resource_version = Some(writes);
            }
            Step::DeleteRevision(version) => {
                let name = self.revision_mut(&version)?.name_any();
                // What agents see of a revision that can't be read is the same whether it is retired or deleted.
                let is_retired = !self.unreadable.contains(&name) && !self.is_deleted;
                assert!(!is_retired || !self.running.values().any(|running| *running == name), "a node runs it");
                self.revisions.retain(|existing| existing.name_any() != name);
            }
            Step::WriteStatus(status) => {
                assert_ne!(*status, self.status, "a write that changes nothing");
                self.status = *status;
            }
            Step::RemoveFinalizer { others } => {
                assert_eq!((self.finalizers.pop().as_deref(), &others), (Some(names::FINALIZER), &self.finalizers));
                assert!(!self.live_nodes.iter().any(|node| self.running.contains_key(node)), "a live node runs it");
                assert!(self.revisions.is_empty(), "an agent could run it again");
                let ready = self.ready();
                assert_eq!((ready.reason, &*ready.message), (Reason::Deleting, "no Ready node holds it any more"));
                self.is_gone = true;
            }
            Step::PublishEvent(event) => self.events.push(event),
        }
        Ok(())
    }

    fn create_revision(&mut self, mut revision: BpfRevision) -> Result<(), Conflict> {
        let has_finalizer = self.finalizers.iter().any(|finalizer| finalizer == names::FINALIZER);
        assert!(has_finalizer, "agents would keep it after its deletion");
        assert!(self.stored_digests.contains(&revision.spec.template.digest), "agents could not fetch its bytes");
        assert!(revision.is_live());
        if let Some(existing) = self.revisions.iter().find(|existing| existing.name_any() == revision.name_any()) {
            return if is_same_revision(existing, &revision) { Ok(()) } else { Err(Conflict) };
        }
        let sequences = self.revisions.iter().map(|older| older.spec.sequence);
        assert!(sequences.max() < Some(revision.spec.sequence), "sequences increase");
        assert!(self.foreign_sequence < revision.spec.sequence, "and go on after an earlier BpfProgram's");
        revision.metadata.uid = Some(format!("revision-{}", self.writes));
        revision.metadata.resource_version = Some(self.writes.to_string());
        self.revisions.push(revision);
        Ok(())
    }

    /// Finds a revision in the version that a write is based on.
    fn revision_mut(&mut self, version: &ObjectVersion) -> Result<&mut BpfRevision, Conflict> {
        let is_it = |revision: &&mut BpfRevision| ObjectVersion::of(&revision.metadata).as_ref() == Some(version);
        self.revisions.iter_mut().find(is_it).ok_or(Conflict)
    }

    /// Lets a node's agent do its work. It keeps what it runs while it cannot read a live revision.
    pub fn run_agent(&mut self, node: &'static str) {
        if self.live_revisions().iter().any(|name| self.unreadable.contains(name)) {
            return;
        }
        match assigned(&self.revisions, &BTreeMap::new()).get("p").map(|revision| revision.name_any()) {
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

fn borrowing(map_ref: &MapRef) -> MapSpec {
    MapSpec { map_ref: Some(map_ref.clone()), ..MapSpec::named("m") }
}

fn read<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}
