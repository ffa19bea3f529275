//! egress-guard: destinations that are not listed are refused, or counted in a dry run. Existing connections continue.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};
use sockeye_crds::Builtin::EgressGuard;

use super::{
    add_pod, apply_with, cgroup_id, continue_job, echo, print_result, reach, reach_from, result_of, wait_for_go,
};
use crate::node::Node;

const ALL: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];

/// Connects to TO, and uses that connection while a new one would be refused.
#[test]
#[ignore = "a job of the tests in this file"]
fn goes_on() {
    let to = std::env::var("TO").unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(to).unwrap();
    wait_for_go();
    let outcome = reach("tcp", to);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    print_result(&json!(outcome));
}

fn apply(node: &Node, dry_run: bool) {
    apply_with(node, EgressGuard, &ALL, json!({"dry_run": dry_run.to_string(), "allow_loopback": "false"}));
}

/// Adds a network with one port to the list.
fn allow(node: &Node, map: &str, prefix: u32, address: &[u8], port: u16) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let pin = format!("{}/maps/{map}", node.home("egress-guard"));
    let (key, mut value) = ([&prefix.to_ne_bytes(), address].concat(), [0; 16]);
    value[..2].copy_from_slice(&port.to_ne_bytes());
    let (key, value) = (hex(&key), hex(&value));
    let mut arguments = vec!["map", "update", "pinned", &pin, "key", "hex"];
    arguments.extend(key.iter().map(String::as_str));
    arguments.extend(["value", "hex"]);
    arguments.extend(value.iter().map(String::as_str));
    node.run("bpftool", &arguments);
}

fn decisions(node: &Node) -> Value {
    node.entries("egress-guard", "decisions")[0]["value"].clone()
}

#[test]
fn only_listed_destinations_are_reached() {
    let mut node = Node::new("guard");
    node.make_cgroup("inner");
    node.start();
    let (listed, other, listed6) = (echo("127.0.0.1:0"), echo("127.0.0.1:0"), echo("[::1]:0"));
    let destinations = [
        format!("tcp 127.0.0.1:{listed}"),
        format!("tcp 127.0.0.1:{other}"),
        format!("udp 127.0.0.1:{other}"),
        format!("send 127.0.0.1:{other}"),
        format!("send 127.0.0.1:{listed}"),
        format!("tcp [::1]:{listed6}"),
        format!("send [::1]:{other}"),
        // IPv4-mapped addresses follow the rules for IPv4.
        format!("tcp [::ffff:127.0.0.1]:{listed}"),
        format!("send [::ffff:127.0.0.1]:{other}"),
    ];
    let results = |node: &Node| reach_from(node, "inner", &destinations)["results"].clone();

    apply(&node, true);
    assert_eq!(results(&node), json!(vec!["ok"; 9]), "a dry run refuses nothing");
    assert_eq!(decisions(&node), json!({"allowed": 0, "refused": 0, "would_refuse": 9}));
    let refusals = node.entries("egress-guard", "sockeye_refusals");
    let inner = cgroup_id(&node, "inner");
    let is_tcp_to_listed = |entry: &&Value| entry["key"]["port"] == listed && entry["key"]["protocol"] == 6;
    let refusal = refusals.iter().find(is_tcp_to_listed).unwrap();
    let value = json!({"refused": 0, "would_refuse": 2, "first_ns": 0, "last_ns": 0});
    assert_eq!(
        (&refusal["key"]["cgroup"], &refusal["value"]),
        (&json!(inner), &value),
        "both forms of the address: {refusal}"
    );

    let job = node
        .job("inner", "builtins::guard::goes_on")
        .env("FOLDER", node.folder())
        .env("TO", format!("127.0.0.1:{other}"))
        .spawn()
        .unwrap();
    node.until("its connection", |node| decisions(node)["would_refuse"] == 10);
    allow(&node, "allow4", 32, &[127, 0, 0, 1], listed);
    allow(&node, "allow6", 128, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], listed6);
    apply(&node, false);
    let no = "PermissionDenied";
    assert_eq!(results(&node), json!(["ok", no, no, no, "ok", "ok", no, "ok", no]), "the list outlives the revision");
    assert_eq!(decisions(&node), json!({"allowed": 4, "refused": 5, "would_refuse": 10}));
    continue_job(&node);
    assert_eq!(result_of(job), no, "the existing connection continues, and a new one is refused");

    // The longest prefix decides alone. A network without ports allows all of them.
    allow(&node, "allow4", 8, &[127, 0, 0, 0], 0);
    assert_eq!(results(&node)[1], no);
    assert_eq!(reach_from(&node, "inner", &[format!("send 127.0.0.2:{other}")])["results"], json!(["ok"]));
    node.remove("egress-guard");
    assert_eq!(results(&node), json!(vec!["ok"; 9]));
    node.nothing_left();
}

#[test]
fn what_is_refused_is_counted_by_pod() {
    let mut node = Node::new("refused");
    let (pods, of_container) = add_pod(&node);
    node.make_cgroup("outside");
    node.start_with(&["--pods", &pods]);
    let closed = ["tcp 127.0.0.1:1".to_owned()];
    apply(&node, true);
    assert_eq!(reach_from(&node, &of_container, &closed)["results"], json!(["ConnectionRefused"]));
    apply(&node, false);
    // What a dry run counted is none of them. Neither is what no pod asked for.
    for cgroup in [of_container.as_str(), "outside"] {
        assert_eq!(reach_from(&node, cgroup, &closed)["results"], json!(["PermissionDenied"]));
    }
    node.until("the report", |node| node.entry("egress-guard")["refusedConnections"].is_array());
    let refused = node.entry("egress-guard")["refusedConnections"].clone();
    let [pod] = &refused.as_array().unwrap()[..] else { panic!("{refused}") };
    assert_eq!((&pod["namespace"], &pod["name"], &pod["count"]), (&json!("shop"), &json!("web-0"), &json!(1)));
    assert_eq!(pod["uid"], "0000002a-0000-4000-8000-000000000000");
    assert!(pod["sinceTime"].is_string() && pod["sinceTime"] == pod["lastTime"], "{pod}");

    // The next agent counts what was refused before it came, too.
    node.stop("KILL");
    assert_eq!(reach_from(&node, &of_container, &closed)["results"], json!(["PermissionDenied"]));
    node.start_with(&["--pods", &pods]);
    node.until("the report", |node| node.entry("egress-guard")["refusedConnections"][0]["count"] == 2);
    node.remove("egress-guard");
    node.nothing_left();
}
