//! Where a bench has what it makes: tests/bench/run.sh gives it these, and removes them.

use std::{fs, io, path::PathBuf};

use sockeye_ebpf::programs::TCP_EVENTS_BTF;

/// What nothing else uses.
#[derive(clap::Args)]
pub struct Place {
    /// Where a bpffs is mounted.
    #[arg(long)]
    pub bpffs: PathBuf,
    /// A cgroup v2 directory.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// An empty folder for what is passing.
    #[arg(long)]
    pub work: PathBuf,
}

impl Place {
    /// A file that holds the counter's BTF form, for tools that load from one.
    pub fn object(&self) -> io::Result<PathBuf> {
        let object = self.work.join("tcp-events-btf.bpf.o");
        fs::write(&object, TCP_EVENTS_BTF)?;
        Ok(object)
    }
}
