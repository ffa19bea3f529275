//! The figures of one node's agent. Each leaves the node as it found it.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
    vec::IntoIter,
};

use anyhow::{Context as _, Result, ensure};
use sockeye_agent::model::assignment::Assignment;
use sockeye_crds::BpfRevision;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF, fixtures::CORE};
use tracing_subscriber::EnvFilter;

use crate::{
    linking,
    own::{Own, settle},
    place::Place,
    process::Process,
    programs::{Cgroups, assignment, attached, manifest, program, revision, with_object},
    reference::{Loaders, Placed, References},
    table::{Bound, Figure, median, milliseconds},
};

/// How often one program is brought into effect.
const REPEATS: usize = 200;
/// So many more come first and are not counted: caches and lazily read facts are then there for all sides.
const WARM_UP: usize = 20;
/// So many are brought into effect by one side before it is the next one's turn.
const BLOCK: usize = 20;
/// Many programs on one node.
const MANY: usize = 1000;
/// How often that is done.
const ROUNDS: usize = 3;
/// How often a process is started.
const STARTS: usize = 20;
/// The agent has glanced at everything several times by then: its memory is what it stays.
const AT_REST: Duration = Duration::from_secs(12);
/// Loading like libbpf costs at most so many times libbpf's.
const TIMES: Bound = Bound::Ratio(1.2);

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
    /// The folder of the images' archives.
    #[arg(long)]
    images: PathBuf,
}

impl Bench {
    /// All of them.
    pub fn run(&self) -> Result<Vec<Figure>> {
        // The agent says a line for each BpfProgram that it brings into effect, which is part of what it costs.
        let log = fs::File::create(self.place.work.join("own.log"))?;
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_writer(log).with_ansi(false).init();
        let cgroups = Cgroups::make(&self.place.cgroup)?;
        let mut figures = Vec::new();
        println!("one program, {REPEATS} times");
        figures.extend(self.one(&cgroups)?);
        println!("one program with CO-RE relocations, {REPEATS} times");
        figures.extend(self.relocated(&cgroups)?);
        println!("reading and linking");
        figures.push(linking::figure(&self.loaders, &self.place)?);
        println!("{MANY} programs, {ROUNDS} times");
        figures.extend(self.many(&cgroups)?);
        println!("the agent's memory, idle and with {MANY} programs");
        figures.extend(self.memory()?);
        println!("the agent's start, {STARTS} times");
        figures.extend(self.start(&cgroups)?);
        figures.extend(self.sizes()?);
        Ok(figures)
    }

    /// One more program on the node: parse, create the map, relocate, load, attach, pin, note, read back. All sides
    /// take turns in blocks, so that what else the machine does falls on all alike and each runs as a loop runs, and
    /// are undone at the end, so that nothing that the kernel does later for an undone one falls on the next.
    fn one(&self, cgroups: &Cgroups) -> Result<Vec<Figure>> {
        let places = places(cgroups, WARM_UP + REPEATS);
        let mut references = self.references(TCP_EVENTS_BTF, "one")?;
        let mut seed = Side::start(self, "one-seed", TCP_EVENTS, places.len())?;
        let mut btf = Side::start(self, "one-btf", TCP_EVENTS_BTF, places.len())?;
        let mut took = [const { Vec::new() }; 4];
        for block in places.chunks(BLOCK) {
            let [libbpf, cilium] = references.apply(block)?;
            let turn = [libbpf, cilium, seed.add(block.len()), btf.add(block.len())];
            took.iter_mut().zip(turn).for_each(|(all, block)| all.extend(block));
        }
        references.undo(&places)?;
        seed.finish(places.len())?;
        btf.finish(places.len())?;
        let [libbpf, cilium, seed, btf] = took.map(warm_median);
        let figure =
            |what, value| Figure::alone("load", what, value, "ms").against(libbpf).beside(cilium).at_most(TIMES);
        Ok(vec![
            figure("one program into effect, the seed's form", seed),
            figure("one program into effect, the BTF form", btf),
        ])
    }

