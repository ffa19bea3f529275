//! The figures of connections: the cost of attached counters for processes that connect, sockeye's compared with the
//! same object loaded and attached by bpftool. Needs no cluster.
//!
//! Each side has a cgroup of its own, in which its counters stay throughout. In each round, the bench's process
//! connects for a moment in every cgroup: other load on the machine falls on all sides alike, and ratios are taken
//! within a round.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{program::TestProgram, run};

use crate::{
    place::Place,
    process::Process,
    programs::{at, attached, manifest_of},
    table::{Figure, median},
};

/// The number of turns of each side.
const ROUNDS: usize = 50;
/// The length of a turn.
const TURN: Duration = Duration::from_millis(100);
/// The numbers of counters at one cgroup.
const FEW: usize = 1;
const MANY: usize = 5;
/// None, few and many, by sockeye and by bpftool, and all but sockeye's a second time.
const SIDES: usize = 8;
/// A ratio counts as one if it is off by no more than this, or than the run's own noise.
const TOLERANCE: f64 = 0.05;
/// With more noise than this the run fails.
const TOO_NOISY: f64 = 0.25;

/// The bench's options.
#[derive(clap::Args)]
pub struct Bench {
    /// The agent's binary, as its image has it.
    #[arg(long)]
    agent: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Bench {
    /// Measures all figures.
    pub fn run(&self) -> Result<Vec<Figure>> {
        let manifests = self.place.work.join("manifests");
        fs::create_dir(&manifests)?;
        let (few, many) = (self.by_sockeye(FEW, &manifests)?, self.by_sockeye(MANY, &manifests)?);
        let agent = Process::start(&self.agent, &manifests, &self.place.bpffs, &self.place.cgroup, None)?;
        agent.reported(FEW + MANY)?;
        let mut sides = [
            Side::start(&self.place.cgroup, "none")?,
            Side::start(&self.place.cgroup, "none-again")?,
            few,
            self.by_bpftool(FEW, "bpftool-few")?,
            self.by_bpftool(FEW, "bpftool-few-again")?,
            many,
            self.by_bpftool(MANY, "bpftool-many")?,
            self.by_bpftool(MANY, "bpftool-many-again")?,
        ];
        println!("connections through no counter, {FEW} and {MANY}, {ROUNDS} times");
        for round in 0..ROUNDS {
            // Another side begins each round, so that effects on the first and the last fall on all alike.
            let (later, first) = sides.split_at_mut(round % SIDES);
            first.iter_mut().chain(later).try_for_each(Side::connect)?;
        }
        sides.iter().try_for_each(Side::has_counted)?;
        agent.stop()?;
        figures(&sides)
    }

    /// Makes a side whose counters the agent attaches once it is started with these manifests.
    fn by_sockeye(&self, count: usize, manifests: &Path) -> Result<Side> {
        let mut side = Side::start(&self.place.cgroup, &format!("sockeye-{count}"))?;
        for i in 0..count {
            let name = format!("{}-{i}", side.name);
            let manifest = manifest_of(&name, TCP_EVENTS_BTF, &at(&format!("/{}", side.name)));
            fs::write(manifests.join(format!("{name}.yaml")), manifest)?;
            side.maps.push(format!("{}/sockeye/{name}/maps/my_map", self.place.bpffs.display()));
        }
        Ok(side)
    }

    /// Makes a side whose counters bpftool attaches.
    fn by_bpftool(&self, count: usize, name: &str) -> Result<Side> {
        let mut side = Side::start(&self.place.cgroup, name)?;
        let paths = [&self.place.file(TCP_EVENTS_BTF)?, &side.cgroup, &self.place.bpffs];
        let [object, cgroup, bpffs] = paths.map(|path| path.display().to_string());
        for i in 0..count {
            let (pin, maps) = (format!("{bpffs}/{name}-{i}"), format!("{bpffs}/{name}-{i}-maps"));
            bpftool(&["prog", "load", &object, &pin, "pinmaps", &maps])?;
            bpftool(&["cgroup", "attach", &cgroup, "sock_ops", "pinned", &pin, "multi"])?;
            side.maps.push(maps + "/my_map");
        }
        Ok(side)
    }
}

/// One cgroup with its counters, or with none.
struct Side {
    name: String,
    cgroup: PathBuf,
    /// The pins of its counters' maps.
    maps: Vec<String>,
    /// The number of connections so far.
    made: u64,
    /// Connections per second, by round.
    rates: Vec<f64>,
}

impl Side {
    /// Makes a side without counters, in a cgroup of its own.
    fn start(root: &Path, name: &str) -> Result<Self> {
        let cgroup = root.join(name);
        fs::create_dir(&cgroup)?;
        Ok(Self { name: name.to_owned(), cgroup, maps: Vec::new(), made: 0, rates: Vec::new() })
    }

