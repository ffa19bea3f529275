//! The places that belong to a bench alone. tests/bench/run.sh makes and removes them.

use std::{fs, io, path::PathBuf};

use sockeye_ebpf::programs::TCP_EVENTS_BTF;

/// A bpffs, a cgroup and a folder that nothing else uses.
#[derive(clap::Args)]
pub struct Place {
    /// The mount point of a bpffs.
    #[arg(long)]
    pub bpffs: PathBuf,
    /// A cgroup v2 directory.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// An empty folder for temporary files.
    #[arg(long)]
    pub work: PathBuf,
}

impl Place {
    /// Writes the counter's BTF form to a file, for tools that load from one.
    pub fn object(&self) -> io::Result<PathBuf> {
        let object = self.work.join("tcp-events-btf.bpf.o");
        fs::write(&object, TCP_EVENTS_BTF)?;
        Ok(object)
    }
}
