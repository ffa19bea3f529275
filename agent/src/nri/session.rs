//! One connection to the runtime. Does IO on it; what is said on it is [`dialog`](super::dialog)'s.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use prost::DecodeError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Hooked, Starting,
    dialog::{self, Dialog, Ruling, Taken},
    frame::{Decoder, Garbage},
};

/// A runtime that takes longer than this to get from the connection to its first start is sought anew. It may be a while: it
/// lets in one plugin at a time, and none while a container starts.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A connection stays open for so long after a refusal: the runtime hands on what it read and that the connection ended side by
/// side, takes either first, and lets a start go on whose refusal it did not see (`nri/pkg/net/multiplex`, `conn.Read`).
const LINGER: Duration = Duration::from_millis(250);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the runtime closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the runtime does not speak NRI: {0}")]
    Garbage(#[from] Garbage),
    #[error("the runtime does not speak NRI: {0}")]
    Undecodable(#[from] DecodeError),
    #[error("the runtime refuses the plugin: {0}")]
    Refused(String),
    #[error("the runtime did not let the plugin in within {} s", HANDSHAKE.as_secs())]
    Late,
}

/// Speaks with the runtime until the connection is over.
pub async fn run(stream: UnixStream, starts: &mpsc::Sender<Starting>, status: &watch::Sender<Hooked>) -> Lost {
    let Err(lost) = speak(stream, starts, status).await;
    lost
}

async fn speak(
    mut stream: UnixStream,
    starts: &mpsc::Sender<Starting>,
    status: &watch::Sender<Hooked>,
) -> Result<Infallible, Lost> {
    let late = Instant::now() + HANDSHAKE;
    let mut pending = Pending::new(net::UnixStream::from(stream.as_fd().try_clone_to_owned()?));
    let (mut read, mut write) = stream.split();
    let mut decoder = Decoder::default();
    let mut dialog = Dialog::new(starts.clone());
    let mut hooked = false;
    write.write_all(&dialog::register(HANDSHAKE).encode()).await?;
    loop {
        while let Some(message) = decoder.next()? {
            match dialog.take(message)? {
                Taken::Nothing => {}
                Taken::Said(answer) => write.write_all(&answer.encode()).await?,
                Taken::Held(stream, ruling) => pending.add(stream, ruling),
                Taken::Hooked(answer, now) => {
                    write.write_all(&answer.encode()).await?;
                    tracing::info!("the container runtime asks before starts");
                    status.send_replace(now);
                    hooked = true;
                }
            }
        }
        tokio::select! {
            Some((stream, ruling)) = pending.next() => write.write_all(&dialog::rule(stream, ruling).encode()).await?,
            read = read.read_buf(decoder.buffer()) => if read? == 0 { return Err(Lost::Closed) },
            () = sleep_until(late), if !hooked => return Err(Lost::Late),
        }
    }
}

/// Starts that are held. Dropped with the connection it refuses them, where a runtime that only saw the connection end would
/// let them go on; then it blocks until the runtime has seen every refusal.
struct Pending {
    rulings: FuturesUnordered<BoxFuture<'static, (u32, Ruling)>>,
    streams: BTreeSet<u32>,
    refused: Option<Instant>,
    out: net::UnixStream,
}

impl Pending {
    fn new(out: net::UnixStream) -> Self {
        Self { rulings: FuturesUnordered::new(), streams: BTreeSet::new(), refused: None, out }
    }

    fn add(&mut self, stream: u32, ruling: BoxFuture<'static, Ruling>) {
        self.streams.insert(stream);
        self.rulings.push(Box::pin(async move { (stream, ruling.await) }));
    }

    async fn next(&mut self) -> Option<(u32, Ruling)> {
        let ruled = self.rulings.next().await?;
        self.streams.remove(&ruled.0);
        if ruled.1.is_err() {
            self.refused = Some(Instant::now());
        }
        Some(ruled)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        for stream in &self.streams {
            let refusal = dialog::rule(*stream, Err("sockeye's agent is ending".to_owned()));
            // The socket does not block. Where it does not take this, nothing can be said any more.
            if self.out.write_all(&refusal.encode()).is_ok() {
                self.refused = Some(Instant::now());
            }
        }
        if let Some(refused) = self.refused {
            std::thread::sleep(LINGER.saturating_sub(refused.elapsed()));
        }
    }
}
