//! `World`: an operator, one real agent on this machine's kernel, and many agents on fake kernels. Each of the three
//! reaches the API server by a proxy of its own; the user's own connection never fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::Request;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sockeye_crds::{
    BpfNode, BpfNodeDetail, BpfProgram,
    condition::{ConditionType, Status},
    node::NodeProgram,
};
use sockeye_ebpf::programs::{TCP_EVENTS_BTF, fixtures};
use sockeye_tests::{
    chart,
    identity::{admin, kubeconfig},
    nodes,
    operator::{KeptOperator, Operator},
    proxy::{Fault, Proxy},
    traffic::Traffic,
};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{load::Load, node::Node};

/// The node of the real agent.
pub const NODE: &str = "away-real";
/// The BpfProgram that must not change.
pub const KEPT: &str = "kept";
/// The BpfProgram whose spec is edited.
pub const CHANGING: &str = "changing";
/// The time within which everything without a bound of its own has to happen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The processes and their proxies. Dropping it ends the processes and deletes nothing from the API server.
pub struct World {
    pub admin: Client,
    /// Is dropped before the node, whose cgroup can only be removed once it is empty.
    load: Option<Load>,
    pub node: Node,
    pub proxies: Proxies,
    /// The number of nodes.
    pub nodes: usize,
    operator: Option<KeptOperator>,
    swarm: Child,
    /// The real agent's kubeconfig.
    agent: PathBuf,
    kept: BTreeMap<String, Value>,
    edits: usize,
    work: TempDir,
}

/// The proxies before the API server.
pub struct Proxies {
    pub operator: Proxy,
    pub agent: Proxy,
    pub swarm: Proxy,
}

impl Proxies {
    pub fn set(&self, fault: &Fault) {
        for proxy in self.all() {
            proxy.set(fault.clone());
        }
    }

    pub fn all(&self) -> [&Proxy; 3] {
        [&self.operator, &self.agent, &self.swarm]
    }

    /// Returns the requests that each recorded in that time.
    pub fn during(&self, from: Instant, length: Duration) -> [Traffic; 3] {
        self.all().map(|proxy| proxy.traffic().during(from, length))
    }
}

/// Returns the path of a binary that was built with this test.
fn binary(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.ancestors().nth(2).context("no target directory")?.join(name);
    ensure!(path.exists(), "no {}: cargo build -p {name}", path.display());
    Ok(path)
}

