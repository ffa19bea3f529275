//! NRI, the Node Resource Interface: the container runtime asks before it starts a container, and waits for the answer. Does
//! IO: one Unix socket, the runtime's.
//!
//! containerd tells its plugins that a container starts once its cgroup is made and its first process waits in it, and lets
//! that process go on when all have answered. An error ends the start. [`serve`] is such a plugin: what it is told it passes
//! on as a [`Starting`], and what is answered to that it passes back. docs/strict.md says what that guarantees, and what not.
//!
//! [`session`] is one connection, [`dialog`] what is said on it, [`frame`] how that is put on the socket, [`proto`] the
//! messages.

mod dialog;
mod frame;
mod proto;
mod session;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, convert::Infallible, io, path::Path, time::Duration};

use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use crate::watch::Watch;
use session::Lost;

/// A connection that was lost is sought again so soon, and then ever later.
const SOON: Duration = Duration::from_millis(100);
/// So late at most: a socket that comes back into its directory is seen at once.
const LATE: Duration = Duration::from_secs(2);

/// A pod, as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The UID that the kubelet names its cgroup by. A static pod's is its configuration's hash, not its mirror pod's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, as they were when its sandbox was made, and what the kubelet adds.
    pub labels: BTreeMap<String, String>,
}

/// A container, as the runtime knows it: init, sidecar and ephemeral ones look alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's ID.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
}

/// What the runtime holds back until it is answered, or until it is refused because nobody answered in time.
#[derive(Debug)]
pub struct Starting {
    /// The pod.
    pub pod: Pod,
    /// The container that is to start: its cgroup exists, its program has not begun. None: the pod itself is to; its cgroup
    /// exists, and none of its containers does.
    pub container: Option<Container>,
    /// The answer: whether it may start. An error fails the start, and the kubelet shows it and tries again. Dropped is an
    /// error too.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Whether the runtime asks before it starts containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hooked {
    /// It does not: containers start without a word.
    No {
        /// Why not, as far as it is known.
        why: String,
    },
    /// It does, from now on.
    Yes {
        /// The runtime's name.
        runtime: String,
        /// And its version.
        version: String,
        /// The containers that it had when it began to ask: nobody was asked before these started, or another agent was.
        running: Vec<(Pod, Container)>,
    },
}

/// Has the runtime ask at its socket, again whenever it or the socket was away. Needs a task of its own: an answer that is late
/// makes the runtime go on without, and ask no more.
pub async fn serve(socket: &Path, starts: mpsc::Sender<Starting>, status: watch::Sender<Hooked>) -> Infallible {
    let mut directory = Watch::new();
    let mut pause = SOON;
    loop {
        // Before the attempt, so that a socket that comes after it is not missed.
        directory.cover(socket.parent().map(|parent| (parent.to_owned(), String::new())));
        let lost = match UnixStream::connect(socket).await {
            Ok(stream) => session::run(stream, &starts, &status).await,
            Err(error) => Lost::Connect(error),
        };
        if matches!(*status.borrow(), Hooked::Yes { .. }) {
            pause = SOON;
        }
        say(&status, socket, &lost);
        tokio::select! {
            _ = directory.stirred() => pause = SOON,
            () = sleep(pause) => pause = LATE.min(pause * 2),
        }
    }
}

/// Says so once, not at every attempt.
fn say(status: &watch::Sender<Hooked>, socket: &Path, lost: &Lost) {
    let why = format!("{}: {lost}", socket.display());
    let now = Hooked::No { why };
    if *status.borrow() == now {
        return;
    }
    match lost {
        Lost::Connect(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!(socket = %socket.display(), "no container runtime there yet");
        }
        lost => tracing::warn!(socket = %socket.display(), %lost, "the container runtime does not ask before starts"),
    }
    status.send_replace(now);
}
