//! [`Scenario`]: all that happens to a world from outside, made of its seed. A part of it is a scenario too, so that
//! one that fails can be shrunk.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sockeye_crds::Builtin;
use sockeye_ebpf::programs::{TCP_EVENTS, builtin, fixtures::TWICE};

use crate::{api::kind::Kind, random::Random};

/// The BpfPrograms that users write.
const PROGRAMS: [&str; 2] = ["p", "q"];
/// The number of operators.
pub const OPERATORS: usize = 2;
/// The most nodes that a world begins with.
const MAX_NODES: u64 = 4;

/// What happens to a world, and when.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Makes all choices that are not listed: delays, losses, lags.
    pub seed: u64,
    /// The number of nodes that it begins with.
    pub nodes: usize,
    /// Each happens so long after the one before.
    pub actions: Vec<(Duration, Action)>,
}

/// A process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Operator(usize),
    Agent(usize),
}

/// Something that happens to a world. What is about a node that is not there does nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// A user creates or edits a BpfProgram.
    Apply(&'static str, Spec),
    /// A user deletes one.
    Delete(&'static str),
    /// A process is killed, and starts again after a while.
    Kill(Process, Duration),
    /// An operator is told to stop, and starts again.
    Stop(usize),
    /// A process can't reach the API server for a while.
    Cut(Process, Duration),
    /// A process loses many requests and answers for a while.
    Lose(Process, Duration),
    /// A watch shows nothing for a while.
    Hold(Process, Kind, Duration),
    /// All watches of a process are broken, and list anew.
    BreakWatches(Process),
    /// A node boots: its kernel has nothing any more.
    Reboot(usize),
    /// A node joins.
    Join(usize),
    /// A node leaves for good, with its kernel.
    Leave(usize),
    /// The Node object is deleted, and registered again after a while.
    Forget(usize, Duration),
    /// A node's label is set or removed.
    Label(usize, bool),
    /// Somebody deletes a BpfNode.
    DeleteReport(usize),
    /// Loads fail on a node for a while.
    FailLoads(usize, Duration),
    /// Somebody deletes all stored bytes.
    DeleteBytes,
}

/// A spec of a BpfProgram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which object it names.
    pub object: usize,
    /// It attaches to the cgroup of all pods, and not to the node's.
    pub is_for_pods: bool,
    /// It selects nodes with a label.
    pub is_selective: bool,
    pub is_suspended: bool,
    /// It names a program that the object has.
    pub is_valid: bool,
}

impl Spec {
    /// Returns the object's bytes.
    fn bytes(self) -> &'static [u8] {
        [TCP_EVENTS, builtin(Builtin::TcpEvents), TWICE][self.object]
    }

    /// Returns it as a user writes it.
    pub fn json(self) -> Value {
        let target = if self.is_for_pods { "AllPods" } else { "Node" };
        let mut spec = json!({
            "bytecode": {"inline": STANDARD.encode(self.bytes())},
            "attach": [{"type": target}],
            "programs": [{"name": if self.is_valid { "my_prog" } else { "no_such_prog" }}],
            "suspend": self.is_suspended,
        });
        if self.is_selective {
            spec["nodeSelector"] = json!({"matchLabels": {"disk": "ssd"}});
        }
        spec
    }
}

impl Scenario {
    /// Makes the scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::of(seed, "scenario");
        let nodes = 1 + random.below(MAX_NODES) as usize;
        // Half of the worlds have no selectors, so that nothing is ever to be removed there but what is deleted.
        let has_selectors = random.percent(50);
        let mut actions = vec![(Duration::from_secs(5), Action::Apply(PROGRAMS[0], spec(&mut random, false)))];
        for _ in 0..4 + random.below(18) {
            let gap = if random.percent(50) { random.millis(0, 500) } else { random.millis(500, 12_000) };
            actions.push((gap, action(&mut random, nodes, has_selectors)));
        }
        Self { seed, nodes, actions }
    }

    /// Returns the scenarios that have a little less: fewer nodes, or a part of the actions missing.
    pub fn smaller(&self) -> Vec<Self> {
        let fewer_nodes = (self.nodes > 1).then(|| Self { nodes: self.nodes - 1, ..self.clone() });
        let mut smaller: Vec<Self> = fewer_nodes.into_iter().collect();
        let mut part = self.actions.len().div_ceil(2);
        while part > 0 {
            for begin in (0..self.actions.len()).step_by(part) {
                let end = (begin + part).min(self.actions.len());
                let mut actions = self.actions.clone();
                // What comes later comes when it came.
                let gap: Duration = actions.drain(begin..end).map(|(gap, _)| gap).sum();
                if let Some((next, _)) = actions.get_mut(begin) {
                    *next += gap;
                }
                smaller.push(Self { actions, ..self.clone() });
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
        smaller
    }
}

fn spec(random: &mut Random, has_selectors: bool) -> Spec {
    Spec {
        object: random.below(3) as usize,
        is_for_pods: random.percent(40),
        is_selective: has_selectors && random.percent(40),
        is_suspended: random.percent(10),
        is_valid: random.percent(90),
    }
}

fn action(random: &mut Random, nodes: usize, has_selectors: bool) -> Action {
    // One more, which may join.
    let node = random.below(nodes as u64 + 1) as usize;
    let program = random.pick(&PROGRAMS);
    let process = match random.percent(50) {
        true => Process::Operator(random.below(OPERATORS as u64) as usize),
        false => Process::Agent(node),
    };
    let (brief, long) = (random.millis(100, 4_000), random.millis(1_000, 20_000));
    match random.below(100) {
        0..28 => Action::Apply(program, spec(random, has_selectors)),
        28..40 => Action::Delete(program),
        40..50 => Action::Kill(process, brief),
        50..54 => Action::Stop(random.below(OPERATORS as u64) as usize),
        54..62 => Action::Cut(process, long),
        62..67 => Action::Lose(process, long),
        67..77 => Action::Hold(process, random.pick(&Kind::WATCHED), long),
        77..80 => Action::BreakWatches(process),
        80..83 => Action::Reboot(node),
        83..87 => Action::Join(node),
        87..89 => Action::Leave(node),
        89..91 => Action::Forget(node, brief),
        91..94 if has_selectors => Action::Label(node, random.percent(50)),
        94..96 => Action::DeleteReport(node),
        96..98 => Action::FailLoads(node, long),
        98 => Action::DeleteBytes,
        _ => Action::Apply(program, spec(random, has_selectors)),
    }
}
