//! `spec.programs[].attachType` on a cgroup: a section that does not say what its programs are for. The kernel attaches
//! each program where the spec says, and a type that does not fit is refused and changes nothing.

use std::{
    fs::File,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
};

use serde_json::{Value, json};
use sockeye_agent::kernel::bpf;
use sockeye_ebpf_testing::cases::case;

use crate::node::Node;

/// `BPF_CGROUP_INET_INGRESS`, `BPF_CGROUP_INET_EGRESS`
const DIRECTIONS: [u32; 2] = [0, 1];
const INGRESS: &str = "cgroup_inet_ingress";
const EGRESS: &str = "cgroup_inet_egress";

/// Sends TO so many datagrams to PORT on loopback, and receives none.
#[test]
#[ignore = "a job of the tests in this file"]
fn send() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u16>().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..number("COUNT") {
        socket.send_to(b"x", (Ipv4Addr::LOCALHOST, number("PORT"))).unwrap();
    }
}

fn apply(node: &Node, attach_types: [Option<&str>; 2]) {
    let program = |(name, attach_type): (&str, Option<&str>)| {
        let mut program = json!({"name": name, "attach": [{"type": "Node"}]});
        attach_type.into_iter().for_each(|of| program["attachType"] = json!(of));
        program
    };
    let programs: Value = ["first", "second"].into_iter().zip(attach_types).map(program).collect();
    node.apply("skb", &case("cgroup-skb-without-direction"), programs, json!([]));
}

/// Returns the IDs of the programs that the kernel runs on the cgroup for each direction.
fn attached(node: &Node) -> [Vec<u32>; 2] {
    let cgroup = File::open(node.cgroup()).unwrap();
    DIRECTIONS.map(|of| bpf::prog_query(cgroup.as_fd(), of).unwrap().programs)
}

fn id(node: &Node, program: &str) -> u32 {
    let pin = format!("{}/programs/{program}", node.home("skb"));
    node.bpftool(&["prog", "show", "pinned", &pin])["id"].as_u64().unwrap() as u32
}

fn packets(node: &Node) -> Vec<u64> {
    node.counts(&["pinned", &format!("{}/maps/packets", node.home("skb"))])
}

/// Returns the numbers of packets that both programs see of so many datagrams that leave the node's cgroup.
fn seen_of(node: &Node, count: u64) -> Vec<u64> {
    let before = packets(node);
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut job = node.job(".", "attach_type::send");
    job.env("COUNT", count.to_string()).env("PORT", outside.local_addr().unwrap().port().to_string());
    let done = job.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    packets(node).iter().zip(before).map(|(now, before)| now - before).collect()
}

#[test]
fn programs_without_direction_are_attached_for_the_direction_that_the_spec_names() {
    let mut node = Node::new("direction");
    node.start();
    apply(&node, [Some(INGRESS), Some(EGRESS)]);
    node.ready("skb");
    assert_eq!(attached(&node), [vec![id(&node, "first")], vec![id(&node, "second")]]);
    let links = node.verified_details("skb")["links"].as_array().cloned().unwrap();
    let reported = |program: &str| links.iter().find(|link| link["program"] == program).unwrap()["attachType"].clone();
    assert_eq!([reported("first"), reported("second")], [json!(INGRESS), json!(EGRESS)]);
    assert_eq!(seen_of(&node, 7), [0, 7], "nothing comes in");

    // The other way round: each link is of a type, so that both are made anew.
    apply(&node, [Some(EGRESS), Some(INGRESS)]);
    node.ready("skb");
    assert_eq!(attached(&node), [vec![id(&node, "second")], vec![id(&node, "first")]]);
    assert_eq!(seen_of(&node, 5), [5, 0], "nothing comes in");

    apply(&node, [Some(EGRESS), Some(EGRESS)]);
    node.ready("skb");
    assert_eq!(seen_of(&node, 3), [3, 3], "both see what goes out");
    node.remove("skb");
    node.nothing_left();
}

#[test]
fn an_attach_type_that_does_not_fit_is_refused_and_what_runs_goes_on() {
    let mut node = Node::new("unfit");
    node.start();
    apply(&node, [Some(INGRESS), Some(EGRESS)]);
    node.ready("skb");
    let before = attached(&node);
    for (attach_types, reason, words) in [
        ([Some("cgroup_inet4_connect"), Some(EGRESS)], "InvalidSpec", ["programs[0].attachType", INGRESS]),
        ([Some(INGRESS), Some("egress")], "InvalidSpec", ["programs[1].attachType", EGRESS]),
        ([Some(INGRESS), None], "Unsupported", ["programs[1].name", "set the program's attachType"]),
    ] {
        apply(&node, attach_types);
        let accepted = node.condition_is("skb", "Accepted", "False");
        assert_eq!(accepted["reason"], reason, "{accepted}");
        let message = accepted["message"].as_str().unwrap();
        words.iter().for_each(|word| assert!(message.contains(word), "nothing of {word:?} in: {message}"));
        assert_eq!(attached(&node), before);
        assert_eq!(seen_of(&node, 2), [0, 2]);
    }
    node.remove("skb");
    node.nothing_left();
}