    /// One more program whose object has a CO-RE relocation, for which the kernel's BTF is read: alone in a pass, and
    /// the second of a pass.
    fn relocated(&self, cgroups: &Cgroups) -> Result<Vec<Figure>> {
        let places = places(cgroups, WARM_UP + REPEATS);
        let mut references = self.references(CORE, "core")?;
        let mut alone = Side::start(self, "core-alone", CORE, places.len())?;
        let mut pairs = Side::start(self, "core-pairs", CORE, 2 * places.len())?;
        let mut took = [const { Vec::new() }; 4];
        for block in places.chunks(BLOCK) {
            let [libbpf, cilium] = references.apply(block)?;
            let turn = [libbpf, cilium, alone.add(block.len()), pairs.add_by(2, block.len())];
            took.iter_mut().zip(turn).for_each(|(all, block)| all.extend(block));
        }
        references.undo(&places)?;
        alone.finish(places.len())?;
        pairs.finish(2 * places.len())?;
        let [libbpf, cilium, alone, pair] = took.map(warm_median);
        let figure = |what, value, most| {
            let figure = Figure::alone("relocation", what, value, "ms").against(libbpf).beside(cilium);
            figure.at_most(Bound::Ratio(most))
        };
        Ok(vec![
            figure("one program with CO-RE relocations into effect", alone, 0.7),
            figure("the second one of a pass", pair - alone, 0.1),
        ])
    }

    fn references(&self, object: &[u8], name: &str) -> Result<References> {
        References::start(&self.loaders, &self.place, object, name)
    }

    /// A thousand at once, and the same thousand found again by another agent, which has no bytes to load from. Then
    /// once more, while containers start.
    fn many(&self, cgroups: &Cgroups) -> Result<Vec<Figure>> {
        let mut references = self.references(TCP_EVENTS_BTF, "many")?;
        let all: Vec<_> = (0..MANY).map(|i| revision(i, TCP_EVENTS)).collect::<Result<_>>()?;
        let desired = assignment(all);
        let places = places(cgroups, MANY);
        let mut took = [const { Vec::new() }; 4];
        let mut longest_start = Duration::ZERO;
        for _ in 0..ROUNDS {
            let [libbpf, cilium] = references.apply(&places)?.map(|all| all.into_iter().sum());
            references.undo(&places)?;
            settle();

            let directory = self.directory("many")?;
            let mut first = Own::start(&directory, &self.place.cgroup)?;
            let from_nothing = first.reconcile(&with_object(&desired, TCP_EVENTS));
            let ids = first.in_effect(MANY)?;
            drop(first);
            let mut second = Own::start(&directory, &self.place.cgroup)?;
            let found_again = second.reconcile(&desired);
            ensure!(second.in_effect(MANY)? == ids, "the programs found are not those that were loaded");
            second.reconcile(&assignment([]));
            second.in_effect(0)?;
            longest_start = longest_start.max(second.longest_start(&with_object(&desired, TCP_EVENTS))?);
            second.in_effect(MANY)?;
            second.reconcile(&assignment([]));
            settle();
            let turn = [libbpf, cilium, from_nothing, found_again];
            took.iter_mut().zip(turn).for_each(|(all, one)| all.push(milliseconds(one) / MANY as f64));
        }
        let [libbpf, cilium, from_nothing, found_again] = took.map(median);
        let figure = |what: &str, value| {
            let what = format!("{MANY} programs, {what}, each");
            Figure::alone("many", what, value, "ms").against(libbpf).beside(cilium)
        };
        let start = format!("a container start during the load of {MANY} programs, at most");
        Ok(vec![
            figure("from nothing", from_nothing).at_most(TIMES),
            figure("found again after a restart", found_again),
            Figure::alone("many", start, milliseconds(longest_start), "ms").at_most(Bound::Value(50.0)),
        ])
    }

    /// What the process holds; and how long it takes to a whole report, its manifests read and its statuses written.
    fn memory(&self) -> Result<Vec<Figure>> {
        let bpffs = self.directory("memory")?;
        let manifests = self.manifests("memory")?;
        let figure = |what: &str, value, most| {
            Figure::alone("memory", format!("agent, {what}"), value, "MiB").at_most(Bound::Value(most))
        };
        let told = |what: &str, value| Figure::alone("memory", format!("agent, {what}"), value, "MiB");

        let agent = Process::start(&self.agent, &manifests, &bpffs, &self.place.cgroup, None)?;
        agent.reported(0)?;
        sleep(AT_REST);
        let idle = agent.memory()?;
        agent.stop()?;

        for i in 0..MANY {
            fs::write(manifests.join(program(i) + ".yaml"), manifest(i, TCP_EVENTS))?;
        }
        let mut reported = Vec::new();
        let mut held = Vec::new();
        for _ in 0..2 {
            let start = Instant::now();
            let agent = Process::start(&self.agent, &manifests, &bpffs, &self.place.cgroup, None)?;
            agent.reported(MANY)?;
            reported.push(start.elapsed());
            sleep(AT_REST);
            held.push(agent.memory()?);
            agent.stop()?;
        }
        Own::clear(&bpffs, &self.place.cgroup)?;
        let mut figures =
            vec![figure("idle, VmRSS", idle.resident, 15.0), figure("idle, Pss", idle.proportional, 15.0)];
        for (when, held, reported) in
            [("loaded", held.first(), reported.first()), ("found", held.get(1), reported.get(1))]
        {
            let (held, reported) = (held.context("no memory")?, reported.context("no time")?);
            figures.push(figure(&format!("{MANY} {when}, VmRSS"), held.resident, 40.0));
            figures.push(figure(&format!("{MANY} {when}, Pss"), held.proportional, 40.0));
            figures.push(told(&format!("{MANY} {when}, VmHWM"), held.peak));
            let what = format!("process to report, {MANY} {when}, each");
            figures.push(Figure::alone("many", what, milliseconds(*reported) / MANY as f64, "ms"));
        }
        Ok(figures)
    }

