//! The figures that need a cluster: how soon a BpfProgram is in effect on a node, and how soon its user sees that. They
//! are compared with the bare calls: the operator's own writes without its decisions, and libbpf's load.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, sleep},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{events::Reporter, watcher},
};
use serde_json::json;
use sockeye_crds::{
    BpfProgram, BpfRevision, ConditionType,
    condition::Status,
    names::{LABEL_PROGRAM, digest, object_config_map},
    revision::{ProgramRef, RevisionState},
};
use sockeye_ebpf::{check::check, programs::TCP_EVENTS_BTF};
use sockeye_operator::{
    Health,
    events::publisher::Publisher,
    reconcile::{
        apply::Writer,
        step::{ObjectVersion, Step},
        stored_object::StoredObjects,
    },
};
use sockeye_tests::identity::{RELEASE, admin};

use crate::{
    place::Place,
    process::{self, Memory},
    programs::attached,
    reference::Reference,
    table::{Bound, Figure, median, milliseconds},
};

/// The number of BpfPrograms that are created and measured.
const REPEATS: usize = 30;
/// The number of BpfPrograms before these, which are not measured.
const WARM_UP: usize = 3;
/// The number of operators, as the chart has it.
const REPLICAS: i32 = 2;
/// The number of agent starts.
const STARTS: usize = 3;
/// The node that is selected.
const NODE: &str = "node-1";
const TIMEOUT: Duration = Duration::from_secs(60);

/// The bench's options. KUBECONFIG names the local cluster.
#[derive(clap::Args)]
pub struct Bench {
    /// The binary of libbpf.c.
    #[arg(long)]
    libbpf: PathBuf,
    #[command(flatten)]
    place: Place,
    /// The cgroup v2 directory that is node-1's root.
    #[arg(long)]
    node_cgroup: PathBuf,
}

impl Bench {
    /// Measures all figures.
    pub fn run(&self) -> Result<Vec<Figure>> {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(self.measure())
    }

    async fn measure(&self) -> Result<Vec<Figure>> {
        let cluster = Cluster::of(admin().await?);
        println!("the operator at rest: bare calls, {REPEATS} times");
        cluster.operator(0).await?;
        let mut libbpf = Reference::start(&self.libbpf, &self.place, TCP_EVENTS_BTF, "cluster")?;
        let placed = [("bare".to_owned(), vec![self.place.cgroup.clone()])];
        let mut bare = Vec::new();
        for i in 0..WARM_UP + REPEATS {
            let load: Duration = libbpf.apply(&placed)?.into_iter().sum();
            libbpf.undo(&placed)?;
            let took = cluster.bare(i).await? + load;
            if i >= WARM_UP {
                bare.push(milliseconds(took));
            }
        }
        cluster.operator(REPLICAS).await?;

        println!("a BpfProgram on {NODE}, {REPEATS} times");
        let (mut in_effect, mut ready) = (Vec::new(), Vec::new());
        for i in 0..WARM_UP + REPEATS {
            let (first, second) = cluster.create(WARM_UP + REPEATS + i, &self.node_cgroup).await?;
            if i >= WARM_UP {
                in_effect.push(milliseconds(first));
                ready.push(milliseconds(second));
            }
        }
        println!("the agent's pod on {NODE} made anew, {STARTS} times");
        let mut start = Vec::new();
        for _ in 0..STARTS {
            start.push(cluster.agent_anew().await?.as_secs_f64());
        }
        let bare = median(bare);
        let soon = |what: &str, all, times| {
            let figure = Figure::alone("cluster", what, median(all), "ms");
            figure.against(bare).at_most(Bound::Ratio(times))
        };
        let Memory { resident, proportional, .. } = memory_of(false)?;
        let agent = memory_of(true)?;
        let held = |what, value, most| Figure::alone("cluster", what, value, "MiB").at_most(Bound::Value(most));
        Ok(vec![
            soon("create to link in effect", in_effect, 1.5),
            soon("create to Ready, seen by a client", ready, 2.0),
            Figure::alone("cluster", "agent's pod deleted to the next one Ready", median(start), "s"),
            held("operator, VmRSS", resident, 30.0),
            held("operator, Pss", proportional, 30.0),
            held("agent, VmRSS", agent.resident, 15.0),
        ])
    }
}

struct Cluster {
    client: Client,
    programs: Api<BpfProgram>,
    writer: Writer,
}

impl Cluster {
    fn of(client: Client) -> Self {
        let reporter = Reporter { controller: "sockeye-bench".to_owned(), instance: None };
        let publisher = Publisher::new(client.clone(), reporter);
        let stored = StoredObjects::new(client.clone(), RELEASE);
        let writer = Writer::new(client.clone(), RELEASE.to_owned(), stored, publisher, Health::default());
        Self { programs: Api::all(client.clone()), writer, client }
    }