    /// Takes a turn: connects and hangs up. Both ends are created in the side's cgroup, and so belong to it.
    fn connect(&mut self) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.procs"), "0")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut made = 0;
        let start = Instant::now();
        while start.elapsed() < TURN {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            // RST, since TIME_WAIT would soon use up all ports.
            set_socket_linger(&client, Some(Duration::ZERO))?;
            drop((client, server));
            made += 1;
        }
        self.rates.push(made as f64 / start.elapsed().as_secs_f64());
        self.made += made;
        Ok(())
    }

    /// Fails unless each counter counted every connection and nothing else is attached.
    fn has_counted(&self) -> Result<()> {
        let Self { name, cgroup, maps, made, .. } = self;
        let there = attached(&File::open(cgroup)?)?.len();
        ensure!(there == maps.len(), "{name}: {there} counters are attached, not {}", maps.len());
        for map in maps {
            let event = TestProgram::ACTIVE.to_string();
            let found = bpftool(&["--json", "map", "lookup", "pinned", map, "key", &event, "0", "0", "0"])?;
            let counted = &serde_json::from_str::<Value>(&found)?["formatted"]["value"];
            ensure!(counted == made, "{name}: {counted} connections were counted, {made} made");
        }
        Ok(())
    }

    /// Returns the ratios of this side's rates to another's, by round.
    fn beside(&self, other: &Self) -> Vec<f64> {
        self.rates.iter().zip(&other.rates).map(|(own, other)| own / other).collect()
    }
}

fn bpftool(args: &[&str]) -> Result<String> {
    run(Command::new("bpftool").args(args))
}

fn figures(sides: &[Side; SIDES]) -> Result<Vec<Figure>> {
    let [none, none_again, few, few_bpftool, few_again, many, many_bpftool, many_again] = sides;
    let noise = noise(&[(none, none_again), (few_bpftool, few_again), (many_bpftool, many_again)]);
    ensure!(noise < TOO_NOISY, "the machine is too busy: two equal sides differ by {noise:.2}");
    let beside = |what: String, side: &Side, other: &Side| {
        let [rate, reference] = [side, other].map(|side| median(side.rates.clone()));
        let figure = Figure::alone("connections", what, rate, "/s").against(reference);
        Figure { ratio: Some(median(side.beside(other))), ..figure }
    };
    let mut figures = vec![beside("no counter, beside the same again".to_owned(), none, none_again)];
    for (count, own, theirs, again) in [(FEW, few, few_bpftool, few_again), (MANY, many, many_bpftool, many_again)] {
        let of = |what: &str, side, other| beside(format!("counters: {count}, {what}"), side, other);
        figures.extend([
            of("sockeye's beside bpftool's", own, theirs).within(noise.max(TOLERANCE)),
            of("bpftool's beside the same again", theirs, again),
            of("sockeye's beside none", own, none),
            of("bpftool's beside none", theirs, none),
        ]);
    }
    figures.push(Figure::alone("connections", "noise: the same beside itself is off by", noise * 100.0, "%"));
    Ok(figures)
}

/// Returns the noise: how far the ratio of two equal sides is from one, in the worst half of the rounds of the worst
/// pair.
fn noise(same: &[(&Side, &Side)]) -> f64 {
    let off = |half: &[f64]| (median(half.to_vec()) - 1.0).abs();
    let halves = same.iter().flat_map(|(side, again)| {
        let ratios = side.beside(again);
        let (first, second) = ratios.split_at(ratios.len() / 2);
        [off(first), off(second)]
    });
    halves.fold(0.0, f64::max)
}
