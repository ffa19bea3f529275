//! Where a bench has what it makes: tests/bench/run.sh gives it these, and removes them.

use std::path::PathBuf;

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
