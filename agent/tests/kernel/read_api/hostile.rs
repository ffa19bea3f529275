//! Clients that hold connections, send what is no request, ask without reading, or ask without pause: the agent goes on
//! reconciling, its memory is bounded, and others get answers afterwards.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use serde_json::json;
use sockeye_ebpf::programs::TCP_EVENTS_BTF;

use super::{
    client::{self, Client},
    paging,
};
use crate::node::{Node, timeout};

/// The beginning of every connection of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn open(node: &Node) -> UnixStream {
    let stream = UnixStream::connect(client::socket(node)).unwrap();
    stream.set_read_timeout(Some(timeout())).unwrap();
    stream
}

/// Returns a frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// Returns a request: headers that end it (RFC 7541, C).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
    let headers = [&[0x82, 0x86][..], &text(0x04, path), &text(0x01, "node")].concat();
    frame(1, 0x5, stream, &headers)
}

/// Has the agent bring a BpfProgram into effect and take it away again, and returns the time it took.
fn reconcile(node: &Node, name: &str) -> Duration {
    let begin = Instant::now();
    node.apply(name, TCP_EVENTS_BTF, json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]), json!([]));
    node.ready(name);
    node.remove(name);
    begin.elapsed()
}

fn answers(node: &Node, client: &Client) {
    node.until("an answer", |_| {
        client.runtime().block_on(async {
            let Some(mut sender) = client::connect(&client::socket(node)).await else { return false };
            client::request(&mut sender, "/v1/node").await.is_some_and(|response| response.status() == 200)
        })
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once_and_hold_nothing_up() {
    let mut node = Node::new("many");
    let client = client::start(&mut node);
    reconcile(&node, "first");
    let before = node.peak_kib();
    let mut held: Vec<UnixStream> = (0..200).map(|_| open(&node)).collect();
    // Those that are served wait for a first byte; the others are closed.
    let mut closed = 0;
    for stream in &mut held {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        closed += u32::from(stream.read(&mut [0; 64]).is_ok_and(|read| read == 0));
    }
    assert!((160..=175).contains(&closed), "{closed} of 200 were closed");
    let took = reconcile(&node, "second");
    assert!(took < timeout() / 2, "{took:?}");
    assert!(node.peak_kib() < before + (16 << 10), "{before} KiB became {}", node.peak_kib());
    drop(held);
    answers(&node, &client);
    node.nothing_left();
}

#[test]
fn what_is_no_http_ends_the_connection() {
    let mut node = Node::new("garbage");
    let client = client::start(&mut node);
    let random: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases: [Vec<u8>; 6] = [
        b"GET /v1/node HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(),
        random.clone(),
        [PREFACE, &random].concat(),
        // Settings of an impossible length; headers that are none; a frame of 16 MiB.
        [PREFACE, &frame(4, 0, 0, &[0; 5])].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0x5, 1, &[0xff; 64])].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
    ];
    for (n, bytes) in cases.iter().enumerate() {
        let mut stream = open(&node);
        drop(stream.write_all(bytes));
        // The agent says why, and closes; a reset says the same.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "case {n}");
        }
    }
    // Headers beyond the bound are refused, and cost no memory.
    let path = format!("/v1/programs/{}", "x".repeat(60_000));
    let before = node.peak_kib();
    client.runtime().block_on(async {
        let mut sender = client::connect(&client::socket(&node)).await.unwrap();
        let response = client::request(&mut sender, &path).await;
        assert!(response.is_none_or(|response| response.status() == 431));
    });
    assert!(node.peak_kib() < before + (8 << 10));
    answers(&node, &client);
    reconcile(&node, "still");
    node.nothing_left();
}

#[test]
fn a_client_that_never_reads_holds_little_and_is_ended() {
    let mut node = Node::new("deaf");
    let client = client::start(&mut node);
    let map = paging::shared_hash(&node);
    (0..4096_u32).for_each(|key| paging::set(&map, &key.to_ne_bytes(), u64::MAX));
    let path = "/v1/programs/globals/maps/shared/entries?limit=1024";
    let (status, body) = client.get(path);
    assert!(status == 200 && body.len() > 32 << 10, "{} bytes", body.len());
    let before = node.peak_kib();

    // Each promises to take 2 GiB a stream, and asks again and again.
    let wide = frame(4, 0, 0, &[&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat());
    let connection = frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    let mut deaf: Vec<UnixStream> = (0..24)
        .map(|_| {
            let mut stream = open(&node);
            let requests: Vec<u8> = (0..8).flat_map(|n| get(2 * n + 1, path)).collect();
            stream.write_all(&[PREFACE, &wide, &connection, &requests].concat()).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let took = reconcile(&node, "beside");
    assert!(took < timeout() / 2, "{took:?}");
    let grown = node.peak_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "192 unread answers took {grown} KiB");

    // Those that hold an answer up are ended; others then get theirs.
    answers(&node, &client);
    let (status, _) = client.get(path);
    assert!(status == 200 || status == 429, "{status}");
    node.until("the end of what nobody reads", |_| {
        let (status, _) = client.get(path);
        status == 200
    });
    deaf.iter_mut().for_each(|stream| drop(stream.write(b"x")));
    node.remove("globals");
    node.nothing_left();
}

#[test]
fn requests_without_pause_delay_no_reconciliation() {
    let mut node = Node::new("busy");
    let client = client::start(&mut node);
    (0..8).for_each(|n| {
        let attach = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        node.apply(&format!("p{n}"), TCP_EVENTS_BTF, attach, json!([]));
    });
    (0..8).for_each(|n| drop(node.ready(&format!("p{n}"))));
    let before = node.peak_kib();
    let (done, answered) = (AtomicBool::new(true), AtomicU32::new(0));
    let ask = async |socket| {
        let mut sender = client::connect(&socket).await.unwrap();
        while !done.load(Ordering::Relaxed) {
            let Some(response) = client::request(&mut sender, "/v1/node").await else { return };
            if response.status() == 200 && response.into_body().collect().await.is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let socket = client::socket(&node);
    let beside = || {
        done.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                let asking = (0..12).map(|_| ask(socket.clone()));
                client.runtime().block_on(futures::future::join_all(asking));
            });
            let took = reconcile(&node, "beside");
            done.store(true, Ordering::Relaxed);
            took
        })
    };
    // In turn, so that whatever else the machine does slows both.
    let times: [(Duration, Duration); 3] = std::array::from_fn(|_| (reconcile(&node, "alone"), beside()));
    let answered = answered.load(Ordering::Relaxed);
    println!("alone and beside {answered} answers: {times:?}");
    let (alone, took) = (times.map(|(alone, _)| alone), times.map(|(_, beside)| beside));
    let (alone, took) = (alone.into_iter().max().unwrap(), took.into_iter().min().unwrap());
    assert!(answered > 10 && took < 4 * alone + Duration::from_secs(1), "{answered} answers; {times:?}");
    let grown = node.peak_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
    (0..8).for_each(|n| node.remove(&format!("p{n}")));
    node.nothing_left();
}
