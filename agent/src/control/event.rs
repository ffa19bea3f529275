//! `Event` and `Effect`: all that the controller is told, and all that it asks of the tasks around it. Values.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use sockeye_crds::{BpfNodeDetailStatus, BpfNodeStatus, BpfRevision, node::RefusedConnections};

use super::{
    connectivity::ProbeResult,
    fetches::Refused,
    inspection::{Inquiry, InquiryId, Inspection},
    verify::{ClaimedObject, Verdict, Verification},
};
use crate::{
    model::{
        assignment::Assignment,
        start::{Decision, Start, StartId},
    },
    node::watch::Change,
};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The node is to run this.
    AssignmentChanged(Arc<Assignment>),
    /// It is no longer known what the node is to run, because its Node object is gone. What it has stays.
    AssignmentLost,
    /// Someone suspended everything in the whole cluster, for this reason, or ended that.
    SuspendChanged(Option<String>),
    /// Something came or went in a watched directory of bpffs.
    HomesChanged(Change),
    /// A pod's or a container's cgroup came or went.
    PodsChanged,
    /// Some changes of the node go unreported, or none does any more.
    BlindChanged(bool),
    /// The container runtime starts containers without asking, for this reason; it asks where there is none.
    RuntimeChanged(Option<String>),
    /// The container runtime asks whether something may start.
    StartRequested(StartId, Start),
    /// The container runtime no longer waits for a decision.
    StartWithdrawn(StartId),
    /// The answer to [`Effect::ProbeApiServer`].
    ProbeAnswered(ProbeResult),
    /// The answer to [`Effect::FetchBytes`]: the object, or why it can't be had.
    BytesArrived {
        /// The object's digest.
        digest: String,
        /// Not checked against the digest yet.
        bytes: Result<Arc<[u8]>, Refused>,
    },
    /// The answer to [`Effect::VerifyObject`].
    ObjectVerified {
        /// The claim that was judged.
        claim: ClaimedObject,
        /// The verdict of the node's own policy.
        verdict: Verdict,
    },
    /// The answer to [`Effect::FetchRevision`]: the revision, or why it can't be had.
    RevisionArrived {
        /// The BpfProgram.
        program: String,
        /// The revision's name.
        name: String,
        /// Not checked yet.
        answer: Result<Arc<BpfRevision>, String>,
    },
    /// The pods whose connections guards refused were counted, by BpfProgram.
    RefusedCounted(BTreeMap<String, Vec<RefusedConnections>>),
    /// Somebody asks what the controller knows. It changes nothing.
    Asked(InquiryId, Inquiry),
}

/// Something to do outside of the controller. None of it is waited for.
#[derive(Debug)]
pub enum Effect {
    /// Report the node's statuses.
    WriteStatus(Box<Report>),
    /// Answer a start.
    AnswerStart(StartId, Decision),
    /// Answer an inquiry.
    AnswerInquiry(InquiryId, Inspection),
    /// Fetch an object, and send [`Event::BytesArrived`].
    FetchBytes(String),
    /// Judge an object by the node's own policy, and send [`Event::ObjectVerified`].
    VerifyObject(Box<Verification>),
    /// Read a retired BpfRevision, and send [`Event::RevisionArrived`].
    FetchRevision {
        /// The BpfProgram.
        program: String,
        /// The revision's name.
        name: String,
    },
    /// Try to reach the API server on a new connection, read the node's Lease, and send [`Event::ProbeAnswered`].
    ProbeApiServer,
    /// Watch directories of bpffs, each with its BpfProgram, and send [`Event::HomesChanged`].
    WatchHomes {
        /// The device of the bpffs: on another one nothing is watched yet.
        bpffs: Option<u64>,
        /// The directories that may be new.
        directories: Vec<(PathBuf, String)>,
        /// Whether these are all directories to watch.
        all: bool,
    },
    /// Watch directories of cgroups, and send [`Event::PodsChanged`], also where any of them was not watched before.
    WatchPods(Vec<PathBuf>),
}

/// The node's statuses, and what of them is about to change.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The status of the BpfNode, without conditions.
    pub status: BpfNodeStatus,
    /// The status of the BpfNodeDetail.
    pub detail: BpfNodeDetailStatus,
    /// Which pins have another layout than this agent's, and what to do about them, if there are any.
    pub older_layout: Option<String>,
    /// The BpfPrograms whose only failure is that their object is being fetched or judged.
    pub awaiting: BTreeSet<String>,
    /// What the node was to run.
    pub assignment: Option<Arc<Assignment>>,
}

/// All effects of one step, and when the next one is due at the latest.
#[derive(Debug)]
pub struct StepResult {
    /// In the order in which they are to be carried out.
    pub effects: Vec<Effect>,
    /// The next step's time, if no event comes before. In the past: at once, after the events that have come meanwhile.
    pub wake: Instant,
}
