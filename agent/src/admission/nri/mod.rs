//! NRI (Node Resource Interface): the container runtime asks before it starts a container, and waits for the answer.
//! Does IO: one Unix socket, the runtime's.
//!
//! containerd asks its plugins once the container's cgroup exists and the container's first process waits in it. It
//! lets that process go on after all plugins have answered; an error fails the start. [`serve`] is such a plugin: it
//! passes each question on as a [`Starting`], and the decision back. docs/strict.md says what that guarantees, and what
//! not.
//!
//! | file | noun |
//! |---|---|
//! | `hook` | the questions, and whether the runtime asks any |
//! | `session` | one connection to the runtime |
//! | `plugin` | the agent's side of the protocol |
//! | `frame` | the encoding of messages on the socket |
//! | `proto` | the messages |
//! | `error` | why a connection ended |

mod error;
mod frame;
mod hook;
mod plugin;
mod proto;
mod session;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    time::sleep,
};

use crate::node::watch::{Happenings, Watch};
use error::SessionError;
pub use hook::{RuntimeHook, Starting};

/// The pause before the first attempt to connect again. Each further pause is twice as long.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. inotify ends a pause early when the socket comes back into its directory.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Has the runtime at this socket ask before starts, again whenever the runtime or its socket was away. Returns once
/// `ending` is true or its sender is gone: then every start that was held is refused, and the runtime has had the time
/// to read that.
///
/// Needs a task of its own: after a late answer the runtime starts the container, and asks no more.
pub async fn serve(
    socket: &Path,
    starts: mpsc::Sender<Starting>,
    hook: watch::Sender<RuntimeHook>,
    mut ending: watch::Receiver<bool>,
) {
    let mut directory = SocketDirectory::of(socket);
    let mut pause = MIN_PAUSE;
    loop {
        // Before the attempt, so that a socket that comes after it is not missed.
        directory.cover();
        let error = match UnixStream::connect(socket).await {
            Ok(stream) => session::run(stream, &starts, &hook, &mut ending).await,
            Err(error) => SessionError::Connect(error),
        };
        if matches!(*hook.borrow(), RuntimeHook::Connected { .. }) {
            pause = MIN_PAUSE;
        }
        // An agent that is replaced says nothing: the next one asks in a moment.
        if matches!(error, SessionError::AgentEnding) {
            return;
        }
        report(&hook, socket, &error);
        tokio::select! {
            () = session::ended(&mut ending) => return,
            () = directory.changed() => pause = MIN_PAUSE,
            () = sleep(pause) => pause = MAX_PAUSE.min(pause * 2),
        }
    }
}

/// Reports and logs why the runtime does not ask: once, not at every attempt.
fn report(hook: &watch::Sender<RuntimeHook>, socket: &Path, error: &SessionError) {
    let why = format!("{}: {error}", socket.display());
    let disconnected = RuntimeHook::Disconnected { why };
    if *hook.borrow() == disconnected {
        return;
    }
    match error {
        SessionError::Connect(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!(socket = %socket.display(), "no container runtime there yet");
        }
        error => tracing::warn!(socket = %socket.display(), %error, "the container runtime does not ask before starts"),
    }
    hook.send_replace(disconnected);
}

/// The directory of the runtime's socket, watched by inotify.
struct SocketDirectory {
    path: Option<PathBuf>,
    watch: Watch,
    happenings: Happenings,
}

impl SocketDirectory {
    fn of(socket: &Path) -> Self {
        let (watch, happenings) = Watch::new();
        Self { path: socket.parent().map(Path::to_owned), watch, happenings }
    }

    /// Watches the directory, where it is not watched and exists.
    fn cover(&mut self) {
        self.watch.cover(self.path.clone().map(|path| (path, String::new())));
    }

    /// Waits until something comes into the directory or goes from it.
    async fn changed(&mut self) {
        match self.happenings.next().await {
            Ok(happened) => drop(self.watch.changed(happened)),
            Err(error) => {
                tracing::warn!(%error, "the directory of the runtime's socket can't be watched: watching anew");
                (self.watch, self.happenings) = Watch::new();
                // An inotify that always fails must not make the attempts follow each other without a pause.
                sleep(MAX_PAUSE).await;
            }
        }
    }
}
