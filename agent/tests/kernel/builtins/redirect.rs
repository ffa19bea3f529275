//! sock-redirect: redirected bytes arrive in order at the other end of a connection, and are counted.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_crds::Builtin::SockRedirect;

use super::{echo, print_result, result_of};
use crate::{
    map_attachment::FIONREAD,
    node::{Node, is_long_run},
    sockets::connection::{Connection, UNREAD},
};

fn apply(node: &Node) {
    apply_with(node, &json!({}));
}

fn apply_with(node: &Node, more: &Value) {
    let programs = json!([
        {"name": "join", "attach": [{"type": "Node"}]},
        {"name": "redirect", "attach": [{"type": "Map", "map": {"name": "sockets"}}]},
    ]);
    let mut spec = json!({"programs": programs, "acceptedRegressions": [FIONREAD]});
    more.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
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

/// The sends of one end that went straight, and those that went by TCP.
fn sends_of(node: &Node) -> [u64; 2] {
    let traffic = traffic(node);
    ["redirected_sends", "other_sends"].map(|field| traffic[field].as_u64().unwrap())
}

/// Connections keep their program after it is detached: it lets them go by TCP from their next send on.
#[test]
fn what_is_detached_redirects_nothing_any_more() {
    let mut node = Node::new("redirect-off");
    node.start();
    if refuses(&node) {
        return;
    }
    apply(&node);
    node.ready("sock-redirect");
    let mut connection = Connection::new(&node, 0);
    connection.assert_passes();
    assert_eq!(connection.ask("send"), UNREAD);
    assert_eq!(sends_of(&node), [2, 0]);

    // The agent is killed before it tells the program; the next one does. Its probe of a regression updates a map, too.
    node.stop("KILL");
    node.start_faulty("kill@BPF_MAP_UPDATE_ELEM#2");
    apply_with(&node, &json!({"suspend": true}));
    node.until("the kill", Node::has_ended);
    node.stop("KILL");
    assert_eq!(node.attached(), Vec::<Value>::new());
    node.start();
    node.until("the suspension", |node| node.condition("sock-redirect", "Ready")["reason"] == "Suspended");
    assert_eq!(connection.ask("send"), UNREAD);
    assert_eq!([connection.ask("read"), connection.ask("read")], [UNREAD; 2], "what was handed over comes first");
    assert_eq!(sends_of(&node), [2, 1]);

    // Attached again, it redirects what joins from now on; a connection that went by TCP goes on so.
    apply(&node);
    node.ready("sock-redirect");
    let mut other = Connection::new(&node, 0);
    other.assert_passes();
    connection.assert_passes();
    assert_eq!(sends_of(&node), [3, 2]);

    // The kill switch; another agent ends it.
    node.agent_command("detach", &["--all"]);
    node.until("that nothing is attached", |node| node.attached().is_empty());
    // Otherwise the next agent's status could be taken for true before that agent has written one.
    node.until("the suspension", |node| node.condition("sock-redirect", "Ready")["reason"] == "Suspended");
    other.assert_passes();
    node.stop("KILL");
    node.start();
    node.agent_command("attach", &["--all"]);
    node.ready("sock-redirect");
    let mut last = Connection::new(&node, 0);
    last.assert_passes();
    assert_eq!(sends_of(&node), [4, 3]);

    // The deletion, after which only this test has a map of it.
    let pin = node.outer_path(&format!("{}/maps/traffic", node.home("sock-redirect")));
    let counts = bpf::obj_get(None, &pin).unwrap();
    node.remove("sock-redirect");
    last.assert_passes();
    let mut words = [0; 40];
    assert!(bpf::map_lookup(counts.as_fd(), &[0; 4], &mut words).unwrap());
    let words = words.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect::<Vec<_>>();
    assert_eq!([words[1], words[3]], [4, 4]);
    [connection, other, last].into_iter().for_each(Connection::close);
    node.until("that nothing drains", |node| !node.exists(&format!("{}/sockeye/_draining", node.bpffs())));
    node.nothing_left();
}

/// The spec turns it off from the start: it stays so through a suspension.
#[test]
fn a_redirection_that_the_spec_turns_off_stays_off() {
    let mut node = Node::new("redirect-never");
    node.start();
    if refuses(&node) {
        return;
    }
    let off = |suspend: bool| json!({"globals": {"redirecting": "false"}, "suspend": suspend});
    apply_with(&node, &off(false));
    node.ready("sock-redirect");
    apply_with(&node, &off(true));
    node.until("the suspension", |node| node.condition("sock-redirect", "Ready")["reason"] == "Suspended");
    apply_with(&node, &off(false));
    node.ready("sock-redirect");
    let mut connection = Connection::new(&node, 0);
    connection.assert_passes();
    assert_eq!(traffic(&node)["joined"], 0);
    connection.close();
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
