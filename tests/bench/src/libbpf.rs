//! The measure: libbpf.c, which does with libbpf what the agent does, in a process of its own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// The process; it ends when this is dropped.
pub struct Libbpf {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Libbpf {
    /// Starts it, with an object and a directory on bpffs that it makes.
    pub fn start(binary: &Path, object: &Path, directory: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .args([object, directory])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Open, load, attach, pin, read back; how long that took, by its own clock.
    pub fn apply(&mut self, name: &str, cgroup: &Path) -> Result<Duration> {
        self.ask(&format!("+ {name} {}", cgroup.display()))
    }

    /// Undoes it.
    pub fn undo(&mut self, name: &str) -> Result<()> {
        self.ask(&format!("- {name}")).map(drop)
    }

    fn ask(&mut self, line: &str) -> Result<Duration> {
        writeln!(self.input, "{line}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let nanoseconds = answer.trim().parse().with_context(|| format!("{line}: libbpf's program ended"))?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Libbpf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
