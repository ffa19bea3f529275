//! Peers that are no runtime: none ends the agent, and each is sought again.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::Hook;

const RECORDED: &[u8] = include_bytes!("recorded.bin");

fn socket() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    (dir, socket)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    timeout(Duration::from_secs(10), listener.accept()).await.expect("sought again").unwrap().0
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    let mut hook = Hook::at(&path);
    let half = &RECORDED[..RECORDED.len() / 2];
    let cases: [(&[u8], &str); 5] = [
        (&[0xff; 64], "does not speak NRI: a frame of 4294967295 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak NRI: a frame of"),
        (&[0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0xff, 0xff], "does not speak NRI: failed to decode"),
        (half, "closed the connection"),
        (&[], "closed the connection"),
    ];
    for (said, why) in cases {
        let mut stream = accept(&listener).await;
        // Garbage ends it before the rest is read, so that the write may fail.
        let _cut = stream.write_all(said).await;
        let _cut = stream.shutdown().await;
        hook.lost(why).await;
    }
    // A runtime that comes after all these is spoken to as any.
    let mut stream = accept(&listener).await;
    let mut registration = [0; 18];
    stream.read_exact(&mut registration).await.unwrap();
    assert_eq!(registration[..4], [0, 0, 0, 2], "on the runtime's connection");
    stream.write_all(RECORDED).await.unwrap();
    hook.hooked().await;
    let starting = hook.starts.recv().await.unwrap();
    assert_eq!((starting.pod.name.as_str(), starting.container), ("web-0", None));
}

/// The runtime takes what it read and the connection's end in either order, and lets a start go on whose refusal it did not see.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlasts_its_refusals() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    let mut hook = Hook::at(&path);
    let mut stream = accept(&listener).await;
    stream.write_all(RECORDED).await.unwrap();
    hook.hooked().await;
    let held = [hook.starts.recv().await.unwrap(), hook.starts.recv().await.unwrap()];
    let end = Instant::now();
    drop(hook);
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert!(end.elapsed() > Duration::from_millis(200), "closed after {:?}", end.elapsed());
    let refused = String::from_utf8_lossy(&said).matches("sockeye's agent is ending").count();
    assert_eq!(refused, held.len());
}

#[tokio::test]
async fn a_socket_that_comes_later_is_found_at_once() {
    let (dir, path) = socket();
    let below = dir.path().join("run");
    let path = below.join(path.file_name().unwrap());
    let mut hook = Hook::at(&path);
    hook.lost("can't connect").await;
    std::fs::create_dir(&below).unwrap();
    // So long that its next attempts are seconds apart; by then it has seen the directory.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let listener = UnixListener::bind(&path).unwrap();
    timeout(Duration::from_millis(500), listener.accept()).await.expect("within half a second").unwrap();
}
