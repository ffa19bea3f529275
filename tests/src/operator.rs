//! The operator's process, with the rights that the chart gives it.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::identity::{RELEASE, kubeconfig, token};

/// The process; it is killed when this is dropped.
pub struct Operator {
    child: Child,
}

impl Operator {
    /// Starts it. It finds the API server where `server` says, or KUBECONFIG; its log goes to `work`.
    pub async fn start(client: &Client, binary: &Path, server: Option<&str>, work: &Path) -> Result<Self> {
        let token = token(client, RELEASE, "sockeye-operator", None).await?;
        // It ends with who started it, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig".as_ref(), "KILL".as_ref(), binary.as_os_str()])
            .env("KUBECONFIG", kubeconfig(&token, server, &work.join("operator.kubeconfig"))?)
            .args(["--namespace", RELEASE, "--health-port", "0"])
            .stderr(File::options().append(true).create(true).open(work.join("operator.log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        Ok(Self { child })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a node does.
    pub fn stop(mut self) -> Result<()> {
        end(&mut self.child)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a process of ours as a node does, and fails unless it ends well.
pub fn end(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process ID")?;
    kill_process(pid, Signal::TERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}
