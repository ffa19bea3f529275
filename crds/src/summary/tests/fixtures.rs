//! A cluster with one BpfProgram, and the reports of its nodes.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::{
    BpfNodeStatus, BpfProgramStatus, BpfRevision, Condition, ConditionType, ObjectInfo, ProgramType, Reason,
    condition::{Status, find},
    names,
    node::{AttachedLink, Details, HeldProgram, LoadedMap, LoadedProgram, State},
    program::ProgramSpec,
    revision::{BpfRevisionSpec, ProgramRef},
    summary::{Acceptance, Liveness, NodeView, Subject, fold},
};

const UID: &str = "8d1f";

pub(super) fn program() -> ProgramRef {
    ProgramRef { name: "tcp-events".into(), uid: UID.into() }
}

pub(super) fn revision(name: &str) -> BpfRevision {
    let spec = BpfRevisionSpec {
        program: program(),
        generation: 3,
        sequence: 2,
        digest: names::digest(b"elf"),
        object: ObjectInfo::default(),
        node_selector: None,
        requires: vec![],
        programs: vec![ProgramSpec {
            name: "my_prog".into(),
            program_type: Some(ProgramType::SockOps),
            attach: vec![],
        }],
        maps: vec![],
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
    };
    BpfRevision::new(name, spec)
}

pub(super) fn held(state: State, revision: Option<&str>, reason: Option<Reason>) -> HeldProgram {
    HeldProgram {
        name: "tcp-events".into(),
        uid: UID.into(),
        revision: revision.map(Into::into),
        state,
        reason,
        program_ids: revision.map(|_| 57).into_iter().collect(),
        map_ids: revision.map(|_| 31).into_iter().collect(),
    }
}

pub(super) fn attached(revision: &str) -> BpfNodeStatus {
    let details = Details {
        name: "tcp-events".into(),
        programs: vec![LoadedProgram {
            name: "my_prog".into(),
            kernel_name: "my_prog".into(),
            id: 57,
            program_type: ProgramType::SockOps,
            tag: "f3a3583cdd82ae8d".into(),
            gpl_compatible: true,
            loaded_at: "2026-01-01T00:00:00Z".into(),
            uid: 0,
            xlated_bytes: 184,
            jited_bytes: 0,
            memlock_bytes: 4096,
            map_ids: vec![31],
            btf_id: None,
            links: None,
            pin_path: "/sys/fs/bpf/sockeye/tcp-events/programs/my_prog".into(),
        }],
        maps: vec![LoadedMap {
            from: None,
            shared_by: vec![],
            name: "my_map".into(),
            kernel_name: "my_map".into(),
            id: 31,
            map_type: "Array".into(),
            flags: 0,
            key_size: 4,
            value_size: 8,
            max_entries: 10,
            memlock_bytes: 4096,
            frozen: false,
            btf_id: None,
            definition: None,
            used: true,
            pin_path: None,
        }],
        links: [true, false].map(|in_effect| link(57, in_effect)).into(),
        ..Details::default()
    };
    BpfNodeStatus {
        programs: vec![held(State::Attached, Some(revision), None)],
        details: vec![details],
        ..BpfNodeStatus::default()
    }
}

pub(super) fn link(program_id: i64, in_effect: bool) -> AttachedLink {
    AttachedLink {
        program: "my_prog".into(),
        id: 9,
        link_type: "cgroup".into(),
        program_id,
        attach_type: "cgroup_sock_ops".into(),
        cgroup_id: Some(1),
        cgroup_path: None,
        pod: None,
        container: None,
        map: None,
        map_id: None,
        in_effect,
        pin_path: String::new(),
    }
}

pub(super) fn failed(wanted: &str, reason: Reason, words: &str) -> BpfNodeStatus {
    BpfNodeStatus {
        programs: vec![held(State::Failed, None, Some(reason))],
        details: vec![Details {
            name: "tcp-events".into(),
            wanted: Some(wanted.into()),
            message: Some(words.into()),
            ..Details::default()
        }],
        ..BpfNodeStatus::default()
    }
}

pub(super) struct Cluster {
    pub(super) revision: Option<BpfRevision>,
    pub(super) acceptance: Acceptance,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) nodes: Vec<(String, Liveness, Option<BpfNodeStatus>)>,
}

impl Cluster {
    pub(super) fn new(nodes: impl IntoIterator<Item = (Liveness, Option<BpfNodeStatus>)>) -> Self {
        let nodes =
            nodes.into_iter().enumerate().map(|(i, (liveness, report))| (format!("node-{i:03}"), liveness, report));
        Self {
            revision: Some(revision("r2")),
            acceptance: Acceptance::Accepted { notes: vec![] },
            labels: BTreeMap::new(),
            nodes: nodes.collect(),
        }
    }

    pub(super) fn views(&self) -> Vec<NodeView<'_>> {
        self.nodes
            .iter()
            .map(|(name, liveness, report)| NodeView {
                name,
                labels: &self.labels,
                liveness: *liveness,
                report: report.as_ref(),
            })
            .collect()
    }

    pub(super) fn fold_onto(&self, previous: &BpfProgramStatus, second: i64) -> BpfProgramStatus {
        let subject = Subject {
            program: &program(),
            generation: 3,
            acceptance: &self.acceptance,
            dispatched: self.revision.as_ref(),
            users: &[],
        };
        fold(&subject, &self.views(), previous, Timestamp::from_second(second).unwrap())
    }

    pub(super) fn fold(&self) -> BpfProgramStatus {
        self.fold_onto(&BpfProgramStatus::default(), 0)
    }
}

pub(super) fn says(status: &BpfProgramStatus, type_: ConditionType) -> Option<(Status, Reason)> {
    find(&status.conditions, type_).map(|c| (c.status, c.reason))
}

pub(super) fn message(status: &BpfProgramStatus, type_: ConditionType) -> &str {
    find(&status.conditions, type_).map_or("", |c: &Condition| &c.message)
}
