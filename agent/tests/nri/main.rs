//! The agent's hook into the container runtime, at a socket: at the runtime's own half of NRI (`tests/nri`, feature
//! `nri-tests`: needs Go), and at peers that are no runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::Path, time::Duration};

use sockeye_agent::nri::{self, Hooked, Starting};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

mod garbage;
#[cfg(feature = "nri-tests")]
mod runtime;

/// The agent's end.
struct Hook {
    starts: mpsc::Receiver<Starting>,
    status: watch::Receiver<Hooked>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Hook {
    fn at(socket: &Path) -> Self {
        let (send, starts) = mpsc::channel(16);
        let (said, status) = watch::channel(Hooked::No { why: "not tried yet".to_owned() });
        let socket = socket.to_owned();
        let task = tokio::spawn(async move { nri::serve(&socket, send, said).await });
        Self { starts, status, task }
    }

    /// Waits for a status.
    async fn status(&mut self, what: &str, is: impl Fn(&Hooked) -> bool) -> Hooked {
        let seen = timeout(Duration::from_secs(10), self.status.wait_for(is)).await;
        let status = seen.map(|status| status.unwrap().clone());
        status.unwrap_or_else(|_| panic!("not {what}: {:?}", *self.status.borrow()))
    }

    async fn hooked(&mut self) -> Hooked {
        self.status("hooked", |status| matches!(status, Hooked::Yes { .. })).await
    }

    async fn lost(&mut self, why: &str) {
        self.status(why, |status| matches!(status, Hooked::No { why: said } if said.contains(why))).await;
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}
