//! The read API: answers what the node holds, to whoever may reach the agent's loopback or its Unix socket. It changes
//! nothing on the node.
//!
//! | file | noun |
//! |---|---|
//! | this one | [`ReadApi`]: the thread that serves it |
//! | [`listener`] | where it is served: the loopback, or a Unix socket of root's |
//! | `connection` | a connection, and its end where nothing goes on |
//! | `activity` | what goes on in a connection |
//! | `body` | the body of an answer, in small pieces |
//! | `service` | a request, its route, and the bounds on all of them |
//! | [`inquirer`] | asks the controller |
//! | `node` | the answers about the node and its BpfPrograms |
//! | `entries`, `codec`, `sum` | the entries of a map, what their bytes mean, and the sum over processors |
//! | `references` | what keeps a map alive |
//! | [`objects`] | the objects that say what the bytes in maps mean |
//! | `records` | streams of records |
//! | `answers`, `failures` | how answers are made; failures in words |
//!
//! It runs on a thread of its own, with a lower priority: whatever is asked, container starts are answered and the node
//! is reconciled as before. The controller is asked for values that are cheap to make, one inquiry at a time. System
//! calls and JSON are made on two more threads. Connections, requests, and the memory of answers are bounded: a client
//! that does not read holds one piece of an answer until its connection is ended.

mod activity;
mod answers;
mod body;
mod codec;
mod connection;
mod entries;
mod failures;
pub mod inquirer;
pub mod listener;
mod node;
pub mod objects;
mod records;
mod references;
mod service;
mod sum;

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use self::{
    inquirer::Inquirer,
    listener::{ListenAddress, Listener},
    objects::Objects,
    service::Service,
};
use crate::control::run::Events;

/// Threads for system calls and JSON.
const BLOCKING_THREADS: usize = 2;
/// The priority of all of its threads (nice).
const PRIORITY: i32 = 10;
/// The longest time that the end of the API takes.
const STOP: Duration = Duration::from_secs(1);

/// The read API of one agent. Dropping it ends it, and removes its socket. By default it is not served.
#[derive(Default)]
pub struct ReadApi {
    listener: Option<Listener>,
    inquirer: Inquirer,
    serving: Option<Serving>,
}

/// The thread that serves it.
struct Serving {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The sources of answers.
pub struct Sources {
    /// The node's name.
    pub node_name: String,
    /// Takes inquiries.
    pub events: Events,
    /// The objects that say what the bytes in maps mean.
    pub objects: Arc<dyn Objects>,
}

impl ReadApi {
    /// Opens the address where the API is to be served; without one it is not served.
    ///
    /// # Errors
    /// Fails if the address can't be opened.
    pub fn open(address: Option<&ListenAddress>) -> io::Result<Self> {
        let listener = address.map(Listener::open).transpose()?;
        Ok(Self { listener, inquirer: Inquirer::default(), serving: None })
    }

    /// Returns the way back for the controller's answers.
    pub fn inquirer(&self) -> Inquirer {
        self.inquirer.clone()
    }

    /// Serves the API, from the first call on.
    ///
    /// # Errors
    /// Fails where no thread can be started.
    pub fn serve(&mut self, sources: Sources) -> Result<()> {
        let Sources { node_name, events, objects } = sources;
        // Whoever scrapes metrics asks by the same inquirer, also where the API is not served.
        self.inquirer.connect(events);
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let service = Service::new(node_name, self.inquirer(), objects);
        let (stop, stopped) = oneshot::channel();
        let thread = Builder::new().name("read-api".to_owned()).spawn(move || {
            if let Err(error) = run(listener, service, stopped) {
                tracing::error!(%error, "the read API is not served");
            }
        });
        self.serving = Some(Serving { stop, thread: thread.context("the read API's thread can't be started")? });
        Ok(())
    }
}

impl Drop for ReadApi {
    fn drop(&mut self) {
        if let Some(Serving { stop, thread }) = self.serving.take() {
            let _ = stop.send(());
            drop(thread.join());
        }
    }
}

/// Runs the thread, until it is to stop.
fn run(listener: Listener, service: Service, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    // Of this thread alone, and of those that it starts.
    if let Err(error) = rustix::process::nice(PRIORITY) {
        tracing::debug!(%error, "the read API keeps the agent's priority");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    runtime.block_on(async {
        let listener = listener.listen()?;
        tokio::select! {
            never = connection::accept_all(&listener, Arc::new(service)) => match never {},
            _ = stopped => Ok::<_, io::Error>(()),
        }
    })?;
    runtime.shutdown_timeout(STOP);
    Ok(())
}