impl World {
    /// Starts one real node and so many others, and waits until both BpfPrograms are in effect on all.
    pub async fn new(others: usize) -> Result<Self> {
        let work = tempfile::tempdir()?;
        chart::install()?;
        let admin = admin().await?;
        // A killed run may have left some.
        nodes::delete_all(&admin).await?;
        let proxies =
            Proxies { operator: Proxy::start().await?, agent: Proxy::start().await?, swarm: Proxy::start().await? };
        let (_, token) = nodes::create_one(&admin, NODE.to_owned()).await?;
        let mut node = Node::new("away");
        let agent = kubeconfig(&token, Some(&proxies.agent.url()), &work.path().join("agent.kubeconfig"))?;
        node.start_in_cluster(&agent, NODE);
        let tokens = work.path().join("tokens.json");
        std::fs::write(&tokens, serde_json::to_vec(&nodes::create(&admin, others).await?)?)?;
        let swarms = kubeconfig("none", Some(&proxies.swarm.url()), &work.path().join("swarm.kubeconfig"))?;
        let mut swarm = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary("sockeye-bench")?)
            .args(["swarm".as_ref(), "--tokens".as_ref(), tokens.as_os_str()])
            .env("KUBECONFIG", swarms)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        writeln!(swarm.stdin.as_mut().context("no input")?, "run")?;
        let mut told = String::new();
        BufReader::new(swarm.stdout.as_mut().context("no output")?).read_line(&mut told)?;
        let (nodes, load, kept) = (others + 1, None, BTreeMap::new());
        let mut world = Self { admin, node, proxies, nodes, operator: None, swarm, agent, load, kept, edits: 0, work };
        world.restart_operator().await?;
        for name in [KEPT, CHANGING] {
            let generation = world.apply(name, TCP_EVENTS_BTF).await?;
            world.ready(name, generation).await?;
        }
        world.kept = world.pinned(KEPT);
        ensure!(world.kept.len() == 3, "a program, a map and a link: {:?}", world.kept);
        world.load = Some(Load::start(world.node.cgroup())?);
        Ok(world)
    }

    /// Waits until the API server is ready.
    pub async fn answers(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let asked = self.admin.request_text(Request::get("/readyz").body(Vec::new())?);
            if matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(_))) {
                return Ok(());
            }
            ensure!(start.elapsed() < TIMEOUT, "the API server does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the real agent, and starts another.
    pub fn restart_agent(&mut self) {
        self.node.stop("KILL");
        self.start_agent();
    }

    /// Starts the real agent.
    pub fn start_agent(&mut self) {
        self.node.start_in_cluster(&self.agent, NODE);
    }

    /// Kills the operator, if one runs, and starts another.
    pub async fn restart_operator(&mut self) -> Result<()> {
        self.operator = None;
        let (binary, way) = (binary("sockeye-operator")?, self.proxies.operator.url());
        let operator = Operator::start(&self.admin, &binary, Some(&way), self.work.path()).await?;
        self.operator = Some(KeptOperator::new(operator));
        Ok(())
    }

    /// Applies a spec as the user, and returns its generation.
    pub async fn apply(&self, name: &str, object: &[u8]) -> Result<i64> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let spec = json!({
            "bytecode": {"inline": STANDARD.encode(object)},
            "attach": [{"type": "Node"}], "programs": [{"name": "my_prog"}],
        });
        let object = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name}, "spec": spec,
        });
        let written = self.programs().patch(name, &PatchParams::apply("user").force(), &Patch::Apply(object)).await?;
        written.metadata.generation.context("no generation")
    }

    /// Edits the bytes of CHANGING as the user, and returns the generation.
    pub async fn edit(&mut self) -> Result<i64> {
        self.edits += 1;
        self.apply(CHANGING, if self.edits % 2 == 1 { fixtures::TWICE } else { TCP_EVENTS_BTF }).await
    }

    /// Waits until the status says that a generation is in effect on every node.
    pub async fn ready(&self, name: &str, generation: i64) -> Result<()> {
        let start = Instant::now();
        loop {
            let program = self.programs().get(name).await?;
            if self.is_ready(&program, generation) {
                return Ok(());
            }
            if start.elapsed() > TIMEOUT {
                bail!("{name} did not get Ready: {:#?}\nagent:\n{}", program.status, self.node.log());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_ready(&self, program: &BpfProgram, generation: i64) -> bool {
        let Some(status) = &program.status else { return false };
        let ready = status.conditions.iter().any(|c| {
            c.type_ == ConditionType::Ready && c.status == Status::True && c.observed_generation == Some(generation)
        });
        let updated = status.nodes.as_ref().map_or(0, |nodes| nodes.updated);
        ready && usize::try_from(updated) == Ok(self.nodes)
    }

    pub fn programs(&self) -> Api<BpfProgram> {
        Api::all(self.admin.clone())
    }

    /// Returns what the real node's BpfNode says of CHANGING.
    pub async fn node_program(&self) -> Result<Option<NodeProgram>> {
        let node = Api::<BpfNode>::all(self.admin.clone()).get_opt(NODE).await?;
        let status = node.and_then(|node| node.status).unwrap_or_default();
        Ok(status.programs.into_iter().find(|program| program.name == CHANGING))
    }

    /// Waits until the real node's BpfNode has the IDs of the program and the map, and the number of links, that the
    /// kernel has for CHANGING.
    pub async fn reported(&self) -> Result<()> {
        let held = self.pinned(CHANGING);
        let ids = |folder: &str| -> BTreeSet<i64> {
            held.iter().filter(|(pin, _)| pin.starts_with(folder)).filter_map(|(_, held)| held[0].as_i64()).collect()
        };
        let expected = (ids("programs/"), ids("maps/"), ids("links/").len());
        let start = Instant::now();
        loop {
            let said = self.node_program().await?.map(|program| {
                let links = usize::try_from(program.links).unwrap_or_default();
                (program.program_ids.into_iter().collect(), program.map_ids.into_iter().collect(), links)
            });
            if said.as_ref() == Some(&expected) {
                return Ok(());
            }
            ensure!(start.elapsed() < TIMEOUT, "{said:?} is reported, {held:#?} is pinned:\n{}", self.node.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the real node's BpfNodeDetail has the IDs that the kernel has for CHANGING, of links too.
    pub async fn detailed(&self) -> Result<()> {
        let held = self.pinned(CHANGING);
        let ids: BTreeSet<i64> = held.values().filter_map(|held| held[0].as_i64()).collect();
        let start = Instant::now();
        loop {
            let node = Api::<BpfNodeDetail>::all(self.admin.clone()).get_opt(NODE).await?;
            let status = node.and_then(|node| node.status).unwrap_or_default();
            let said = status.programs.iter().find(|detail| detail.name == CHANGING).map(|detail| {
                let (programs, maps, links) = (&detail.programs, &detail.maps, &detail.links);
                let programs = programs.iter().map(|program| program.id);
                programs.chain(maps.iter().map(|map| map.id)).chain(links.iter().filter_map(|link| link.id)).collect()
            });
            if said.as_ref() == Some(&ids) {
                return Ok(());
            }
            ensure!(start.elapsed() < TIMEOUT, "{said:?} is described, {held:#?} is pinned:\n{}", self.node.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Detaches the link of CHANGING, and waits until the agent has made another.
    pub async fn drift(&self) -> Result<()> {
        let links = || -> Vec<(String, Value)> {
            self.pinned(CHANGING).into_iter().filter(|(pin, _)| pin.starts_with("links/")).collect()
        };
        let before = links();
        let id = before.first().context("no link")?.1[0].clone();
        self.node.run("bpftool", &["link", "detach", "id", &id.to_string()]);
        let start = Instant::now();
        while links().first().is_none_or(|link| link.1[0] == id) {
            ensure!(start.elapsed() < TIMEOUT, "it stays detached:\n{}", self.node.log());
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Returns the status of KEPT.
    pub async fn status_of_kept(&self) -> Result<Value> {
        Ok(serde_json::to_value(self.programs().get(KEPT).await?.status)?)
    }

    /// Returns what the real node's kernel has for a BpfProgram, by pin: IDs, load times, and references.
    pub fn pinned(&self, name: &str) -> BTreeMap<String, Value> {
        let held = |pin: String| {
            let (kind, path) = (pin.split('s').next().unwrap_or_default(), format!("{}/{pin}", self.node.home(name)));
            let kind = if kind == "program" { "prog" } else { kind };
            let shown = self.node.bpftool(&[kind, "show", "pinned", &path]);
            let keys = ["id", "loaded_at", "tag", "map_ids", "prog_id", "cgroup_id"];
            (pin, json!(keys.map(|key| shown[key].clone())))
        };
        self.node.pins(name).into_iter().map(held).collect()
    }

    /// Fails if anything of KEPT changed.
    pub fn ensure_untouched(&self) -> Result<()> {
        let held = self.pinned(KEPT);
        ensure!(held == self.kept, "{KEPT} was {:#?} and is {held:#?}\nagent:\n{}", self.kept, self.node.log());
        Ok(())
    }

    /// Fails unless every connection was counted once at each end. Then removes everything.
    pub async fn end(mut self) -> Result<()> {
        let made = self.load.take().context("no load")?.stop()?;
        let counted = self.node.events(KEPT);
        // ACTIVE_ESTABLISHED_CB and PASSIVE_ESTABLISHED_CB
        ensure!((counted[4], counted[5]) == (made, made), "{made} connections were made, and counted: {counted:?}");
        println!("{made} connections, each counted once at each end");
        self.take_down().await
    }

    /// Deletes both BpfPrograms, and fails if anything of them is left.
    pub async fn take_down(mut self) -> Result<()> {
        self.load = None;
        for name in [KEPT, CHANGING] {
            self.programs().delete(name, &DeleteParams::default()).await?;
        }
        let start = Instant::now();
        while !self.programs().list_metadata(&ListParams::default()).await?.items.is_empty() {
            ensure!(start.elapsed() < TIMEOUT, "the BpfPrograms do not go");
            sleep(Duration::from_millis(50)).await;
        }
        self.node.nothing_left();
        nodes::delete_all(&self.admin).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.swarm.kill();
        let _ = self.swarm.wait();
    }
}
