//! A cluster with one BpfProgram, and the reports of its nodes.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::{
    BpfNodeStatus, BpfProgramStatus, BpfRevision, Condition, ConditionType, ProgramType, Reason, RevisionTemplate,
    condition::{Status, find},
    names,
    node::{NodeProgram, State},
    program::{NodeCounts, ProgramSpec, Summary},
    revision::{BpfRevisionSpec, ProgramRef, RevisionState},
    summary::{Acceptance, Liveness, NodeView, Subject, fold},
    target::AttachTarget,
};

const UID: &str = "8d1f";

pub(super) fn program() -> ProgramRef {
    ProgramRef { name: "tcp-events".into(), uid: UID.into() }
}

pub(super) fn revision(name: &str) -> BpfRevision {
    let template = RevisionTemplate {
        digest: names::digest(b"elf"),
        programs: vec![ProgramSpec {
            name: "my_prog".into(),
            program_type: Some(ProgramType::SockOps),
            attach_type: None,
            attach: vec![AttachTarget::Node],
        }],
        ..RevisionTemplate::default()
    };
    let spec = BpfRevisionSpec {
        state: RevisionState::Active,
        program_ref: program(),
        program_generation: 3,
        sequence: 2,
        template,
    };
    BpfRevision::new(name, spec)
}

/// Returns the report of a node with one entry.
fn report(entry: NodeProgram) -> BpfNodeStatus {
    let entry = NodeProgram { name: "tcp-events".into(), uid: UID.into(), ..entry };
    BpfNodeStatus { programs: vec![entry], ..BpfNodeStatus::default() }
}

pub(super) fn attached(revision: &str) -> BpfNodeStatus {
    report(NodeProgram {
        revision: Some(revision.into()),
        state: State::Attached,
        program_ids: vec![57],
        map_ids: vec![31],
        links: 1,
        ..NodeProgram::default()
    })
}

pub(super) fn failed(desired: &str, reason: Reason, words: &str) -> BpfNodeStatus {
    report(NodeProgram {
        desired_revision: Some(desired.into()),
        state: State::Failed,
        reason: Some(reason),
        message: Some(words.into()),
        ..NodeProgram::default()
    })
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
            current: self.revision.as_ref(),
            users: &[],
        };
        fold(&subject, &self.views(), previous, Timestamp::from_second(second).unwrap())
    }

    pub(super) fn fold(&self) -> BpfProgramStatus {
        self.fold_onto(&BpfProgramStatus::default(), 0)
    }
}

/// Records a condition for the page of reasons.
pub(super) fn record(status: &BpfProgramStatus, type_: ConditionType) {
    let condition = find(&status.conditions, type_).unwrap();
    sockeye_crds_testing::provoked(condition.reason, &condition.message);
}

pub(super) fn says(status: &BpfProgramStatus, type_: ConditionType) -> Option<(Status, Reason)> {
    find(&status.conditions, type_).map(|c| (c.status, c.reason))
}

pub(super) fn message(status: &BpfProgramStatus, type_: ConditionType) -> &str {
    find(&status.conditions, type_).map_or("", |c: &Condition| &c.message)
}

pub(super) fn counts(status: &BpfProgramStatus) -> &NodeCounts {
    status.nodes.as_ref().unwrap()
}

pub(super) fn summary(status: &BpfProgramStatus) -> &Summary {
    status.summary.as_ref().unwrap()
}
