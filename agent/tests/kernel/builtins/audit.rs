//! connect-audit: `sockeye-agent audit` prints connections that were established, refused, and not attempted.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};
use sockeye_crds::Builtin::ConnectAudit;

use super::{add_pod, apply, cgroup_id, echo, on_node, reach_from};
use crate::node::Node;

#[test]
fn the_audit_command_prints_every_connection() {
    let mut node = Node::new("audit");
    let (pods, inner) = add_pod(&node);
    node.start();
    apply(&node, ConnectAudit, &["connect4", "connect6", "outcome"]);
    let (open, open6, closed) = (echo("127.0.0.1:0"), echo("[::1]:0"), 1);
    let mut audit = node.audit("connect-audit", &["--pods", &pods, "--follow"]);
    let mut lines = BufReader::new(audit.stdout.take().unwrap()).lines();

    let made = reach_from(
        &node,
        &inner,
        &[
            format!("tcp 127.0.0.1:{open}"),
            format!("tcp 127.0.0.1:{closed}"),
            format!("tcp [::1]:{open6}"),
            format!("udp 127.0.0.1:{open}"),
        ],
    );
    assert_eq!(made["results"], json!(["ok", "ConnectionRefused", "ok", "ok"]));
    let events: Vec<Value> = (0..7).map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()).collect();
    audit.kill().unwrap();
    audit.wait().unwrap();

    for event in &events {
        assert_eq!(event["pod"], json!({"namespace": "shop", "name": "web-0", "container": "app"}), "{event}");
    }
    let events: Vec<Value> = events.into_iter().map(|mut event| event["value"].take()).collect();
    for event in &events {
        assert_eq!((&event["pid"], &event["uid"]), (&made["pid"], &json!(0)), "{event}");
        assert_eq!(event["cgroup"], cgroup_id(&node, &inner), "{event}");
        assert!(!event["comm"].as_str().unwrap().is_empty(), "{event}");
        assert_eq!(event["took_ns"].as_u64() > Some(0), event["what"] != "ATTEMPT", "{event}");
    }
    let short: Vec<String> = events
        .iter()
        .map(|e| format!("{} {} {} {}", e["what"], e["protocol"], e["address"], e["port"]).replace('"', ""))
        .collect();
    assert_eq!(
        short,
        [
            format!("ATTEMPT 6 127.0.0.1 {open}"),
            format!("ESTABLISHED 6 127.0.0.1 {open}"),
            format!("ATTEMPT 6 127.0.0.1 {closed}"),
            format!("FAILED 6 127.0.0.1 {closed}"),
            format!("ATTEMPT 6 ::1 {open6}"),
            format!("ESTABLISHED 6 ::1 {open6}"),
            format!("ATTEMPT 17 127.0.0.1 {open}"),
        ]
    );
    for pair in [&events[0..2], &events[2..4], &events[4..6]] {
        assert_eq!(pair[0]["cookie"], pair[1]["cookie"]);
    }
    // Without --follow, what is in the buffer is printed, and nothing is waited for.
    reach_from(&node, &inner, &[format!("udp 127.0.0.1:{open}")]);
    let printed = node.agent_command("audit", &["--pods", &pods]);
    assert!(printed.lines().count() == 1 && printed.contains(r#""name":"web-0""#), "{printed}");
    assert_eq!(node.entries("connect-audit", "lost")[0]["value"], 0);

    // Without a reader, events beyond the buffer are counted as lost. Loopback can be excluded.
    for (globals, room) in [(json!({"loopback": "false"}), true), (json!({}), false)] {
        let small = json!([{"name": "events", "maxEntries": 4096, "onIncompatible": "Recreate"}]);
        let spec = json!({"programs": on_node(&["connect4"]), "maps": small, "globals": globals});
        node.apply_from("connect-audit", json!({"builtin": ConnectAudit}), spec);
        node.ready("connect-audit");
        reach_from(&node, &inner, &vec![format!("udp 127.0.0.1:{open}"); 100]);
        let lost = node.entries("connect-audit", "lost")[0]["value"].as_u64().unwrap();
        // Each has a header of eight bytes.
        assert_eq!(lost, if room { 0 } else { 100 - 4096 / 88 }, "loopback left out: {room}");
    }
    node.remove("connect-audit");
    node.nothing_left();
}
