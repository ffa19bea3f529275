//! `Reference`: a process that does with another loader what the agent does: libbpf.c, or cilium/main.go.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::place::Place;

/// A program's name, and the cgroups that it is attached to.
pub type Placed = (String, Vec<PathBuf>);

/// The other loaders' programs, built.
#[derive(clap::Args)]
pub struct Loaders {
    /// libbpf.c.
    #[arg(long)]
    pub libbpf: PathBuf,
    /// cilium/main.go.
    #[arg(long)]
    pub cilium: PathBuf,
}

/// Both loaders with one object.
pub struct References([Reference; 2]);

impl References {
    /// Starts both, each with a directory of its own on bpffs.
    pub fn start(loaders: &Loaders, place: &Place, object: &[u8], name: &str) -> Result<Self> {
        let start = |binary, loader| Reference::start(binary, place, object, &format!("{name}-{loader}"));
        Ok(Self([start(&loaders.libbpf, "libbpf")?, start(&loaders.cilium, "cilium")?]))
    }

    /// Applies all programs with libbpf, then with cilium/ebpf. Returns how long each took, by loader.
    pub fn apply(&mut self, all: &[Placed]) -> Result<[Vec<Duration>; 2]> {
        let Self([libbpf, cilium]) = self;
        Ok([libbpf.apply(all)?, cilium.apply(all)?])
    }

    /// Loads the object so often, and nothing else. Returns the user time of all, by loader.
    pub fn load(&mut self, count: usize) -> Result<[Duration; 2]> {
        let Self([libbpf, cilium]) = self;
        Ok([libbpf.load(count)?, cilium.load(count)?])
    }

    /// Detaches and unpins the programs.
    pub fn undo(&mut self, all: &[Placed]) -> Result<()> {
        self.0.iter_mut().try_for_each(|reference| reference.undo(all))
    }
}

/// The process; it ends when this is dropped.
pub struct Reference {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Reference {
    /// Starts the process with an object and a directory on bpffs, which the process creates.
    pub fn start(binary: &Path, place: &Place, object: &[u8], directory: &str) -> Result<Self> {
        let mut child = Command::new(binary)
            .args([place.file(object)?, place.bpffs.join(directory)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Opens, loads, attaches, pins and reads back each program, and returns how long each took by the process's clock.
    pub fn apply(&mut self, all: &[Placed]) -> Result<Vec<Duration>> {
        let line = |(name, cgroups): &Placed| {
            let cgroups: Vec<String> = cgroups.iter().map(|cgroup| cgroup.display().to_string()).collect();
            format!("+ {name} {}", cgroups.join(" "))
        };
        self.ask(&all.iter().map(line).collect::<Vec<_>>())
    }

    /// Detaches and unpins the programs.
    pub fn undo(&mut self, all: &[Placed]) -> Result<()> {
        let lines: Vec<String> = all.iter().map(|(name, _)| format!("- {name}")).collect();
        self.ask(&lines).map(drop)
    }

    /// Opens, loads and closes the object so often. Returns the process's user time for all of it.
    pub fn load(&mut self, count: usize) -> Result<Duration> {
        Ok(self.ask(&[format!("= {count}")])?.into_iter().sum())
    }

    /// Writes all lines, then reads all answers: they are short and fit into the pipe.
    fn ask(&mut self, lines: &[String]) -> Result<Vec<Duration>> {
        self.input.write_all((lines.join("\n") + "\n").as_bytes())?;
        let answer = |line: &String| {
            let mut answer = String::new();
            self.output.read_line(&mut answer)?;
            let nanoseconds = answer.trim().parse().with_context(|| format!("{line}: the reference ended"))?;
            Ok(Duration::from_nanos(nanoseconds))
        };
        lines.iter().map(answer).collect()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
