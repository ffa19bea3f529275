//! tcp-tune: getsockopt returns the configured options at both ends of a connection.

use std::net::{TcpListener, TcpStream};

use rustix::net::sockopt;
use serde_json::{Value, json};
use sockeye_crds::Builtin::TcpTune;

use super::{apply, apply_with, print_result, result_of};
use crate::node::Node;

fn options(socket: &TcpStream) -> Value {
    json!({
        "congestion": sockopt::tcp_congestion(socket).unwrap(),
        "send": sockopt::socket_send_buffer_size(socket).unwrap(),
        "receive": sockopt::socket_recv_buffer_size(socket).unwrap(),
        "keepalive": sockopt::socket_keepalive(socket).unwrap(),
        "idle": sockopt::tcp_keepidle(socket).unwrap().as_secs(),
        "interval": sockopt::tcp_keepintvl(socket).unwrap().as_secs(),
        "count": sockopt::tcp_keepcnt(socket).unwrap(),
        "no_delay": sockopt::tcp_nodelay(socket).unwrap(),
    })
}

/// Prints the options of both ends of a connection.
#[test]
#[ignore = "a job of the tests in this file"]
fn connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    print_result(&json!([options(&client), options(&server)]));
}

#[test]
fn options_are_set_on_both_ends() {
    let mut node = Node::new("tune");
    node.start();
    let ends = |node: &Node| result_of(node.job(".", "builtins::tune::connects").spawn().unwrap());
    let untouched = ends(&node);
    apply(&node, TcpTune, &["tune"]);
    assert_eq!(ends(&node), untouched, "without settings it sets nothing");

    let globals = json!({
        "congestion_control": "reno", "send_buffer": 50_000, "receive_buffer": 60_000, "keepalive_idle": 77,
        "keepalive_interval": 11, "keepalive_count": 5, "no_delay": "true",
    });
    apply_with(&node, TcpTune, &["tune"], globals);
    // Kernels before 6.1 do not let programs set it; another feature of that release tells them.
    let no_delay = node.has_feature("MapUserRingBuf");
    let set = json!({
        "congestion": "reno", "send": 100_000, "receive": 120_000, "keepalive": true, "idle": 77, "interval": 11,
        "count": 5, "no_delay": no_delay,
    });
    assert_ne!(untouched[0]["congestion"], "reno", "or the test shows nothing");
    assert_eq!(ends(&node), json!([set, set]));
    let results = node.entries("tcp-tune", "results");
    assert_eq!(results.len(), 8);
    for result in results {
        // One each for the listener, the client, and the accepted end. The last is no_delay.
        let expected = if result["key"] != 7 || no_delay { [3, 0] } else { [0, 3] };
        assert_eq!(json!([result["value"]["set"], result["value"]["refused"]]), json!(expected), "{result}");
    }

    apply_with(&node, TcpTune, &["tune"], json!({"congestion_control": "nonesuch"}));
    let before = node.entries("tcp-tune", "results")[0]["value"]["set"].clone();
    assert_eq!(ends(&node)[0]["congestion"], untouched[0]["congestion"]);
    let result = &node.entries("tcp-tune", "results")[0]["value"];
    assert_eq!((&result["set"], &result["refused"], &result["last_error"]), (&before, &json!(3), &json!(-2)), "ENOENT");
    node.remove("tcp-tune");
    node.nothing_left();
}
