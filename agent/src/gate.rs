//! `Gate`: pods and containers that wait with their start until the agent has answered the container runtime. Does IO: none
//! of its own; the hook's task ([`nri`](crate::nri)) talks to the runtime, and refuses what is not answered in time.

use std::future::pending;

use tokio::sync::{mpsc, watch};

use crate::{
    agent::{Agent, Wants},
    host::Host,
    nri::{Container, Hooked, Pod, Starting},
};

/// The namespace of what a node and its cluster need to come up.
const OF_THE_CLUSTER: &str = "kube-system";

/// What waits, and what tells of more.
pub struct Gate {
    starts: mpsc::Receiver<Starting>,
    hooked: watch::Receiver<Hooked>,
    waiting: Vec<Starting>,
}

/// What the hook told.
pub enum Asked {
    /// Something is about to start.
    Start(Starting),
    /// Whether the runtime asks.
    Hooked,
}

impl Gate {
    /// What the hook tells of on these.
    pub const fn new(starts: mpsc::Receiver<Starting>, hooked: watch::Receiver<Hooked>) -> Self {
        Self { starts, hooked, waiting: Vec::new() }
    }

    /// Where there is no hook: nobody asks.
    pub fn none(why: &str) -> Self {
        let (_, starts) = mpsc::channel(1);
        let (_, hooked) = watch::channel(Hooked::No { why: why.to_owned() });
        Self::new(starts, hooked)
    }

    /// Waits until the hook tells something.
    pub async fn asked(&mut self) -> Asked {
        tokio::select! {
            Some(start) = self.starts.recv() => Asked::Start(start),
            Ok(()) = self.hooked.changed() => Asked::Hooked,
            else => pending().await,
        }
    }

    /// Holds what is about to start as long as it is not known what it must wait for. What the cluster itself comes up with
    /// is not held, or an API server that runs here could never tell.
    pub async fn hold(&mut self) {
        loop {
            if let Asked::Start(start) = self.asked().await {
                match is_needed_to_come_up(&start.pod) {
                    true => drop(start.answer.send(Ok(()))),
                    false => self.waiting.push(start),
                }
            }
        }
    }

    /// Tells the agent all that the hook has told.
    pub fn tell<H: Host>(&mut self, agent: &mut Agent<H>) {
        agent.set_unasked(match &*self.hooked.borrow_and_update() {
            Hooked::Yes { .. } => None,
            Hooked::No { why } => Some(why.clone()),
        });
        for Starting { pod, container, .. } in &self.waiting {
            agent.starting(pod, container.as_ref());
        }
    }

    /// Takes in what the hook told last.
    pub fn take<H: Host>(&mut self, asked: Asked, agent: &mut Agent<H>) {
        if let Asked::Start(start) = asked {
            self.waiting.push(start);
        }
        self.tell(agent);
    }

    /// Answers all that waits, after a pass.
    pub fn answer<H: Host>(&mut self, agent: &Agent<H>, wants: &Wants) {
        for Starting { pod, container, answer } in self.waiting.drain(..) {
            let may = agent.may_start(wants, &pod, container.as_ref());
            if let Err(why) = &may {
                tracing::warn!(
                    namespace = pod.namespace,
                    pod = pod.name,
                    container = name(container.as_ref()),
                    why,
                    "may not start yet"
                );
            }
            // The runtime may have gone on without, and the hook said so to whoever asked.
            let _late = answer.send(may);
        }
    }
}

fn name(container: Option<&Container>) -> &str {
    container.map_or("", |container| &container.name)
}

/// Static pods, which a kubelet starts without an API server, and the cluster's own: a static pod's UID is a hash, with no
/// dashes in it.
fn is_needed_to_come_up(pod: &Pod) -> bool {
    pod.namespace == OF_THE_CLUSTER || !pod.uid.contains('-')
}