    /// Makes the calls between a user's create and the load on a node, one after the other, and returns their duration.
    async fn bare(&self, i: usize) -> Result<Duration> {
        let (mut object, bytes) = program(i)?;
        // As a user's object that the operator has not seen yet; it is not running.
        let spec = check(&object.spec, &bytes)?;
        let start = Instant::now();
        object = self.programs.create(&PostParams::default(), &object).await?;
        let own = ProgramRef { name: object.name_any(), uid: object.uid().context("no UID")? };
        let mut version = ObjectVersion::of(&object.metadata).context("no version")?;
        let mut revision = BpfRevision::of(spec.into_revision_spec(own.clone(), 1, 1));
        // So no agent takes it up.
        revision.spec.state = RevisionState::Retired;
        revision.metadata.labels = Some([(LABEL_PROGRAM.to_owned(), own.name.clone())].into());
        revision.metadata.owner_references = object.controller_owner_ref(&()).map(|owner| vec![owner]);
        let digest = digest(&bytes);
        let steps = vec![
            Step::AddFinalizer { present: vec![] },
            Step::StoreBytes { digest: digest.clone(), bytes },
            Step::Dispatch(Box::new(revision.clone())),
        ];
        self.writer.apply(&mut version, steps).await?;
        let stored = Api::<ConfigMap>::namespaced(self.client.clone(), RELEASE);
        stored.get(&object_config_map(&digest)).await?;
        let took = start.elapsed();

        Api::<BpfRevision>::all(self.client.clone()).delete(&revision.name_any(), &DeleteParams::default()).await?;
        self.writer.apply(&mut version, vec![Step::RemoveFinalizer { others: vec![] }]).await?;
        self.programs.delete(&own.name, &DeleteParams::default()).await?;
        Ok(took)
    }

    /// Creates and deletes a BpfProgram. Returns the time until the node's cgroup lists one program more, and until a
    /// client's watch has it Ready.
    async fn create(&self, i: usize, cgroup: &Path) -> Result<(Duration, Duration)> {
        let (object, _) = program(i)?;
        let name = object.name_any();
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut seen = std::pin::pin!(watcher(self.programs.clone(), only));
        while !matches!(seen.try_next().await?, Some(watcher::Event::InitDone)) {}

        let cgroup = fs::File::open(cgroup)?;
        let before = attached(&cgroup)?.len();
        let start = Instant::now();
        let queries = thread::spawn(move || -> Result<Duration> {
            while attached(&cgroup)?.len() <= before {
                ensure!(start.elapsed() < TIMEOUT, "nothing came into effect");
                sleep(Duration::from_micros(200));
            }
            Ok(start.elapsed())
        });
        self.programs.create(&PostParams::default(), &object).await?;
        let ready = tokio::time::timeout(TIMEOUT, async {
            while let Some(event) = seen.try_next().await? {
                if let watcher::Event::Apply(object) = event
                    && is_ready(&object)
                {
                    return anyhow::Ok(start.elapsed());
                }
            }
            anyhow::bail!("the watch ended")
        });
        let ready = ready.await.context("not Ready in time")??;
        let in_effect = queries.join().ok().context("the queries panicked")??;

        self.programs.delete(&name, &DeleteParams::default()).await?;
        wait_until("its end", async || Ok(self.programs.get_metadata_opt(&name).await?.is_none())).await?;
        Ok((in_effect, ready))
    }

    /// Scales the operator, and waits until so many run.
    async fn operator(&self, replicas: i32) -> Result<()> {
        use k8s_openapi::api::apps::v1::Deployment;
        let api = Api::<Deployment>::namespaced(self.client.clone(), RELEASE);
        let patch = json!({"spec": {"replicas": replicas}});
        api.patch("sockeye-operator", &PatchParams::default(), &Patch::Merge(patch)).await?;
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(self.client.clone(), RELEASE);
        let operators = kube::api::ListParams::default().labels("app.kubernetes.io/component=operator");
        wait_until("that many operators", async || {
            let there = pods.list_metadata(&operators).await?.items.len();
            let status = api.get("sockeye-operator").await?.status.unwrap_or_default();
            Ok(status.ready_replicas.unwrap_or(0) == replicas && usize::try_from(replicas)? == there)
        })
        .await
        .map(drop)
    }

    /// Deletes the agent's pod on the node, and returns the time until the next one is Ready.
    async fn agent_anew(&self) -> Result<Duration> {
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(self.client.clone(), RELEASE);
        let here = kube::api::ListParams::default()
            .labels("app.kubernetes.io/component=agent")
            .fields(&format!("spec.nodeName={NODE}"));
        let old = pods.list(&here).await?.items.pop().context("no agent")?;
        let start = Instant::now();
        pods.delete(&old.name_any(), &DeleteParams::default()).await?;
        wait_until("another agent", async || {
            let there = pods.list(&here).await?.items;
            Ok(there.iter().any(|pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
                let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
                ready && pod.uid() != old.uid()
            }))
        })
        .await?;
        Ok(start.elapsed())
    }
}

async fn wait_until(what: &str, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().await? {
        ensure!(start.elapsed() < TIMEOUT, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Returns a BpfProgram for one node, and its bytes. The bytes are new each time, so that the operator has to store
/// them.
fn program(i: usize) -> Result<(BpfProgram, Vec<u8>)> {
    let mut bytes = TCP_EVENTS_BTF.to_vec();
    bytes.extend(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos().to_le_bytes());
    let object = json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": format!("bench-{i:03}")},
        "spec": {
            "bytecode": {"inline": STANDARD.encode(&bytes)},
            "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": NODE}},
            "attach": [{"type": "Node"}],
            "programs": [{"name": "my_prog"}],
        },
    });
    Ok((serde_json::from_value(object)?, bytes))
}

fn is_ready(object: &BpfProgram) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == ConditionType::Ready && c.status == Status::True)
}

/// Of the processes in our images whose first argument is `run`, which are agents, or of the others; the most.
fn memory_of(agents: bool) -> Result<Memory> {
    let mut found: Option<Memory> = None;
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let mut arguments = arguments.split(|byte| *byte == 0);
        if arguments.next() == Some(b"/sockeye") && (arguments.next() == Some(b"run")) == agents {
            let memory = process::memory(pid)?;
            found = found.filter(|found| found.resident >= memory.resident).or(Some(memory));
        }
    }
    found.context("no such process")
}
