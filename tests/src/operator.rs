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

/// The operator's process; it is killed when this is dropped.
pub struct Operator {
    child: Child,
}

impl Operator {
    /// Starts the operator on the API server `server`, or on the one that KUBECONFIG names. Its log is in `work`.
    pub async fn start(client: &Client, binary: &Path, server: Option<&str>, work: &Path) -> Result<Self> {
        let token = token(client, RELEASE, "sockeye-operator", None).await?;
        // The operator ends with the test's process, even if that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig".as_ref(), "KILL".as_ref(), binary.as_os_str()])
            .env("KUBECONFIG", kubeconfig(&token, server, &work.join("operator.kubeconfig"))?)
            .args(["--namespace", RELEASE, "--health-port", "0"])
            .stderr(File::options().append(true).create(true).open(work.join("operator.log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        Ok(Self { child })
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, as a kubelet does.
    pub fn stop(mut self) -> Result<()> {
        terminate(&mut self.child)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a child with SIGTERM, as a kubelet does, and fails unless it exits with 0.
pub fn terminate(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process ID")?;
    kill_process(pid, Signal::TERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "the process ended with {status}");
    Ok(())
}
