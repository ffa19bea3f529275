//! `Controller`: all that the agent knows between two steps. Level-triggered: what it knows of the node comes from
//! bpffs and the kernel, and what is lost with it is only what has been tried and when to try again.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::{BpfNodeStatus, node::NodeFacts};
use sockeye_metrics::AgentMetrics;

use super::{
    all_pods::AllPodsSearch,
    attachments::AttachmentMonitor,
    connectivity::Trials,
    draining_maps::DrainingMaps,
    event::{Effect, Report},
    fetches::Fetches,
    pod_search::PodSearch,
    program::ProgramState,
    programs::Programs,
    report::{Reported, report},
    starts::Starts,
    timer::Timer,
    verdicts::Verdicts,
    verifier_logs::VerifierLogs,
    work::WorkList,
};
use crate::{
    kernel::running::RunningKernel,
    model::{assignment::Assignment, node_context::NodeContext, pods::Pods, refusal::Refusal},
    node::{
        failure::Failure,
        layout::Layout,
        observe::{Bpffs, ObserveError},
    },
    plan::quota::MapQuota,
};

/// The controller of one node.
pub struct Controller<N> {
    pub(super) node: N,
    /// The time of this step.
    pub(super) now: Instant,
    pub(super) settings: Settings,
    /// This node verifies who signed objects, by a policy of its own.
    pub(super) verifies: bool,
    pub(super) inputs: Inputs,
    pub(super) survey: Survey,
    pub(super) programs: Programs,
    /// The assignment that the BpfPrograms were given last.
    pub(super) assigned: Option<Arc<Assignment>>,
    pub(super) monitor: AttachmentMonitor,
    pub(super) trials: Trials,
    pub(super) starts: Starts,
    pub(super) fetches: Fetches,
    pub(super) verdicts: Verdicts,
    pub(super) pod_search: PodSearch,
    pub(super) all_pods: AllPodsSearch,
    pub(super) draining: DrainingMaps,
    pub(super) timer: Timer,
    /// The pass that is going on.
    pub(super) pass: Option<Pass>,
    /// The facts of the kernel, of the last pass until the next poll: objects arrive one by one, with a pass for each.
    pub(super) kernel: RunningKernel,
    /// The BpfPrograms that were observed since the last report; some more than once.
    pub(super) touched: Vec<String>,
    /// The logs of the verifier that rejected programs last.
    pub(super) verifier_logs: VerifierLogs,
    /// A pass has ended: what is known of the node is all that there is.
    pub(super) knows_node: bool,
    /// The last step began a pass and did no more, so that starts could be decided.
    pub(super) began_only: bool,
    /// The effects of this step so far.
    pub(super) effects: Vec<Effect>,
    /// Counts what happens.
    pub(super) metrics: AgentMetrics,
}

/// The facts and limits that do not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where pins are, and how the host names them.
    pub layout: Layout,
    /// The memory that maps may hold.
    pub quota: MapQuota,
    /// The node and its kernel. A regression of the kernel that could not be probed at first may be found later.
    pub facts: NodeFacts,
    /// A file with the kernel's configuration, for kernels that don't show it.
    pub kernel_config: Option<PathBuf>,
    /// The namespace that sockeye is installed in; absent without a cluster.
    pub release_namespace: Option<String>,
    /// The time of day, for what is reported. All else is timed by the steps.
    pub time_of_day: fn() -> Timestamp,
}

/// The newest words of those outside.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Absent while it is unknown what the node is to run.
    pub assignment: Option<Arc<Assignment>>,
    /// The reason why everything is suspended in the whole cluster, if it is.
    pub suspended: Option<String>,
    /// The reason why the container runtime starts containers without asking, if it does.
    pub runtime_gap: Option<String>,
    /// The time of the request for a probe of the API server that has not been answered yet.
    pub probing: Option<Instant>,
}

/// The bpffs at the last survey of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BpffsSeen {
    /// There was no survey yet.
    #[default]
    NotYet,
    /// There was no usable bpffs.
    Missing,
    /// There was one, with this device.
    Device(u64),
}

impl BpffsSeen {
    /// Returns what the node's answer says.
    pub fn of(found: &Result<Bpffs, ObserveError>) -> Self {
        found.as_ref().map_or(Self::Missing, |bpffs| Self::Device(bpffs.device))
    }
}

