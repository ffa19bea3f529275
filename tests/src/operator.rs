//! The operator's process, with the rights that the chart gives it.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::identity::{RELEASE, kubeconfig, token};

/// The time between two looks at an operator that is kept running.
const LOOK: Duration = Duration::from_millis(100);

/// The operator's process; it is killed when this is dropped.
pub struct Operator {
    command: Command,
    child: Child,
}

/// An operator that is started again when it has ended by itself, as a kubelet does.
pub struct KeptOperator {
    /// The thread that looks ends with it.
    _operator: Arc<Mutex<Operator>>,
}

impl KeptOperator {
    /// Keeps an operator running.
    pub fn new(operator: Operator) -> Self {
        let operator = Arc::new(Mutex::new(operator));
        let looked_at = Arc::downgrade(&operator);
        thread::spawn(move || {
            while let Some(operator) = looked_at.upgrade() {
                operator.lock().unwrap_or_else(PoisonError::into_inner).start_if_ended()?;
                drop(operator);
                thread::sleep(LOOK);
            }
            anyhow::Ok(())
        });
        Self { _operator: operator }
    }
}

impl Operator {
    /// Starts the operator on the API server `server`, or on the one that KUBECONFIG names. Its log is in `work`.
    ///
    /// It is always the container of the same pod, so the Lease of one that was killed is its own.
    pub async fn start(client: &Client, binary: &Path, server: Option<&str>, work: &Path) -> Result<Self> {
        Self::start_in(client, binary, server, work, ("sockeye-operator-0", "0")).await
    }

    /// Starts the operator as the container of a pod with this name and UID.
    pub async fn start_in(
        client: &Client,
        binary: &Path,
        server: Option<&str>,
        work: &Path,
        (pod, uid): (&str, &str),
    ) -> Result<Self> {
        let command = Self::command(client, binary, server, work).await?;
        Self::spawn(command, binary, &["--namespace", RELEASE, "--health-port", "0"], (pod, uid))
    }

    /// Starts the operator on the API server that KUBECONFIG names, with further arguments.
    pub async fn start_with(client: &Client, binary: &Path, work: &Path, args: &[&str]) -> Result<Self> {
        let command = Self::command(client, binary, None, work).await?;
        let args = [&["--namespace", RELEASE, "--health-port", "0"], args].concat();
        Self::spawn(command, binary, &args, ("sockeye-operator-0", "0"))
    }

    async fn command(client: &Client, binary: &Path, server: Option<&str>, work: &Path) -> Result<Command> {
        let token = token(client, RELEASE, "sockeye-operator", None).await?;
        // The operator ends with the test's process, even if that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig".as_ref(), "KILL".as_ref(), binary.as_os_str()])
            .env("KUBECONFIG", kubeconfig(&token, server, &work.join("operator.kubeconfig"))?)
            .stderr(File::options().append(true).create(true).open(work.join("operator.log"))?);
        Ok(command)
    }

    fn spawn(mut command: Command, binary: &Path, args: &[&str], (pod, uid): (&str, &str)) -> Result<Self> {
        command.env("POD_NAME", pod).env("POD_UID", uid).args(args);
        let child = command.spawn().with_context(|| binary.display().to_string())?;
        Ok(Self { command, child })
    }

    fn start_if_ended(&mut self) -> Result<()> {
        if self.ended()?.is_some() {
            self.child = self.command.spawn()?;
        }
        Ok(())
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(&self.child, signal)
    }

    /// Returns how the process ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
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
    kill(child, Signal::TERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "the process ended with {status}");
    Ok(())
}

fn kill(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process ID")?;
    Ok(kill_process(pid, signal)?)
}
