//! Container starts: the container runtime asks whether a pod or a container may start, and the controller decides.
//!
//! [`nri`] talks to the runtime, [`gate`] passes starts to the controller and decisions back, [`Admission`] runs both.

pub mod gate;
pub mod nri;

use std::{convert::Infallible, future::pending, path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::control::run::Events;
use gate::Answers;
use nri::{RuntimeHook, Starting};

/// The starts that wait on their way from the runtime to the gate.
const QUEUE: usize = 16;
/// The longest time that [`Admission::stop`] takes.
const STOP: Duration = Duration::from_secs(1);

/// The tasks between the container runtime and the controller.
///
/// Dropping it ends them: starts that are held are refused, but the runtime may not see it. [`stop`](Self::stop) waits
/// for that.
#[derive(Debug)]
pub struct Admission {
    answers: Answers,
    /// The gate's inputs, until there is a controller.
    inputs: Option<(mpsc::Receiver<Starting>, watch::Receiver<RuntimeHook>)>,
    ending: watch::Sender<bool>,
    serving: JoinSet<()>,
    forwarding: JoinSet<Infallible>,
}

impl Admission {
    /// Has the runtime at this socket ask before starts; without a socket, nobody asks. Needs a tokio runtime.
    pub fn new(socket: Option<PathBuf>) -> Self {
        let (starts, requested) = mpsc::channel(QUEUE);
        let why = match &socket {
            Some(_) => "the runtime has not been reached yet",
            None => "the agent was given no socket of the container runtime's (the chart's agent.nri.enabled)",
        };
        let (hook, hook_changes) = watch::channel(RuntimeHook::Disconnected { why: why.to_owned() });
        let (ending, ended) = watch::channel(false);
        let mut serving = JoinSet::new();
        if let Some(socket) = socket {
            serving.spawn(async move { nri::serve(&socket, starts, hook, ended).await });
        }
        Self {
            answers: Answers::default(),
            inputs: Some((requested, hook_changes)),
            ending,
            serving,
            forwarding: JoinSet::new(),
        }
    }

    /// Returns the way back to the runtime, for the controller's decisions.
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// Forwards all starts to the controller that takes these events, from the first call on. Starts wait until then.
    pub fn connect(&mut self, events: Events) {
        if let Some((starts, hook)) = self.inputs.take() {
            self.forwarding.spawn(gate::forward(starts, hook, self.answers(), events));
        }
    }

    /// Waits until one of the tasks ends, which it does only where it panics.
    ///
    /// # Errors
    /// Always.
    pub async fn ended(&mut self) -> Result<Infallible> {
        tokio::select! {
            Some(_) = self.serving.join_next() => {}
            Some(_) = self.forwarding.join_next() => {}
            else => pending().await,
        }
        bail!("the task that answers the container runtime has ended")
    }

    /// Refuses the starts that are held, and waits until the runtime has had the time to read that, at most for a
    /// second.
    pub async fn stop(mut self) {
        self.ending.send_replace(true);
        let served = async { while self.serving.join_next().await.is_some() {} };
        if timeout(STOP, served).await.is_err() {
            tracing::warn!("the container runtime may not have read all refusals");
        }
    }
}
