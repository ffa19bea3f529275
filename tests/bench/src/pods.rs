//! The figures of pods: what links at many of them cost, and how soon one that comes has its own. Needs no cluster, and
//! leaves the node as it found it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use crate::{
    kubelet::Kubelet,
    own::{Own, settle},
    place::Place,
    process::{Memory, Process},
    programs::{attached, manifest_of, program},
    reference::{Loaders, Placed, References},
    table::{Bound, Figure, median, milliseconds, percentile},
};

/// The kubelet's own bound (`maxPods`), where nobody sets another.
const PODS: usize = 110;
/// BpfPrograms, each of which is loaded once and picks every pod.
const PROGRAMS: usize = 10;
const LINKS: usize = PODS * PROGRAMS;
/// How often they are attached, and found again.
const ROUNDS: usize = 5;
/// So long an agent is watched that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);
/// Pods that come to an empty node, and to a full one.
const COMING: [Coming; 3] = [
    Coming { programs: 1, others: 0, pods: 300, most: 10.0 },
    Coming { programs: 1, others: PODS - 1, pods: 300, most: 20.0 },
    Coming { programs: PROGRAMS, others: PODS - 1, pods: 100, most: 250.0 },
];
/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the figures are taken with.
#[derive(clap::Args)]
pub struct Bench {
    /// The agent's binary, as its image has it.
    #[arg(long)]
    agent: PathBuf,
    #[command(flatten)]
    loaders: Loaders,
    #[command(flatten)]
    place: Place,
}

impl Bench {
    /// All of them.
    pub fn run(&self) -> Result<Vec<Figure>> {
        println!("{PROGRAMS} programs at {PODS} pods, {ROUNDS} times");
        let mut figures = self.links()?;
        for coming in &COMING {
            println!("{} pods come one by one to {} others, programs: {}", coming.pods, coming.others, coming.programs);
            figures.extend(self.coming(coming)?);
        }
        Ok(figures)
    }

    /// All links from nothing, and the same ones found again by an agent whose predecessor was killed.
    fn links(&self) -> Result<Vec<Figure>> {
        let node = Node::start(self, "links", PODS, PROGRAMS)?;
        let pods = (0..PODS).map(|n| node.kubelet.make(n)).collect::<Result<Vec<_>>>()?;
        let mut references = References::start(&self.loaders, &self.place, TCP_EVENTS_BTF, "reference")?;
        let cgroups: Vec<PathBuf> = (0..PODS).map(|n| node.kubelet.directory(n)).collect();
        let placed: Vec<Placed> = (0..PROGRAMS).map(|i| (program(i), cgroups.clone())).collect();
        let (mut floors, mut from_nothing, mut found_again, mut idle) = ([vec![], vec![]], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let turn = references.apply(&placed)?.map(|all| microseconds_a_link(all.into_iter().sum()));
            floors.iter_mut().zip(turn).for_each(|(all, one)| all.push(one));
            references.undo(&placed)?;
            settle();

            let (first, loaded) = node.agent(&pods)?;
            first.kill();
            let (second, found) = node.agent(&pods)?;
            ensure!(found.ids == loaded.ids, "the programs found are not those that were loaded");
            let before = second.cpu()?;
            sleep(IDLE);
            idle.push(milliseconds(second.cpu()? - before) / IDLE.as_secs_f64());
            second.stop()?;
            Own::clear(&node.bpffs, &node.cgroup)?;
            settle();
            from_nothing.push(loaded);
            found_again.push(found);
        }
        let [libbpf, cilium] = floors.map(median);
        let mut figures = Vec::new();
        let starts = [("from nothing", from_nothing, 1.6), ("found again after a kill", found_again, 1.2)];
        for (how, all, times) in starts {
            let of = |part: fn(&Start) -> f64| median(all.iter().map(part).collect());
            let what = |what: &str| format!("{LINKS} links, {how}, {what}");
            let took = of(|start| microseconds_a_link(start.took));
            figures.extend([
                Figure::alone("links", what("process to report, each"), took, "µs")
                    .against(libbpf)
                    .beside(cilium)
                    .at_most(Bound::Ratio(times)),
                Figure::alone("links", what("processor time"), of(|start| milliseconds(start.cpu)), "ms"),
                Figure::alone("memory", what("VmRSS"), of(|start| start.memory.resident), "MiB")
                    .at_most(Bound::Value(20.0)),
            ]);
        }
        let idle = Figure::alone("links", format!("{LINKS} links, idle, processor time a second"), median(idle), "ms");
        figures.push(idle.at_most(Bound::Value(10.0)));
        Ok(figures)
    }

