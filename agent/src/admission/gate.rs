//! The gate between the container runtime and the controller: each start becomes an event with an ID, and the decision
//! on that ID becomes the runtime's answer. No IO.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::nri::{RuntimeHook, Starting};
use crate::{
    control::{event::Event, run::Events},
    model::start::{Decision, StartId},
};

/// The starts without a decision, each with the way back to the runtime. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<BTreeMap<StartId, oneshot::Sender<Decision>>>>);

impl Answers {
    /// Answers a start, where the runtime still waits for it. Does not block.
    pub fn answer(&self, id: StartId, decision: Decision) {
        let answer = self.lock().remove(&id);
        if let Some(answer) = answer {
            drop(answer.send(decision));
        }
    }

    fn insert(&self, id: StartId, answer: oneshot::Sender<Decision>) {
        self.lock().insert(id, answer);
    }

    /// Removes the starts that the runtime no longer waits for, and returns them.
    fn prune(&self) -> Vec<StartId> {
        self.lock().extract_if(.., |_, answer| answer.is_closed()).map(|(id, _)| id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StartId, oneshot::Sender<Decision>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forwards starts, and changes of the hook, to the controller that takes these events. Never ends by itself.
pub async fn forward(
    starts: mpsc::Receiver<Starting>,
    hook: watch::Receiver<RuntimeHook>,
    answers: Answers,
    events: Events,
) -> Infallible {
    Gate::new(answers, move |event| events.send(event)).run(starts, hook).await
}

struct Gate<F> {
    answers: Answers,
    send: F,
    next: u64,
}

impl<F: Fn(Event)> Gate<F> {
    const fn new(answers: Answers, send: F) -> Self {
        Self { answers, send, next: 0 }
    }

    async fn run(mut self, mut starts: mpsc::Receiver<Starting>, mut hook: watch::Receiver<RuntimeHook>) -> Infallible {
        self.hook_changed(&hook.borrow_and_update());
        loop {
            tokio::select! {
                // The hook first: a runtime that asks is connected.
                biased;
                Ok(()) = hook.changed() => self.hook_changed(&hook.borrow_and_update()),
                Some(starting) = starts.recv() => self.request(starting),
                else => pending().await,
            }
        }
    }

    fn hook_changed(&self, hook: &RuntimeHook) {
        (self.send)(Event::RuntimeChanged(match hook {
            RuntimeHook::Connected { .. } => None,
            RuntimeHook::Disconnected { why } => Some(why.clone()),
        }));
    }

    /// Forwards a start. First withdraws those that the runtime gave up on: it asks again about each, and they would
    /// add up.
    fn request(&mut self, Starting { start, answer }: Starting) {
        for id in self.answers.prune() {
            (self.send)(Event::StartWithdrawn(id));
        }
        let id = StartId(self.next);
        self.next += 1;
        // Before the event, so that no decision comes too early.
        self.answers.insert(id, answer);
        (self.send)(Event::StartRequested(id, start));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::model::{pods::Pod, start::Start};

    /// A running gate, and what it sends to the controller.
    struct Harness {
        starts: mpsc::Sender<Starting>,
        hook: watch::Sender<RuntimeHook>,
        answers: Answers,
        events: mpsc::UnboundedReceiver<Event>,
    }

    impl Harness {
        fn new() -> Self {
            let (starts, requested) = mpsc::channel(4);
            let (hook, hook_changes) = watch::channel(RuntimeHook::Disconnected { why: "not yet".to_owned() });
            let (send, events) = mpsc::unbounded_channel();
            let answers = Answers::default();
            let gate = Gate::new(answers.clone(), move |event| send.send(event).unwrap());
            tokio::spawn(gate.run(requested, hook_changes));
            Self { starts, hook, answers, events }
        }

        async fn event(&mut self) -> Event {
            self.events.recv().await.unwrap()
        }

        async fn gap(&mut self) -> Option<String> {
            match self.event().await {
                Event::RuntimeChanged(gap) => gap,
                event => panic!("{event:?}"),
            }
        }

        async fn request(&self, name: &str) -> oneshot::Receiver<Decision> {
            let (answer, answered) = oneshot::channel();
            self.starts.send(Starting { start: start(name), answer }).await.unwrap();
            answered
        }

        async fn requested(&mut self) -> (StartId, Start) {
            match self.event().await {
                Event::StartRequested(id, start) => (id, start),
                event => panic!("{event:?}"),
            }
        }
    }

    fn start(name: &str) -> Start {
        Start { pod: Pod { name: name.to_owned(), ..Pod::default() }, container: None }
    }

    #[tokio::test]
    async fn each_start_is_forwarded_once_and_gets_its_own_answer() {
        let mut gate = Harness::new();
        assert_eq!(gate.gap().await.as_deref(), Some("not yet"));
        let (mut a, mut b) = (gate.request("a").await, gate.request("b").await);
        let (first, second) = (gate.requested().await, gate.requested().await);
        assert_ne!(first.0, second.0);
        assert_eq!((first.1, second.1), (start("a"), start("b")));
        gate.answers.answer(second.0, Err("no".to_owned()));
        assert_eq!((a.try_recv(), b.try_recv()), (Err(TryRecvError::Empty), Ok(Err("no".to_owned()))));
        gate.answers.answer(first.0, Ok(()));
        assert_eq!(a.try_recv(), Ok(Ok(())));
        // A second answer has nowhere to go.
        gate.answers.answer(first.0, Ok(()));
        assert!(gate.answers.lock().is_empty());
    }

    #[tokio::test]
    async fn a_start_that_the_runtime_gave_up_on_is_withdrawn_at_the_next_start() {
        let mut gate = Harness::new();
        gate.gap().await;
        let given_up = gate.request("a").await;
        let (a, _) = gate.requested().await;
        drop(given_up);
        let _waits = gate.request("a").await;
        assert!(matches!(gate.event().await, Event::StartWithdrawn(id) if id == a));
        let (again, _) = gate.requested().await;
        assert_eq!(gate.answers.lock().keys().collect::<Vec<_>>(), [&again]);
    }

    #[tokio::test]
    async fn the_controller_hears_of_the_hook_before_the_first_start() {
        let mut gate = Harness::new();
        gate.gap().await;
        gate.hook.send_replace(RuntimeHook::Connected {
            runtime: "containerd".to_owned(),
            version: "v2".to_owned(),
            running: Vec::new(),
        });
        let _waits = gate.request("a").await;
        assert_eq!(gate.gap().await, None);
        gate.requested().await;
        gate.hook.send_replace(RuntimeHook::Disconnected { why: "gone".to_owned() });
        assert_eq!(gate.gap().await.as_deref(), Some("gone"));
    }

    #[tokio::test]
    async fn a_gate_without_a_runtime_keeps_waiting() {
        let mut gate = Harness::new();
        gate.gap().await;
        let Harness { starts, hook, mut events, answers: _ } = gate;
        drop((starts, hook));
        tokio::task::yield_now().await;
        // The gate holds the sender as long as it runs.
        assert_eq!(events.try_recv().err(), Some(mpsc::error::TryRecvError::Empty));
    }
}
