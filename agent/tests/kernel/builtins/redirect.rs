//! sock-redirect: redirected bytes arrive in order at the other end of a connection, and are counted.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_crds::Builtin::SockRedirect;

use super::{echo, print_result, result_of};
use crate::{
    map_attachment::FIONREAD,
    node::{Node, is_long_run},
};

fn apply(node: &Node) {
    let programs = json!([
        {"name": "join", "attach": [{"type": "Node"}]},
        {"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]},
    ]);
    let spec = json!({"programs": programs, "acceptedRegressions": [FIONREAD]});
    node.apply_from("sock-redirect", json!({"builtin": SockRedirect}), spec);
}

/// Returns whether the kernel lacks the helper that its programs call (before 5.15). Asserts that the agent then
/// refuses it by the helper's name, and leaves nothing of it behind.
pub(super) fn refuses(node: &Node) -> bool {
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    if node.has_feature("NetnsCookie") {
        return false;
    }
    apply(node);
    let ready = node.condition_is("sock-redirect", "Ready", "False");
    assert_eq!(ready["reason"], "KernelUnsupported", "{ready}");
    assert!(ready["message"].as_str().unwrap().contains("call bpf_get_netns_cookie, as Linux 6.1 does"), "{ready}");
    assert_eq!(node.pins("sock-redirect"), Vec::<String>::new());
    node.remove("sock-redirect");
    true
}

fn traffic(node: &Node) -> Value {
    node.entries("sock-redirect", "traffic")[0]["value"].clone()
}

fn pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends numbered blocks of a thousand bytes, and asserts that every byte arrives in order.
fn send(mut from: &TcpStream, mut to: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(move || {
            for block in 0..100u8 {
                from.write_all(&[block; 1000]).unwrap();
            }
        });
        for block in 0..100u8 {
            let mut read = [0; 1000];
            to.read_exact(&mut read).unwrap();
            assert_eq!(read, [block; 1000]);
        }
    });
}

/// Sends a hundred kilobytes each way over connections of both families, then over one whose other end is at TO.
#[test]
#[ignore = "a job of the tests in this file"]
fn sends() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (client, server) = pair(address);
        send(&client, &server);
        send(&server, &client);
        drop(client);
        assert_eq!((&server).read(&mut [0]).unwrap(), 0, "the close arrives");
    }
    let to: SocketAddr = std::env::var("TO").unwrap().parse().unwrap();
    let stream = TcpStream::connect(to).unwrap();
    // The other end echoes everything.
    send(&stream, &stream);
    print_result(&Value::Null);
}

#[test]
fn bytes_between_local_sockets_bypass_tcp() {
    let mut node = Node::new("redirect");
    node.start();
    if refuses(&node) {
        return;
    }
    apply(&node);
    node.ready("sock-redirect");
    let outside = format!("127.0.0.1:{}", echo("127.0.0.1:0"));
    result_of(node.job(".", "builtins::redirect::sends").env("TO", outside).spawn().unwrap());
    let expected = json!({
        // Both ends of two connections, and one end of the third, whose other end is outside the cgroup.
        "joined": 5, "redirected_sends": 400, "redirected_bytes": 400_000, "other_sends": 100, "other_bytes": 100_000,
    });
    assert_eq!(traffic(&node), expected);
    node.remove("sock-redirect");
    node.nothing_left();
}

/// Prints the time of small round trips and the throughput of large blocks over one connection.
#[test]
#[ignore = "a job of the tests in this file"]
fn measures() {
    let (turns, blocks) = if is_long_run() { (50_000, 40_000) } else { (1_000, 500) };
    let (mut client, mut server) = pair("127.0.0.1:0");
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let answerer = thread::spawn(move || {
        let mut question = [0; 64];
        for _ in 0..turns {
            server.read_exact(&mut question).unwrap();
            server.write_all(&question).unwrap();
        }
        let mut block = vec![0; 64 << 10];
        for _ in 0..blocks {
            server.read_exact(&mut block).unwrap();
        }
        server.write_all(&[1]).unwrap();
    });
    let mut answer = [0; 64];
    let start = Instant::now();
    for _ in 0..turns {
        client.write_all(&[1; 64]).unwrap();
        client.read_exact(&mut answer).unwrap();
    }
    let turn = start.elapsed() / turns;
    let block = vec![1; 64 << 10];
    let start = Instant::now();
    for _ in 0..blocks {
        client.write_all(&block).unwrap();
    }
    client.read_exact(&mut [0]).unwrap();
    let mib_per_s = f64::from(blocks) / 16.0 / start.elapsed().as_secs_f64();
    answerer.join().unwrap();
    print_result(&json!([turn.as_nanos() as u64, mib_per_s]));
}

/// Measures with and without the redirection in turn. The figures of docs/programs/sock-redirect.md come from the long
/// form.
#[test]
fn the_cost_is_measured_with_and_without_redirection() {
    let mut node = Node::new("redirect-cost");
    node.start();
    if refuses(&node) {
        return;
    }
    let measure = |node: &Node| {
        let output = result_of(node.job(".", "builtins::redirect::measures").spawn().unwrap());
        (Duration::from_nanos(output[0].as_u64().unwrap()), output[1].as_f64().unwrap())
    };
    for round in 1..=if is_long_run() { 3 } else { 1 } {
        let without = measure(&node);
        apply(&node);
        node.ready("sock-redirect");
        let before = traffic(&node);
        let with = measure(&node);
        println!(
            "round {round}: 64 bytes there and back {without:?} without, {with:?} with (MiB/s in blocks of 64 KiB)"
        );
        assert_eq!(traffic(&node)["joined"].as_u64().unwrap(), before["joined"].as_u64().unwrap() + 2);
        assert!(traffic(&node)["redirected_bytes"].as_u64() > before["redirected_bytes"].as_u64());
        assert_eq!(traffic(&node)["other_sends"], 0);
        node.remove("sock-redirect");
    }
    node.nothing_left();
}
