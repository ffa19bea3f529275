//! The places that belong to a bench alone. tests/bench/run.sh makes and removes them.

use std::{fs, io, path::PathBuf};

use sockeye_crds::names::digest;

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
    /// Writes an object to a file, for tools that load from one.
    pub fn file(&self, object: &[u8]) -> io::Result<PathBuf> {
        let file = self.work.join(digest(object)).with_extension("bpf.o");
        fs::write(&file, object)?;
        Ok(file)
    }
}
