//! The agent's connection, with the test as the other end: peers that are no runtime, the end of a connection, and a
//! socket that comes later.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sockeye_agent::admission::{Admission, nri::Starting};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::Hook;

/// A runtime that configures and synchronizes the plugin, and asks about a pod and a container.
const RECORDED: &[u8] = include_bytes!("recorded.bin");
/// The time that a connection stays open after a refusal is a little longer.
const LINGER: Duration = Duration::from_millis(200);

fn socket() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    (dir, socket)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    timeout(Duration::from_secs(10), listener.accept()).await.expect("the agent connects again").unwrap().0
}

/// A connection on which two starts are held.
struct Holding {
    hook: Hook,
    stream: UnixStream,
    held: [Starting; 2],
    _dir: TempDir,
}

impl Holding {
    async fn new() -> Self {
        let (dir, path) = socket();
        let listener = UnixListener::bind(&path).unwrap();
        let mut hook = Hook::at(&path);
        let mut stream = accept(&listener).await;
        stream.write_all(RECORDED).await.unwrap();
        hook.connected().await;
        let held = [hook.starts.recv().await.unwrap(), hook.starts.recv().await.unwrap()];
        Self { hook, stream, held, _dir: dir }
    }
}

/// Reads until the agent closes the connection; returns all that it said.
async fn rest(stream: &mut UnixStream) -> String {
    let mut said = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await.expect("the connection ends").unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

fn refusals(said: &str, why: &str) -> usize {
    said.matches(why).count()
}

#[tokio::test]
async fn bytes_that_are_no_nri_end_the_connection_and_nothing_else() {
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
        // The agent may close the connection before it has read all of it: then the write fails.
        let _cut = stream.write_all(said).await;
        let _cut = stream.shutdown().await;
        hook.disconnected(why).await;
    }
    // A runtime that comes after all these is served as any.
    let mut stream = accept(&listener).await;
    let mut registration = [0; 18];
    stream.read_exact(&mut registration).await.unwrap();
    assert_eq!(registration[..4], [0, 0, 0, 2], "on the runtime's channel");
    stream.write_all(RECORDED).await.unwrap();
    hook.connected().await;
    let start = hook.starts.recv().await.unwrap().start;
    assert_eq!((start.pod.name.as_str(), start.container), ("web-0", None));
}

/// The runtime handles what it read and the connection's end in either order, and lets a start go on whose refusal it
/// did not see.
#[tokio::test]
async fn a_connection_outlasts_its_refusals() {
    let Holding { hook, mut stream, held, _dir } = Holding::new().await;
    let end = Instant::now();
    hook.end();
    let said = rest(&mut stream).await;
    assert!(end.elapsed() > LINGER, "closed after {:?}", end.elapsed());
    assert_eq!(refusals(&said, "sockeye's agent is ending"), held.len());
    hook.ended().await;
}

#[tokio::test]
async fn a_connection_that_ends_in_garbage_outlasts_its_refusals() {
    let Holding { mut hook, mut stream, held, _dir } = Holding::new().await;
    let end = Instant::now();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(end.elapsed() > LINGER, "closed after {:?}", end.elapsed());
    assert_eq!(
        refusals(&said, "sockeye's agent lost the container runtime: the runtime does not speak NRI"),
        held.len()
    );
    hook.disconnected("does not speak NRI").await;
}

/// All of it runs on one thread: the agent, its peer, and the task that counts.
#[tokio::test(flavor = "current_thread")]
async fn other_tasks_run_while_a_connection_outlasts_its_refusals() {
    let Holding { hook, mut stream, held, _dir } = Holding::new().await;
    let ticks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ticks);
    let ticking = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(10)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    hook.end();
    let said = rest(&mut stream).await;
    hook.ended().await;
    ticking.abort();
    assert_eq!(refusals(&said, "sockeye's agent is ending"), held.len());
    // About twenty; on a blocked thread none or one.
    let ticks = ticks.load(Ordering::Relaxed);
    assert!(ticks >= 5, "{ticks} ticks");
}

#[tokio::test]
async fn an_aborted_agent_refuses_what_it_holds_and_waits_for_nothing() {
    let mut fastest = Duration::MAX;
    // The machine itself may hold up one of them.
    for _ in 0..3 {
        let Holding { hook, mut stream, held, _dir } = Holding::new().await;
        let end = Instant::now();
        drop(hook);
        let said = rest(&mut stream).await;
        fastest = fastest.min(end.elapsed());
        assert_eq!(refusals(&said, "sockeye's agent is ending"), held.len());
    }
    assert!(fastest < LINGER, "closed after {fastest:?}");
}

/// No controller is connected: the starts wait for one.
#[tokio::test]
async fn stopping_the_admission_refuses_what_it_holds() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    let admission = Admission::new(Some(path));
    let mut stream = accept(&listener).await;
    stream.write_all(RECORDED).await.unwrap();
    // An empty request comes after those that ask for starts, and is answered at once.
    stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0]).await.unwrap();
    let mut said = Vec::new();
    while refusals(&String::from_utf8_lossy(&said), "is not answered here") == 0 {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "the agent closed the connection");
    }
    let end = Instant::now();
    admission.stop().await;
    assert!(end.elapsed() > LINGER, "stopped after {:?}", end.elapsed());
    assert_eq!(refusals(&rest(&mut stream).await, "sockeye's agent is ending"), 2);
    Admission::new(None).stop().await;
}

#[tokio::test]
async fn an_agent_that_ends_without_a_runtime_ends_at_once() {
    let (_dir, path) = socket();
    let mut hook = Hook::at(&path);
    hook.disconnected("can't connect").await;
    hook.end();
    hook.ended().await;
}

#[tokio::test]
async fn a_socket_that_comes_later_is_found_at_once() {
    // A machine may be busy once. An attempt of each two seconds is seldom as soon, and hardly ever is one of two.
    let at_once = Duration::from_millis(250);
    let first = time_until_found().await;
    if first > at_once {
        let second = time_until_found().await;
        assert!(second <= at_once, "{first:?}, then {second:?}");
    }
}

/// Makes a socket long after the agent began to look for it, and returns how long the agent takes to find it.
async fn time_until_found() -> Duration {
    let (dir, path) = socket();
    let below = dir.path().join("run");
    let path = below.join(path.file_name().unwrap());
    let mut hook = Hook::at(&path);
    hook.disconnected("can't connect").await;
    std::fs::create_dir(&below).unwrap();
    // By then the agent's attempts are seconds apart, and it has seen the directory.
    sleep(Duration::from_secs(5)).await;
    let listener = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    accept(&listener).await;
    start.elapsed()
}
