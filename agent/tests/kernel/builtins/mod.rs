//! The programs that ship with sockeye, each with its effect on real connections.

mod audit;
mod guard;
mod redirect;
mod rtt;
mod tune;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Child,
    thread,
};

use serde_json::{Value, json};
use sockeye_crds::Builtin;
use sockeye_ebpf::programs::builtin;

use crate::node::{Node, text};

/// Returns `spec.programs` with these, attached to the node's cgroup.
fn on_node(programs: &[&str]) -> Value {
    let attach = json!([{"type": "Node"}]);
    json!(programs.iter().map(|name| json!({"name": name, "attach": attach})).collect::<Vec<_>>())
}

/// Applies a builtin under its own name, and waits until it is in effect.
fn apply(node: &Node, name: Builtin, programs: &[&str]) {
    apply_with(node, name, programs, json!({}));
}

/// Applies a builtin with other values of its globals.
fn apply_with(node: &Node, name: Builtin, programs: &[&str], globals: Value) {
    // Only sock-redirect has sockets join a map.
    let accepted = json!(["SockmapFIONREAD"]);
    let spec = json!({"programs": on_node(programs), "globals": globals, "acceptedRegressions": accepted});
    node.apply_from(&name.to_string(), json!({"builtin": name}), spec);
    node.ready(&name.to_string());
}

/// Makes the cgroups of pod shop/web-0 and of its container app. Returns the path of a list of pods, and the
/// container's cgroup below the node's.
fn add_pod(node: &Node) -> (String, String) {
    let (uid, container) = ("0000002a-0000-4000-8000-000000000000", "c".repeat(64));
    let status = json!({
        "name": "app", "containerID": format!("containerd://{container}"), "image": "", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}},
    });
    let pod = json!({
        "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", "uid": uid},
        "status": {"containerStatuses": [status]},
    });
    let pods = node.folder().join("pods.json");
    std::fs::write(&pods, json!({"items": [pod]}).to_string()).unwrap();
    let cgroup = format!("kubepods/burstable/pod{uid}/{container}");
    std::fs::create_dir_all(node.cgroup().join(&cgroup)).unwrap();
    (pods.display().to_string(), cgroup)
}

/// Returns what a job printed. The job must succeed.
fn result_of(job: Child) -> Value {
    let done = job.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    let output = text(&done);
    let line = output.lines().find_map(|line| line.strip_prefix("result ")).unwrap_or_else(|| panic!("{output}"));
    serde_json::from_str(line).unwrap()
}

/// Prints the result of a job.
fn print_result(value: &Value) {
    println!("\nresult {value}");
}

/// Lets a waiting job continue.
fn continue_job(node: &Node) {
    std::fs::write(node.folder().join("go"), "").unwrap();
}

/// Waits in a job until the test lets it continue.
fn wait_for_go() {
    println!("\nwaiting");
    let file = PathBuf::from(std::env::var_os("FOLDER").unwrap()).join("go");
    while !file.exists() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Starts an echo server for as long as the test process lives, and returns its port.
fn echo(address: &str) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    port
}

/// Tries to reach a destination, and returns the outcome: `tcp` connects, `udp` connects a socket, `send` sends
/// unconnected.
fn reach(how: &str, to: SocketAddr) -> String {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let done = match how {
        "tcp" => TcpStream::connect(to).map(drop),
        "udp" => UdpSocket::bind(any).and_then(|socket| socket.connect(to)),
        _ => UdpSocket::bind(any).and_then(|socket| socket.send_to(b"x", to)).map(drop),
    };
    done.map_or_else(|error| format!("{:?}", error.kind()), |()| "ok".to_owned())
}

/// Reaches for each destination in DESTINATIONS ("tcp 127.0.0.1:80, udp ..."), and prints the outcomes.
#[test]
#[ignore = "a job of the tests in this file"]
fn reaches() {
    let destinations = std::env::var("DESTINATIONS").unwrap();
    let results: Vec<String> = destinations
        .split(", ")
        .map(|destination| {
            let (how, to) = destination.split_once(' ').unwrap();
            reach(how, to.parse().unwrap())
        })
        .collect();
    print_result(&json!({"pid": std::process::id(), "results": results}));
}

/// Runs [`reaches`] in a cgroup below the node's.
fn reach_from(node: &Node, cgroup: &str, destinations: &[String]) -> Value {
    result_of(node.job(cgroup, "builtins::reaches").env("DESTINATIONS", destinations.join(", ")).spawn().unwrap())
}

/// Returns the ID of a cgroup below the node's: the inode number of its directory.
fn cgroup_id(node: &Node, cgroup: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(node.cgroup().join(cgroup)).unwrap().ino()
}

/// Every builtin is loaded as it ships, with all its programs that attach to cgroups, and tcp-events counts.
#[test]
fn every_builtin_loads_by_its_name() {
    let mut node = Node::new("builtin");
    node.start();
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    for name in Builtin::ALL {
        if name == Builtin::SockRedirect && redirect::refuses(&node) {
            continue;
        }
        let object = sockeye_ebpf::Object::read(builtin(name)).unwrap();
        let on_cgroups = object.programs().filter(|(_, section)| *section != "sk_msg");
        let programs: Vec<&str> = on_cgroups.map(|(name, _)| name).collect();
        apply(&node, name, &programs);
        let status = node.program(&name.to_string());
        assert_eq!(status["spec"]["bytecode"], json!({"builtin": name}), "the manifest's own field");
        assert_eq!(status["status"]["currentRevision"]["digest"], sockeye_crds::names::digest(builtin(name)));
        if name == Builtin::TcpEvents {
            node.connect(3);
            assert_eq!(node.events("tcp-events")[4], 3);
        }
        node.remove(&name.to_string());
    }
    node.nothing_left();
}
