//! The controller's thread: it gives a [`Controller`] the events that come, and carries out its effects. Does IO:
//! inotify, a clock.
//!
//! Those who talk to the outside (the API server, a folder, the container runtime) send [`Event`]s, and are handed the
//! effects that are theirs. The thread waits for none of them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle};

use super::{
    Controller,
    event::{Effect, Event},
    newest::Newest,
};
use crate::{
    kernel::SysError,
    node::{
        Node,
        watch::{Change, Happened, Happenings, Watch},
    },
};

/// Sends events to a controller's thread.
#[derive(Clone)]
pub struct Events {
    sender: Sender<Message>,
    /// The newest event about the assignment that the thread has not taken yet: those before it are of no interest any
    /// more.
    assignment: Arc<Newest<Event>>,
}

/// A running controller. Dropping it ends the thread after the step that is going on, so that no plan is cut short.
pub struct Running {
    sender: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

/// A message to the thread.
enum Message {
    Event(Event),
    /// A newer assignment lies ready, or that there is none.
    Assignment,
    /// Inotify's report of homes, from the watch of this number.
    Homes(u64, Result<Vec<Happened>, SysError>),
    /// Inotify's report of pods' cgroups, from the watch of this number.
    Pods(u64, Result<Vec<Happened>, SysError>),
    Stop,
}

/// Starts a controller's thread; `outside` carries out all effects but the watches, and must not block. Needs a tokio
/// runtime.
///
/// # Errors
/// Fails where no thread can be started.
pub fn run<N>(controller: Controller<N>, outside: impl FnMut(Effect) + Send + 'static) -> Result<(Events, Running)>
where
    N: Node + Send + 'static,
{
    let (sender, inbox) = channel();
    let (ending, ended) = oneshot::channel();
    let events = Events { sender: sender.clone(), assignment: Arc::default() };
    let runtime = Handle::current();
    let (homes, pods) = (Watched::new(Kind::Homes, &runtime, &sender), Watched::new(Kind::Pods, &runtime, &sender));
    let assignment = Arc::clone(&events.assignment);
    let mut control = Control { controller, inbox, assignment, outside, homes, pods, bpffs: None, blind: false };
    let thread = Builder::new().name("control".to_owned()).spawn(move || {
        control.run();
        // Dropped too where it panics, which ends the process.
        drop(ending);
    });
    let thread = Some(thread.context("the controller's thread can't be started")?);
    Ok((events, Running { sender, thread, ended }))
}

impl Events {
    /// Sends an event. A controller that has ended takes none.
    pub fn send(&self, event: Event) {
        let message = match event {
            // Both in one place: the loss of an assignment must not overtake a newer one.
            Event::AssignmentChanged(_) | Event::AssignmentLost => {
                if self.assignment.put(event).is_some() {
                    return;
                }
                Message::Assignment
            }
            event => Message::Event(event),
        };
        drop(self.sender.send(message));
    }
}

impl Running {
    /// Waits until the thread ends, which it does only where it panics.
    ///
    /// # Errors
    /// Always.
    pub async fn ended(&mut self) -> Result<Infallible> {
        let _ = (&mut self.ended).await;
        bail!("the controller's thread has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.sender.send(Message::Stop));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The state of the thread.
struct Control<N, F> {
    controller: Controller<N>,
    inbox: Receiver<Message>,
    assignment: Arc<Newest<Event>>,
    outside: F,
    homes: Watched,
    pods: Watched,
    /// The device of the bpffs whose directories `homes` watches.
    bpffs: Option<u64>,
    /// The last word to the controller: some changes go unreported.
    blind: bool,
}

impl<N: Node, F: FnMut(Effect)> Control<N, F> {
    fn run(&mut self) {
        let mut wake = Instant::now();
        while let Some(events) = self.receive(wake) {
            let result = self.controller.step(Instant::now(), events);
            wake = result.wake;
            for effect in result.effects {
                self.carry_out(effect);
            }
        }
    }

    /// Returns all events that have come, once there is one or it is time to wake; nothing once the thread is to end.
    fn receive(&mut self, wake: Instant) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        let first = match self.inbox.recv_timeout(wake.saturating_duration_since(Instant::now())) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let more = std::iter::from_fn(|| self.inbox.try_recv().ok());
        for message in first.into_iter().chain(more).collect::<Vec<_>>() {
            match message {
                Message::Stop => return None,
                Message::Event(event) => events.push(event),
                Message::Assignment => events.extend(self.assignment.try_take()),
                Message::Homes(number, happened) => {
                    events.extend(self.homes.changed(number, happened).map(Event::HomesChanged));
                }
                Message::Pods(number, happened) => {
                    events.extend(self.pods.changed(number, happened).map(|_| Event::PodsChanged));
                }
            }
        }
        let blind = self.homes.watch.is_blind() || self.pods.watch.is_blind();
        if std::mem::replace(&mut self.blind, blind) != blind {
            events.push(Event::BlindChanged(blind));
        }
        Some(events)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::WatchHomes { bpffs, directories, all } => {
                // One that is mounted over another, or in its place while others still hold it, has the same paths.
                let remounted = std::mem::replace(&mut self.bpffs, bpffs) != bpffs;
                if remounted || all && self.homes.watch.is_broken() {
                    self.homes.renew();
                }
                self.homes.watch.cover(directories);
            }
            Effect::WatchPods(directories) => {
                if self.pods.watch.is_broken() {
                    self.pods.renew();
                }
                // What came into a new directory before it was watched is found by one look more.
                if self.pods.watch.cover(directories.into_iter().map(|directory| (directory, String::new()))) {
                    drop(self.pods.sender.send(Message::Event(Event::PodsChanged)));
                }
            }
            effect => (self.outside)(effect),
        }
    }
}

/// The kind of directories that a watch covers.
#[derive(Clone, Copy)]
enum Kind {
    Homes,
    Pods,
}

/// A watch, and the task that forwards inotify's reports to the thread.
struct Watched {
    kind: Kind,
    watch: Watch,
    /// Tells this watch's reports from those of the watches before it.
    number: u64,
    forwarding: AbortHandle,
    runtime: Handle,
    sender: Sender<Message>,
}

impl Watched {
    fn new(kind: Kind, runtime: &Handle, sender: &Sender<Message>) -> Self {
        let (watch, happenings) = match kind {
            Kind::Homes => Watch::new(),
            Kind::Pods => Watch::of_cgroups(),
        };
        let forwarding = runtime.spawn(forward(kind, 0, happenings, sender.clone())).abort_handle();
        Self { kind, watch, number: 0, forwarding, runtime: runtime.clone(), sender: sender.clone() }
    }

    /// Watches nothing yet again, with a new inotify instance.
    fn renew(&mut self) {
        self.forwarding.abort();
        self.number += 1;
        let forward = forward(self.kind, self.number, self.watch.renew(), self.sender.clone());
        self.forwarding = self.runtime.spawn(forward).abort_handle();
    }

    /// Returns the change that a report stands for.
    fn changed(&mut self, number: u64, happened: Result<Vec<Happened>, SysError>) -> Option<Change> {
        if number != self.number {
            return None;
        }
        match happened {
            Ok(happened) => match self.watch.changed(happened) {
                // About directories that are no longer watched.
                Change::Homes(homes) if homes.is_empty() => None,
                change => Some(change),
            },
            // Sweeps find what happens until one of them renews the watch.
            Err(error) => {
                self.watch.fail(&error);
                None
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

async fn forward(kind: Kind, number: u64, mut happenings: Happenings, sender: Sender<Message>) {
    loop {
        let happened = happenings.next().await;
        let failed = happened.is_err();
        let message = match kind {
            Kind::Homes => Message::Homes(number, happened),
            Kind::Pods => Message::Pods(number, happened),
        };
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_events_about_the_assignment_the_newest_counts() {
        let (sender, inbox) = channel();
        let events = Events { sender, assignment: Arc::default() };
        let newest = || events.assignment.try_take();
        let assigned = || Event::AssignmentChanged(Arc::default());
        // The Node object goes and comes back while the thread is busy.
        [assigned(), Event::AssignmentLost, assigned()].into_iter().for_each(|event| events.send(event));
        assert!(matches!(newest(), Some(Event::AssignmentChanged(_))));
        [assigned(), Event::AssignmentLost].into_iter().for_each(|event| events.send(event));
        assert!(matches!(newest(), Some(Event::AssignmentLost)));
        let told: Vec<Message> = inbox.try_iter().collect();
        assert!(matches!(told[..], [Message::Assignment, Message::Assignment]), "each is taken once");
    }
}
