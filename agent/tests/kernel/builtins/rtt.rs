//! tcp-rtt: round trips and losses are counted by cgroup.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Child,
};

use serde_json::{Value, json};
use sockeye_crds::Builtin::TcpRtt;
use sockeye_ebpf::programs::fixtures;

use super::{apply, cgroup_id, continue_job, on_node, print_result, result_of, wait_for_go};
use crate::node::Node;

/// Listens, waits for the test, then connects five times and sends a large packet each way.
#[test]
#[ignore = "a job of the tests in this file"]
fn exchanges() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    wait_for_go();
    for _ in 0..5 {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[2; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        // In this order the client's end goes through all of TCP's states.
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
    print_result(&Value::Null);
}

fn job(node: &Node) -> Child {
    let mut job = node.job("inner", "builtins::rtt::exchanges").env("FOLDER", node.folder()).spawn().unwrap();
    // The job listens from here on.
    let mut output = std::io::BufReader::new(job.stdout.as_mut().unwrap());
    let mut line = String::new();
    while line != "waiting\n" {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0);
    }
    job
}

fn figures(node: &Node, cgroup: u64) -> Value {
    let all = node.entries("tcp-rtt", "cgroups");
    all.into_iter().find(|entry| entry["key"] == cgroup).map_or(Value::Null, |entry| entry["value"].clone())
}

fn sum(slots: &Value) -> u64 {
    slots.as_array().unwrap().iter().filter_map(Value::as_u64).sum()
}

#[test]
fn round_trips_and_losses_are_counted_by_cgroup() {
    let mut node = Node::new("rtt");
    node.make_cgroup("inner");
    node.start();
    apply(&node, TcpRtt, &["measure", "remember"]);
    node.apply_spec("lossy", fixtures::LOSSY, json!({"programs": on_node(&["lose"])}));
    node.ready("lossy");
    let inner = cgroup_id(&node, "inner");
    let job = job(&node);
    continue_job(&node);
    result_of(job);
    node.until("ten closed ends", |node| figures(node, inner)["closed"] == 10);
    let figures = figures(&node, inner);
    assert_eq!((&figures["connected"], &figures["accepted"], &figures["failed"]), (&json!(5), &json!(5), &json!(0)));
    assert!(sum(&figures["rtt_us"]) >= 10, "{figures}");
    assert!(figures["retransmitted"].as_u64().unwrap() >= 2, "two packets were lost: {figures}");
    assert_eq!(sum(&figures["retransmits"]), 10);
    assert!((1..10).contains(&figures["retransmits"][0].as_u64().unwrap()), "some lost something: {figures}");
    node.remove("lossy");
    node.remove("tcp-rtt");
    node.nothing_left();
}

#[test]
fn an_older_listener_has_no_cgroup_until_it_is_remembered() {
    for (programs, remembered) in
        [(&["measure", "remember"][..], false), (&["measure", "remember", "remember_listener"], true)]
    {
        let mut node = Node::new("rtt-old");
        node.make_cgroup("inner");
        node.start();
        let job = job(&node);
        apply(&node, TcpRtt, programs);
        continue_job(&node);
        result_of(job);
        let accepted = |cgroup| figures(&node, cgroup)["accepted"].as_u64().unwrap_or_default();
        let (inner, nobody) = (accepted(cgroup_id(&node, "inner")), accepted(0));
        assert_eq!((inner, nobody), if remembered { (5, 0) } else { (0, 5) });
        node.remove("tcp-rtt");
        node.nothing_left();
    }
}
