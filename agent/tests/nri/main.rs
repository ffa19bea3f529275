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
    status: watch::Receiver<RuntimeHook>,
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Hook {
    fn at(socket: &Path) -> Self {
        let (send, starts) = mpsc::channel(16);
        let (report, status) = watch::channel(RuntimeHook::Disconnected { why: "not tried yet".to_owned() });
        let (ending, ended) = watch::channel(false);
        let socket = socket.to_owned();
        let task = tokio::spawn(async move { nri::serve(&socket, send, report, ended).await });
        Self { starts, status, ending, task }
    }

    /// Waits for a status.
    async fn status(&mut self, what: &str, is: impl Fn(&RuntimeHook) -> bool) -> RuntimeHook {
        let seen = timeout(Duration::from_secs(10), self.status.wait_for(is)).await;
        let status = seen.map(|status| status.unwrap().clone());
        status.unwrap_or_else(|_| panic!("not {what}: {:?}", *self.status.borrow()))
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
