//! The agent's side of NRI at a socket: against the runtime's own half of NRI (`tests/nri`, feature `nri-tests`: needs
//! Go), and with the test itself as the other end.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::Path, time::Duration};

use sockeye_agent::admission::nri::{self, RuntimeHook, Starting};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

mod connection;
#[cfg(feature = "nri-tests")]
mod runtime;

/// The agent's side, with the test as its controller.
struct Hook {
    starts: mpsc::Receiver<Starting>,
    /// The status that was taken last from those that follow.
    status: RuntimeHook,
    /// Each status since, so that a short one is not missed.
    statuses: mpsc::UnboundedReceiver<RuntimeHook>,
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Hook {
    fn at(socket: &Path) -> Self {
        let (send, starts) = mpsc::channel(16);
        let status = RuntimeHook::Disconnected { why: "not tried yet".to_owned() };
        let (report, mut reported) = watch::channel(status.clone());
        let (keep, statuses) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while reported.changed().await.is_ok() {
                let newest = reported.borrow_and_update().clone();
                if keep.send(newest).is_err() {
                    break;
                }
            }
        });
        let (ending, ended) = watch::channel(false);
        let socket = socket.to_owned();
        let task = tokio::spawn(async move { nri::serve(&socket, send, report, ended).await });
        Self { starts, status, statuses, ending, task }
    }

    /// Waits for a status: the next such one, or the present one if none followed.
    async fn status(&mut self, what: &str, is: impl Fn(&RuntimeHook) -> bool) -> RuntimeHook {
        let reached = timeout(Duration::from_secs(10), async {
            while !self.statuses.is_empty() || !is(&self.status) {
                self.status = self.statuses.recv().await.unwrap();
                if is(&self.status) {
                    break;
                }
            }
        });
        let reached = reached.await;
        assert!(reached.is_ok(), "not {what}: {:?}", self.status);
        self.status.clone()
    }

    async fn connected(&mut self) -> RuntimeHook {
        self.status("connected", |status| matches!(status, RuntimeHook::Connected { .. })).await
    }

    async fn disconnected(&mut self, why: &str) {
        let is = |status: &RuntimeHook| matches!(status, RuntimeHook::Disconnected { why: said } if said.contains(why));
        self.status(why, is).await;
    }

    /// Tells the agent's side to end, and does not wait for it.
    fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until the agent's side has ended.
    async fn ended(mut self) {
        timeout(Duration::from_secs(10), &mut self.task).await.expect("it ends").unwrap();
    }
}

/// As an agent that is killed, or a task that panics.
impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}
