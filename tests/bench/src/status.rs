//! The cost of a BpfNode's status: the API server's processor time for one write, against a bare status write.

use anyhow::{Context as _, Result};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use sockeye_agent::cluster::object_writer::write_status;
use sockeye_crds::{
    BpfNode, BpfNodeStatus, Condition, ConditionType, Reason, condition,
    node::{BpfNodeSpec, CgroupMode, NodeFacts, NodeProgram, NodeProgramCounts, State},
};
use sockeye_tests::{chart, identity::admin};

use crate::{
    programs::program,
    table::{Bound, Figure},
};

/// The number of BpfPrograms on the node.
const PROGRAMS: usize = 20;
/// The number of blocks. In each, every shape is written in turn, and each block begins with another shape: a garbage
/// collection that comes once in a block would otherwise always count for the same one.
const BLOCKS: usize = 12;
/// The number of writes of a shape in a block: the API server counts its processor time in hundredths of a second.
const WRITES: usize = 40;

/// The bench's options. KUBECONFIG names an API server that nothing else uses; kubectl is on PATH.
#[derive(clap::Args)]
pub struct Bench {}

/// What a write changes.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One field of a status that has no other.
    Bare,
    /// One BpfProgram of twenty.
    One,
    /// All twenty BpfPrograms.
    All,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Bare, Self::One, Self::All];

    /// Returns the `n`th status; each differs from the one before.
    fn status(self, n: i64) -> BpfNodeStatus {
        let changed = match self {
            Self::Bare => return BpfNodeStatus { suspended: Some(n.to_string()), ..BpfNodeStatus::default() },
            Self::One => 1,
            Self::All => PROGRAMS,
        };
        node_status((0..PROGRAMS).map(|i| entry(i, if i < changed { n } else { 0 })).collect())
    }
}

impl Bench {
    /// Measures all figures.
    pub fn run(&self) -> Result<Vec<Figure>> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
    }
}

async fn measure() -> Result<Vec<Figure>> {
    chart::apply_crds()?;
    let client = admin().await?;
    let api = Api::<BpfNode>::all(client.clone());
    for shape in Shape::ALL {
        create(&api, shape).await?;
    }
    println!("{BLOCKS} times {WRITES} writes of each shape");
    let (mut seconds, mut n) = ([0.0; Shape::ALL.len()], 0);
    for block in 0..BLOCKS {
        for place in 0..Shape::ALL.len() {
            let of = (block + place) % Shape::ALL.len();
            let shape = Shape::ALL[of];
            let before = processor_time(&client).await?;
            for _ in 0..WRITES {
                n += 1;
                write_status(&api, &name(shape), &shape.status(n)).await?;
            }
            seconds[of] += processor_time(&client).await? - before;
        }
    }
    // The mean, since garbage collection is a part of the cost and comes in bursts.
    let [bare, one, all] = seconds.map(|seconds| seconds * 1e3 / (BLOCKS * WRITES) as f64);
    let figure = |what: &str, value| Figure::alone("status", what, value, "ms");
    Ok(vec![
        figure("bare status write, processor time", bare),
        figure("20 BpfPrograms, one changed, processor time", one).against(bare).at_most(Bound::Ratio(2.0)),
        figure("20 BpfPrograms, all changed, processor time", all).against(bare).at_most(Bound::Ratio(3.2)),
    ])
}

fn name(shape: Shape) -> String {
    format!("bench-{shape:?}").to_lowercase()
}

async fn create(api: &Api<BpfNode>, shape: Shape) -> Result<()> {
    let metadata = ObjectMeta { name: Some(name(shape)), ..ObjectMeta::default() };
    let object = BpfNode { metadata, spec: BpfNodeSpec {}, status: None };
    api.create(&PostParams::default(), &object).await.context("creation of a BpfNode")?;
    // The first write of each is not counted.
    write_status(api, &name(shape), &shape.status(0)).await?;
    Ok(())
}

/// Returns the API server's processor time so far, in seconds.
async fn processor_time(client: &Client) -> Result<f64> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let value = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    Ok(value.context("the API server tells no processor time")?.trim().parse()?)
}

/// Returns the entry of a BpfProgram as an agent reports it, with IDs that follow from `n`.
fn entry(i: usize, n: i64) -> NodeProgram {
    let name = program(i);
    let id = 1000 + i as i64 + n;
    NodeProgram {
        revision: Some(format!("{name}-{}", 1 + n % 7)),
        name,
        uid: "0d6c5f3e-8d1f-4a9b-9f7c-1234567890ab".to_owned(),
        state: State::Attached,
        program_ids: vec![id],
        map_ids: vec![id, id + 1],
        links: 3,
        pods: 3,
        ..NodeProgram::default()
    }
}

/// Returns the status of a node with these entries.
fn node_status(programs: Vec<NodeProgram>) -> BpfNodeStatus {
    let features = ["AttachOrder", "CgroupLink", "KernelBTF", "LinkUpdate", "SockMapLink", "UnixSockets"];
    BpfNodeStatus {
        node: NodeFacts {
            boot_id: "7e0e2d4a-2d8a-4f0e-9d4e-6b9c1a2b3c4d".to_owned(),
            kernel_release: "6.12.0-cloud-amd64".to_owned(),
            architecture: "x86_64".to_owned(),
            cgroup_mode: Some(CgroupMode::Unified),
            features: features.map(str::to_owned).into(),
            regressions: Vec::new(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        counts: NodeProgramCounts { programs: programs.len() as i64, failed: 0, links: 3 * programs.len() as i64 },
        programs,
        conditions: vec![Condition {
            type_: ConditionType::Ready,
            status: condition::Status::True,
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: Reason::InEffect,
            message: format!("{PROGRAMS} BpfPrograms are in effect"),
        }],
        ..BpfNodeStatus::default()
    }
}
