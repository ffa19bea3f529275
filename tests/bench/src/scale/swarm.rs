//! The swarm: the agents of many nodes in a few processes, each agent with its own connections and token, over a kernel
//! and bpffs that are values. What runs is what an agent's process runs in a cluster: its watches, passes and reports.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use kube::{Api, Client};
use sockeye_agent::{
    admission::Admission,
    cluster::{Cluster, object_writer::write_status},
    control::{Controller, controller::Settings},
    read_api::ReadApi,
};
use sockeye_client::Readiness;
use sockeye_crds::{
    BpfNode, BpfNodeStatus,
    node::{CgroupMode, NodeFacts},
};
use sockeye_fake::{FakeNode, settings};
use sockeye_tests::{
    identity::{RELEASE, config},
    nodes::Token,
};
use tokio::io::{AsyncBufReadExt as _, stdin};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{self, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// The processes; they are killed when this is dropped.
pub struct Swarm(Vec<Part>);

/// What came of telling all something.
pub struct Answer {
    /// How long it took all of them.
    pub took: Duration,
    /// What watches have told the agents so far, and how often. Not what the API server counts: bookmarks are among
    /// that.
    pub told: Told,
}

struct Part {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Swarm {
    /// Starts the processes, each with some of the nodes.
    pub fn start(processes: usize, tokens: &[Token], work: &Path) -> Result<Self> {
        let mut parts = Vec::new();
        for (i, tokens) in tokens.chunks(tokens.len().div_ceil(processes.max(1)).max(1)).enumerate() {
            let file = work.join(format!("tokens-{i}.json"));
            fs::write(&file, serde_json::to_vec(tokens)?)?;
            let log = fs::File::create(work.join(format!("swarm-{i}.log")))?;
            let mut child = Command::new(std::env::current_exe()?)
                .args(["swarm".as_ref(), "--tokens".as_ref(), file.as_os_str()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
            parts.push(Part { child, input, output: BufReader::new(output) });
        }
        Ok(Self(parts))
    }

    /// Tells all to do something at the same time, and waits until all have done it.
    pub fn tell(&mut self, what: &str) -> Result<Answer> {
        let start = Instant::now();
        for part in &mut self.0 {
            writeln!(part.input, "{what}")?;
        }
        let mut told = Told::new();
        for part in &mut self.0 {
            let mut answer = String::new();
            part.output.read_line(&mut answer)?;
            let answer: Told = serde_json::from_str(&answer)
                .with_context(|| format!("a process of agents ended instead of {what}"))?;
            for (what, count) in answer {
                *told.entry(what).or_default() += count;
            }
        }
        Ok(Answer { took: start.elapsed(), told })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for part in &mut self.0 {
            let _ = part.child.kill();
            let _ = part.child.wait();
        }
    }
}

/// One process of the swarm. Does what it reads, line by line, and answers when it has with how much watches have told:
/// `run` starts the agents, `stop` ends them, `write` makes every agent's client write one changed status, no agent
/// running; `count` does nothing.
#[derive(clap::Args)]
pub struct Process {
    /// Whose agents these are: names of nodes and tokens, as JSON.
    #[arg(long)]
    tokens: PathBuf,
}

impl Process {
    /// Until its input ends.
    pub fn run(&self) -> Result<()> {
        // Each controller has a thread of its own, as in an agent's own process.
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(self.serve())
    }

    async fn serve(&self) -> Result<()> {
        let heard = Heard::default();
        tracing_subscriber::registry().with(heard.clone()).init();
        let tokens: Vec<Token> = serde_json::from_slice(&fs::read(&self.tokens)?)?;
        let mut members = Vec::new();
        for (name, token) in tokens {
            let config = config(&token).await?;
            let (bare, client) = (Client::try_from(config.clone())?, sockeye_client::client(config)?);
            members.push(Member { name, client, bare, node: FakeNode::default(), last: None });
        }
        let mut lines = tokio::io::BufReader::new(stdin()).lines();
        let mut running = FuturesUnordered::<LocalBoxFuture<'_, Result<()>>>::new();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line?,
                Some(ended) = running.next() => return ended.and_then(|()| bail!("an agent ended")),
            };
            match line.as_deref() {
                None => return Ok(()),
                Some("run") => running = members.iter().map(Member::run).collect(),
                Some("stop") => {
                    running.clear();
                    at_once(members.iter_mut().map(Member::look)).await?;
                }
                Some("write") => at_once(members.iter_mut().map(Member::write)).await?,
                Some("count") => {}
                Some(other) => bail!("what is {other}?"),
            }
            println!("{}", serde_json::to_string(&*heard.told())?);
        }
    }
}

/// How often agents were told something, by what it was.
pub type Told = BTreeMap<String, u64>;

/// Counts what watches tell agents, which they say in their logs.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Told>>);

impl Heard {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Heard {
    fn enabled(&self, metadata: &Metadata<'_>, _: layer::Context<'_, S>) -> bool {
        metadata.target() == "sockeye_agent::cluster::watches" && *metadata.level() == Level::DEBUG
    }

    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        *self.told().entry(words.0.join(" ")).or_default() += 1;
    }
}

/// The values of an event's fields, but for its message.
#[derive(Default)]
struct Words(Vec<String>);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() != "message" {
            self.0.push(format!("{value:?}").trim_matches('"').to_owned());
        }
    }
}

async fn at_once(all: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    all.collect::<FuturesUnordered<_>>().try_collect().await
}

/// One node, with what outlives its agent.
struct Member {
    name: String,
    client: Client,
    /// One that asks until it is answered.
    bare: Client,
    node: FakeNode,
    /// Its last report, from when its agent was stopped.
    last: Option<BpfNodeStatus>,
}

impl Member {
    /// What an agent's process does.
    fn run(&self) -> LocalBoxFuture<'static, Result<()>> {
        let Self { name, client, bare: _, node, last: _ } = self;
        let facts = NodeFacts {
            boot_id: "00000000-0000-0000-0000-000000000000".to_owned(),
            kernel_release: "6.12.0".to_owned(),
            architecture: "x86_64".to_owned(),
            cgroup_mode: Some(CgroupMode::Unified),
            features: vec!["JIT".to_owned(), "KernelBTF".to_owned()],
            regressions: Vec::new(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let settings = Settings { facts, release_namespace: Some(RELEASE.to_owned()), ..settings() };
        let controller = Controller::new(node.clone(), settings, Instant::now());
        let cluster = Cluster {
            client: client.clone(),
            config: None,
            node_name: name.clone(),
            namespace: RELEASE.to_owned(),
            verifier: None,
            readiness: Readiness::default(),
        };
        async move {
            let (mut admission, mut read_api) = (Admission::new(None), ReadApi::default());
            cluster.run(controller, &mut admission, &mut read_api).await.map(|never| match never {})
        }
        .boxed_local()
    }

    async fn look(&mut self) -> Result<()> {
        self.last = Api::<BpfNode>::all(self.bare.clone()).get(&self.name).await?.status;
        Ok(())
    }

    /// One status write as an agent makes it, with a word more or less than the last.
    async fn write(&mut self) -> Result<()> {
        let status = self.last.as_mut().context("no report to change")?;
        let message = &mut status.programs.first_mut().context("a report without a BpfProgram")?.message;
        *message = if message.is_none() { Some("a word more".to_owned()) } else { None };
        write_status(&Api::<BpfNode>::all(self.bare.clone()), &self.name, status).await?;
        Ok(())
    }
}