    /// From before a pod's cgroup is made until that cgroup's query lists all programs. The agent is told of the pod
    /// before, and has nothing to do when the pod comes. It goes again: the others are always as many.
    fn coming(&self, &Coming { programs, others, pods, most }: &Coming) -> Result<[Figure; 2]> {
        let node = Node::start(self, &format!("coming-{programs}-{others}"), others + pods, programs)?;
        let there = (0..others).map(|n| node.kubelet.make(n)).collect::<Result<Vec<_>>>()?;
        let (agent, Start { ids, .. }) = node.agent(&there)?;
        let mut took = Vec::new();
        for n in others..others + pods {
            agent.rests()?;
            let start = Instant::now();
            let pod = node.kubelet.make(n)?;
            while attached(&pod)?.len() < programs {
                ensure!(start.elapsed() < TIMEOUT, "nothing was attached to a pod in {TIMEOUT:?}");
                sleep(Duration::from_micros(20));
            }
            took.push(milliseconds(start.elapsed()));
            ensure!(sorted(attached(&pod)?) == ids, "what is attached to a pod is not the agent's");
            agent.rests()?;
            fs::remove_dir(node.kubelet.directory(n))?;
        }
        agent.stop()?;
        Own::clear(&node.bpffs, &node.cgroup)?;
        let figure = |what: &str, value| {
            let what = format!("pod to links in effect, programs: {programs}, other pods: {others}, {what}");
            Figure::alone("coming", what, value, "ms")
        };
        Ok([
            figure("median", median(took.clone())).at_most(Bound::Value(most)),
            figure("99th percentile", percentile(took, 99)),
        ])
    }
}

/// Pods that come one by one.
struct Coming {
    /// BpfPrograms that pick them.
    programs: usize,
    /// Pods that are there already.
    others: usize,
    /// Pods that come.
    pods: usize,
    /// What the median may be, in milliseconds.
    most: f64,
}

/// A node with pods, as its agent sees it.
struct Node<'a> {
    binary: &'a Path,
    cgroup: PathBuf,
    bpffs: PathBuf,
    manifests: PathBuf,
    programs: usize,
    kubelet: Kubelet,
}

/// What became of an agent's start, when it reported.
struct Start {
    took: Duration,
    cpu: Duration,
    memory: Memory,
    /// Of the programs, sorted.
    ids: Vec<u32>,
}

impl<'a> Node<'a> {
    /// With so many pods listed, of which none is there yet, and so many BpfPrograms that pick them all.
    fn start(bench: &'a Bench, name: &str, listed: usize, programs: usize) -> Result<Self> {
        let (cgroup, bpffs, manifests) =
            (bench.place.cgroup.join(name), bench.place.bpffs.join(name), bench.place.work.join(name));
        fs::create_dir(&bpffs)?;
        fs::create_dir(&manifests)?;
        let kubelet = Kubelet::start(&cgroup, &manifests, listed)?;
        for i in 0..programs {
            let manifest = manifest_of(&program(i), TCP_EVENTS_BTF, &Kubelet::target());
            fs::write(manifests.join(program(i) + ".yaml"), manifest)?;
        }
        Ok(Self { binary: &bench.agent, cgroup, bpffs, manifests, programs, kubelet })
    }

    /// Starts an agent, which runs on. Fails unless each pod's own query lists the same programs: one of each
    /// BpfProgram.
    fn agent(&self, pods: &[File]) -> Result<(Process, Start)> {
        let start = Instant::now();
        let list = Some(self.kubelet.list());
        let agent = Process::start(self.binary, &self.manifests, &self.bpffs, &self.cgroup, list)?;
        let status = agent.reported(self.programs)?;
        let (took, cpu, memory) = (start.elapsed(), agent.cpu()?, agent.memory()?);
        let ids = status.programs.iter().flat_map(|program| &program.program_ids);
        let ids = sorted(ids.map(|&id| u32::try_from(id)).collect::<Result<_, _>>()?);
        ensure!(ids.len() == self.programs, "{} programs are loaded, not {}", ids.len(), self.programs);
        for (n, pod) in pods.iter().enumerate() {
            let there = sorted(attached(pod)?);
            ensure!(there == ids, "programs {there:?} are attached to pod {n}, not {ids:?}");
        }
        let links = usize::try_from(status.counts.links).context("links")?;
        ensure!(links == pods.len() * self.programs, "{links} links are reported");
        Ok((agent, Start { took, cpu, memory, ids }))
    }
}

fn sorted(mut ids: Vec<u32>) -> Vec<u32> {
    ids.sort_unstable();
    ids
}

fn microseconds_a_link(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6 / LINKS as f64
}