/// The findings of the last survey of the node.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The bpffs.
    pub bpffs: BpffsSeen,
    /// Which pins have another layout than this agent's, and what to do about them, if there are any.
    pub older_layout: Option<String>,
    /// The node's own suspension note, if it was there.
    pub mark: Option<String>,
    /// The reason why nothing is to be attached on this node, if so.
    pub suspended: Option<String>,
    /// Priorities differ, and the kernel keeps an attach order.
    pub ordered: bool,
    /// The kernel keeps an attach order.
    pub keeps_order: bool,
    /// A map of some BpfProgram is to be another's.
    pub sharing: bool,
    /// The node's pods.
    pub pods: Pods,
}

/// A pass over the BpfPrograms.
pub(super) struct Pass {
    /// The context in which revisions are worked out; or the reason why the node can't be surveyed.
    pub context: Result<NodeContext, Failure>,
    /// The facts of the kernel, each found at most once.
    pub kernel: RunningKernel,
    /// It comes to all BpfPrograms.
    pub sweep: bool,
    /// The tasks that are left.
    pub work: WorkList,
    /// The BpfPrograms that were frozen, and why, since it first began.
    pub frozen: BTreeMap<String, Refusal>,
    /// The rounds in which BpfPrograms gave each other more to do.
    pub rounds: usize,
}

impl<N> Controller<N> {
    /// Returns a controller that knows nothing yet.
    pub fn new(node: N, settings: Settings, now: Instant) -> Self {
        Self {
            node,
            now,
            verifies: false,
            inputs: Inputs::default(),
            survey: Survey::default(),
            programs: Programs::default(),
            assigned: None,
            monitor: AttachmentMonitor::default(),
            trials: Trials::default(),
            starts: Starts::default(),
            fetches: Fetches::default(),
            verdicts: Verdicts::default(),
            pod_search: PodSearch::default(),
            all_pods: AllPodsSearch::default(),
            draining: DrainingMaps::new(now),
            timer: Timer::new(now),
            pass: None,
            kernel: RunningKernel::new(settings.kernel_config.clone()),
            touched: Vec::new(),
            verifier_logs: VerifierLogs::default(),
            knows_node: false,
            began_only: false,
            effects: Vec::new(),
            metrics: AgentMetrics::default(),
            settings,
        }
    }

    /// Has the controller load no object before the node's own policy has judged it.
    #[must_use]
    pub fn verifying(self, verifies: bool) -> Self {
        Self { verifies, ..self }
    }

    /// Has it count what happens.
    #[must_use]
    pub fn counting(self, metrics: AgentMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Returns what it counts in.
    pub fn metrics(&self) -> AgentMetrics {
        self.metrics.clone()
    }

    /// Returns whether a pass is going on: its work is not all done.
    pub fn is_working(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| !pass.work.is_empty())
    }

    /// Returns the report of the node.
    pub fn report(&self) -> Report {
        let (status, detail) = report(&self.reported());
        let awaiting = self.programs.iter().filter(|(_, program)| program.is_awaiting());
        Report {
            status,
            detail,
            older_layout: self.survey.older_layout.clone(),
            awaiting: awaiting.map(|(name, _)| name.clone()).collect(),
            assignment: self.inputs.assignment.clone(),
        }
    }

    /// Returns the inputs of a report.
    pub(super) fn reported(&self) -> Reported<'_> {
        let Settings { layout, quota: _, facts, kernel_config: _, release_namespace: _, time_of_day: _ } =
            &self.settings;
        Reported {
            facts,
            layout,
            programs: &self.programs,
            draining: &self.draining.maps,
            monitor: &self.monitor,
            suspended: self.survey.suspended.as_deref(),
        }
    }

    /// Returns the status of the node's BpfNode, without conditions.
    pub fn status(&self) -> BpfNodeStatus {
        self.report().status
    }

    /// Returns the state of a BpfProgram that is about to be observed.
    pub(super) fn touch(&mut self, name: &str) -> &mut ProgramState {
        if self.touched.last().is_none_or(|last| last != name) {
            self.touched.push(name.to_owned());
        }
        self.programs.entry(name)
    }
}
