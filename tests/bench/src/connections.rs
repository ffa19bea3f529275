//! The figures of connections: what attached counters cost those who connect, sockeye's beside the same object that
//! bpftool loaded and attached. Needs no cluster.
//!
//! Each side has a cgroup of its own, in which its counters stay throughout. The bench's process goes from one to the
//! next and makes connections in each for a moment, round after round: what else the machine does falls on all sides
//! alike, and ratios are taken within a round.

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

/// How often each side has its turn.
const ROUNDS: usize = 50;
/// How long a turn is.
const TURN: Duration = Duration::from_millis(100);
/// So many counters at one cgroup.
const FEW: usize = 1;
const MANY: usize = 5;
/// None, few and many, sockeye's and bpftool's, and the same again for all but sockeye's.
const SIDES: usize = 8;
/// A ratio is one if it is no further off than this, or than the run's own noise.
const TOLERANCE: f64 = 0.05;
/// With so much noise nothing can be told.
const TOO_NOISY: f64 = 0.25;

/// What the figures are taken with.
#[derive(clap::Args)]
pub struct Bench {
    /// The agent's binary, as its image has it.
    #[arg(long)]
    agent: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Bench {
    /// All of them.
    pub fn run(&self) -> Result<Vec<Figure>> {
        let manifests = self.place.work.join("manifests");
        fs::create_dir(&manifests)?;
        let (few, many) = (self.by_sockeye(FEW, &manifests)?, self.by_sockeye(MANY, &manifests)?);
        let mut agent = Process::start(&self.agent, &manifests, &self.place.bpffs, &self.place.cgroup, None)?;
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
            // Another one begins each time, so that nothing a round does to its first or last falls on the same side.
            let (later, first) = sides.split_at_mut(round % SIDES);
            first.iter_mut().chain(later).try_for_each(Side::connect)?;
        }
        sides.iter().try_for_each(Side::has_counted)?;
        agent.stop()?;
        figures(&sides)
    }

    /// A side whose counters the agent attaches, once it is started with these manifests.
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

    /// A side whose counters bpftool has attached.
    fn by_bpftool(&self, count: usize, name: &str) -> Result<Side> {
        let mut side = Side::start(&self.place.cgroup, name)?;
        let paths = [&self.place.object()?, &side.cgroup, &self.place.bpffs];
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

/// One way of being attached to, or of not being.
struct Side {
    name: String,
    cgroup: PathBuf,
    /// The pins of its counters' maps.
    maps: Vec<String>,
    /// The connections that were made from here.
    made: u64,
    /// In a second, by rounds.
    rates: Vec<f64>,
}

impl Side {
    /// With a cgroup of its own, and no counter yet.
    fn start(root: &Path, name: &str) -> Result<Self> {
        let cgroup = root.join(name);
        fs::create_dir(&cgroup)?;
        Ok(Self { name: name.to_owned(), cgroup, maps: Vec::new(), made: 0, rates: Vec::new() })
    }

    /// Its turn: connects and hangs up. Both ends are in its cgroup, since that is where they are created.
    fn connect(&mut self) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.procs"), "0")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut made = 0;
        let start = Instant::now();
        while start.elapsed() < TURN {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            // Hangs up by RST: a port that waits for a minute after each connection would soon leave none.
            set_socket_linger(&client, Some(Duration::ZERO))?;
            drop((client, server));
            made += 1;
        }
        self.rates.push(made as f64 / start.elapsed().as_secs_f64());
        self.made += made;
        Ok(())
    }

    /// Fails unless each counter has seen every connection, and nothing is attached beside them.
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

    /// The ratios of its rates to another side's, by rounds.
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
    ensure!(noise < TOO_NOISY, "the machine is too busy: the same beside itself is off by {noise:.2}");
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

/// How far the same beside itself is from one, in the half of the rounds and the pair in which that is most.
fn noise(same: &[(&Side, &Side)]) -> f64 {
    let off = |half: &[f64]| (median(half.to_vec()) - 1.0).abs();
    let halves = same.iter().flat_map(|(side, again)| {
        let ratios = side.beside(again);
        let (first, second) = ratios.split_at(ratios.len() / 2);
        [off(first), off(second)]
    });
    halves.fold(0.0, f64::max)
}
