//! Health: `/healthz` says that the process answers, `/readyz` that its lists are complete, its last write to the API was
//! accepted, and no watch is refused: who may not know what is wanted is not to be waited for. A user's program that fails is
//! not the process's failure, and neither is an API server that is away: once it is back nobody is to think that this node's
//! agent is not there.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// Whether the process is ready; shared with whoever knows.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    ready: AtomicBool,
    /// How many watches are refused.
    refused: AtomicUsize,
}

impl Ready {
    /// Says whether it is.
    pub fn set(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Says that one watch more is refused, or one less.
    pub fn refused(&self, more: bool) {
        let Said { refused, .. } = &*self.0;
        let _ = if more { refused.fetch_add(1, Ordering::Relaxed) } else { refused.fetch_sub(1, Ordering::Relaxed) };
    }

    fn is_ready(&self) -> bool {
        let Said { ready, refused } = &*self.0;
        ready.load(Ordering::Relaxed) && refused.load(Ordering::Relaxed) == 0
    }
}

/// Answers the kubelet's probes until the process ends.
pub async fn serve(port: u16, ready: Ready) -> Result<()> {
    // IPv4 too, where there is IPv6.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.context("health port")?,
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // No descriptor is free, or whoever asked is gone: the next may be answered.
            Err(error) => {
                tracing::warn!(%error, "a probe could not be answered");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // A probe that hangs must not hold up the next.
        let ready = ready.clone();
        tokio::spawn(async move { timeout(Duration::from_secs(5), answer(stream, &ready)).await });
    }
}

async fn answer(mut stream: TcpStream, ready: &Ready) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await?;
    let line = String::from_utf8_lossy(request.get(..read).unwrap_or_default());
    let status = match line.split(' ').nth(1) {
        Some("/healthz") => "200 OK",
        Some("/readyz") if ready.is_ready() => "200 OK",
        Some("/readyz") => "503 Service Unavailable",
        _ => "404 Not Found",
    };
    let body = status.split_once(' ').map_or("", |(_, words)| words);
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
