//! One connection to the runtime. Does IO on it; [`plugin`](super::plugin) decides what is said on it.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    error::SessionError,
    frame::{Decoder, Message},
    hook::{RuntimeHook, Starting},
    plugin::{self, Plugin, Reply},
};
use crate::model::start::Decision;

/// The longest time from the connection to the moment when the runtime asks. It is long because the runtime lets in one
/// plugin at a time, and none while a container starts.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The time that a connection stays open after a refusal. The runtime handles what it read and the connection's end in
/// either order, and lets a start go on whose refusal it did not see (`nri/pkg/net/multiplex`, `conn.Read`).
const LINGER: Duration = Duration::from_millis(250);

/// Serves the runtime until the connection or the agent ends. Then refuses all starts that are held, and returns once
/// the runtime has had the time to read the refusals.
pub async fn run(
    stream: UnixStream,
    starts: &mpsc::Sender<Starting>,
    hook: &watch::Sender<RuntimeHook>,
    ending: &mut watch::Receiver<bool>,
) -> SessionError {
    let (read, write) = stream.into_split();
    let mut outbox = Outbox::new(write);
    let Err(error) = exchange(read, &mut outbox, Plugin::new(starts.clone()), hook, ending).await;
    let why = match &error {
        SessionError::AgentEnding => error.to_string(),
        error => format!("sockeye's agent lost the container runtime: {error}"),
    };
    outbox.refuse_all(&why);
    outbox.linger().await;
    error
}

/// Waits until the agent is ending: this turns true, or its sender is gone.
pub async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

/// Reads messages and answers them until the connection or the agent ends.
async fn exchange(
    mut read: OwnedReadHalf,
    outbox: &mut Outbox,
    mut plugin: Plugin,
    hook: &watch::Sender<RuntimeHook>,
    ending: &mut watch::Receiver<bool>,
) -> Result<Infallible, SessionError> {
    let deadline = Instant::now() + HANDSHAKE;
    let mut decoder = Decoder::default();
    let mut connected = false;
    outbox.send(&plugin::register(HANDSHAKE)).await?;
    loop {
        while let Some(message) = decoder.next()? {
            match plugin.receive(message)? {
                Reply::None => {}
                Reply::Now(answer) => outbox.send(&answer).await?,
                Reply::Later(stream, decision) => outbox.hold(stream, decision),
                Reply::Connected(answer, now) => {
                    outbox.send(&answer).await?;
                    tracing::info!("the container runtime asks before starts");
                    hook.send_replace(now);
                    connected = true;
                }
            }
        }
        tokio::select! {
            Some((stream, decision)) = outbox.decided() => outbox.answer(stream, decision).await?,
            read = read.read_buf(decoder.buffer()) => if read? == 0 { return Err(SessionError::Closed) },
            () = sleep_until(deadline), if !connected => return Err(SessionError::HandshakeTimeout(HANDSHAKE)),
            () = ended(ending) => return Err(SessionError::AgentEnding),
        }
    }
}

/// The writing half of a connection, and the starts that are held on it.
///
/// It refuses them when it is dropped: a runtime that only sees the connection end lets them go on.
struct Outbox {
    socket: OwnedWriteHalf,
    decisions: FuturesUnordered<BoxFuture<'static, (u32, Decision)>>,
    /// The streams of the starts without an answer.
    held: BTreeSet<u32>,
    last_refusal: Option<Instant>,
}

impl Outbox {
    fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, decisions: FuturesUnordered::new(), held: BTreeSet::new(), last_refusal: None }
    }

    async fn send(&mut self, message: &Message) -> Result<(), SessionError> {
        Ok(self.socket.write_all(&message.encode()).await?)
    }

    /// Holds a start until its decision is there.
    fn hold(&mut self, stream: u32, decision: BoxFuture<'static, Decision>) {
        self.held.insert(stream);
        self.decisions.push(Box::pin(async move { (stream, decision.await) }));
    }

    /// Waits for the next decision; returns nothing where no start is held.
    async fn decided(&mut self) -> Option<(u32, Decision)> {
        self.decisions.next().await
    }

    /// Answers a start that was held.
    async fn answer(&mut self, stream: u32, decision: Decision) -> Result<(), SessionError> {
        self.held.remove(&stream);
        let refused = decision.is_err();
        self.send(&plugin::answer(stream, decision)).await?;
        if refused {
            self.last_refusal = Some(Instant::now());
        }
        Ok(())
    }

    /// Refuses every start that is held. Does not block.
    fn refuse_all(&mut self, why: &str) {
        self.decisions.clear();
        for stream in std::mem::take(&mut self.held) {
            let refusal = plugin::answer(stream, Err(why.to_owned())).encode();
            // Where the socket does not take all of it, the runtime does not read, or is gone.
            if self.socket.try_write(&refusal).is_ok_and(|written| written == refusal.len()) {
                self.last_refusal = Some(Instant::now());
            } else {
                return;
            }
        }
    }

    /// Closes the connection, once the runtime has had the time to read the last refusal.
    async fn linger(self) {
        if let Some(refused) = self.last_refusal {
            sleep_until(refused + LINGER).await;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // A start is still held only where the task was aborted.
        self.refuse_all(&SessionError::AgentEnding.to_string());
    }
}