    /// From the start of the process to its first program in effect, by the cgroup's own query, and to the report of
    /// it.
    fn start(&self, cgroups: &Cgroups) -> Result<Vec<Figure>> {
        let bpffs = self.directory("start")?;
        let cgroup = fs::File::open(cgroups.directory(0))?;
        let (mut in_effect, mut reported) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let manifests = self.manifests("start")?;
            fs::write(manifests.join("first.yaml"), manifest(0, TCP_EVENTS))?;
            let start = Instant::now();
            let agent = Process::start(&self.agent, &manifests, &bpffs, &self.place.cgroup, None)?;
            while attached(&cgroup)?.is_empty() {
                ensure!(start.elapsed() < Duration::from_secs(10), "nothing came into effect in ten seconds");
                sleep(Duration::from_micros(100));
            }
            in_effect.push(milliseconds(start.elapsed()));
            agent.reported(1)?;
            reported.push(milliseconds(start.elapsed()));
            agent.stop()?;
            Own::clear(&bpffs, &self.place.cgroup)?;
        }
        let figure =
            |what: &str, all| Figure::alone("start", format!("process to first program {what}"), median(all), "ms");
        Ok(vec![figure("in effect", in_effect), figure("reported", reported)])
    }

    /// The images' archives.
    fn sizes(&self) -> Result<Vec<Figure>> {
        let size = |name: &str| {
            let archive = self.images.join(name).with_extension("tar");
            let bytes = fs::metadata(&archive).with_context(|| archive.display().to_string())?.len();
            anyhow::Ok(
                Figure::alone("image", format!("{name}'s image"), bytes as f64 / 1e6, "MB").at_most(Bound::Value(40.0)),
            )
        };
        ["agent", "operator"].into_iter().map(size).collect()
    }

    /// A directory on bpffs, as a bpffs of its own.
    fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.place.bpffs.join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// An empty folder of manifests.
    fn manifests(&self, name: &str) -> Result<PathBuf> {
        let folder = self.place.work.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// The agent's side where programs are added one by one.
struct Side {
    own: Own,
    desired: Assignment,
    /// What the operator would dispatch: checked before anything is timed.
    revisions: IntoIter<Arc<BpfRevision>>,
}

impl Side {
    fn start(bench: &Bench, name: &str, object: &'static [u8], count: usize) -> Result<Self> {
        let own = Own::start(&bench.directory(name)?, &bench.place.cgroup)?;
        let revisions: Vec<_> = (0..count).map(|i| revision(i, object)).collect::<Result<_>>()?;
        let desired = with_object(&assignment([]), object);
        Ok(Self { own, desired, revisions: revisions.into_iter() })
    }

    /// Adds so many more, in a pass each. Returns how long each pass took.
    fn add(&mut self, count: usize) -> Vec<Duration> {
        self.add_by(1, count)
    }

    /// Adds `each` more in a pass, and so in `count` passes. Returns how long each pass took.
    fn add_by(&mut self, each: usize, count: usize) -> Vec<Duration> {
        let Self { own, desired, revisions } = self;
        let mut pass = || {
            for revision in revisions.take(each) {
                desired.revisions.insert(revision.spec.program_ref.name.clone(), revision);
            }
            own.reconcile(desired)
        };
        (0..count).map(|_| pass()).collect()
    }

    /// Fails unless all are in effect, and removes them.
    fn finish(mut self, count: usize) -> Result<()> {
        self.own.in_effect(count)?;
        self.desired.revisions.clear();
        self.own.reconcile(&self.desired);
        self.own.in_effect(0).map(drop)
    }
}

/// Returns so many programs, each with its cgroup.
fn places(cgroups: &Cgroups, count: usize) -> Vec<Placed> {
    (0..count).map(|i| (program(i), vec![cgroups.directory(i)])).collect()
}

/// Returns the median in milliseconds, without those that came first.
fn warm_median(all: Vec<Duration>) -> f64 {
    median(all.into_iter().skip(WARM_UP).map(milliseconds).collect())
}
