//! `Gate`: pods and containers that wait with their start until the agent has answered the container runtime. Does IO: none
//! of its own; the hook's task ([`nri`](crate::nri)) talks to the runtime, and refuses what is not answered in time.

use std::{future::pending, mem};

use tokio::sync::{mpsc, watch};

use crate::{
    agent::{Agent, NotYet, Wants},
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
                    false => self.push(start),
                }
            }
        }
    }

    /// Lets one wait. Those that the hook has refused meanwhile are asked again by others, and would add up.
    fn push(&mut self, start: Starting) {
        self.waiting.retain(|start| !start.answer.is_closed());
        self.waiting.push(start);
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
            self.push(start);
        }
        self.tell(agent);
    }

    /// Answers what waits, after a pass; but what waits for something that can come at any moment goes on waiting, until the hook
    /// refuses it.
    pub fn answer<H: Host>(&mut self, agent: &Agent<H>, wants: &Wants) {
        // The runtime may have gone on without, and the hook said so to whoever asked.
        for start in mem::take(&mut self.waiting).into_iter().filter(|start| !start.answer.is_closed()) {
            let may = agent.may_start(wants, &start.pod, start.container.as_ref());
            if let Err(NotYet { why, passes }) = &may {
                let Pod { namespace, name: pod, .. } = &start.pod;
                let container = name(start.container.as_ref());
                tracing::warn!(namespace, pod, container, why, waits = passes, "may not start yet");
            }
            match may {
                Err(NotYet { passes: true, .. }) => self.waiting.push(start),
                ruling => drop(start.answer.send(ruling.map_err(|not_yet| not_yet.why))),
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn before_the_first_list_what_the_cluster_comes_up_with_starts_and_the_rest_waits() {
        let (asks, starts) = mpsc::channel(4);
        let (_hooked, hooked) = watch::channel(Hooked::No { why: "not yet".to_owned() });
        let mut gate = Gate::new(starts, hooked);
        let mut answers = BTreeMap::new();
        for (what, namespace, uid) in [
            ("a static pod", "edge", "6f1d0b6a3c2e4a55"),
            ("the cluster's own", OF_THE_CLUSTER, "0b5c1f9e-5d7a-4a44-9f0e-0e1d2c3b4a59"),
            ("a user's", "shop", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ] {
            let (answer, answered) = oneshot::channel();
            let (uid, namespace) = (uid.to_owned(), namespace.to_owned());
            let pod = Pod { uid, namespace, name: "p".to_owned(), labels: BTreeMap::new() };
            asks.send(Starting { pod, container: None, answer }).await.unwrap();
            answers.insert(what, answered);
        }
        tokio::select! {
            biased;
            () = gate.hold() => unreachable!("it holds until it is dropped"),
            () = tokio::task::yield_now() => {}
        }
        let mut answer = |what: &str| answers.get_mut(what).unwrap().try_recv();
        assert_eq!(answer("a static pod"), Ok(Ok(())));
        assert_eq!(answer("the cluster's own"), Ok(Ok(())));
        assert_eq!(answer("a user's"), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(gate.waiting.len(), 1);
    }
}
