//! One example for each program type, from deploy/examples/types, applied as it is: what it does is seen from a pod's cgroup,
//! before it is applied, while it is attached, and once it is removed.
//!
//! Whatever acts does so in a network namespace of its own, where there is nothing but loopback.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, ipproto, sockopt},
    process::Uid,
    thread::set_thread_res_uid,
};

use sockeye_agent::kernel::probe::Probe;
use sockeye_ebpf::programs::types;

use crate::node::{Node, text};

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../deploy/examples/types/", $name, ".yaml")))
    };
}
pub(crate) use example;

/// What is done, and what is seen without the program and with it.
type Act = (&'static str, &'static str, &'static str);

/// Where pods are, below the node's cgroup root.
pub const PODS: &str = "kubepods";

/// A node with the example's program attached, where every act was seen without it and then with it.
fn seen((name, manifest): (&str, &str), acts: &[Act]) -> Node {
    let mut node = Node::new(name);
    node.make_cgroup(PODS);
    for (act, without, _) in acts {
        assert_eq!(see(&node, act), *without, "{act}, without {name}");
    }
    node.start();
    node.apply_example(name, manifest);
    node.ready(name);
    for (act, _, with) in acts {
        assert_eq!(see(&node, act), *with, "{act}, with {name}");
    }
    node
}

/// Removed, it has no effect any more, and leaves nothing.
fn unseen(node: &Node, name: &str, acts: &[Act]) {
    node.remove(name);
    for (act, without, _) in acts {
        assert_eq!(see(node, act), *without, "{act}, once {name} is removed");
    }
    node.nothing_left();
}

/// What an example's source compiles to.
pub fn object(name: &str) -> &'static [u8] {
    types::ALL.iter().find(|(of, _)| *of == name).unwrap().1
}

/// What an act comes to in a pod's cgroup.
pub fn see(node: &Node, act: &str) -> String {
    let done = actor(node, act).output().unwrap();
    let said = text(&done);
    let saw = said.lines().find_map(|line| line.strip_prefix("saw "));
    saw.unwrap_or_else(|| panic!("{act}: {said}")).to_owned()
}

/// The process that acts.
pub fn actor(node: &Node, act: &str) -> Command {
    let procs = node.cgroup().join(PODS).join("cgroup.procs");
    let script =
        format!("echo $$ >{} && ip link set lo up && exec \"$0\" --exact types::actor_of --nocapture", procs.display());
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap());
    command.env("ACT", act).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Acts as ACT says, and prints what it saw: what [`actor`] runs. A test of nothing by itself.
#[test]
fn actor_of() {
    let Ok(act) = std::env::var("ACT") else { return };
    let (act, argument) = act.split_once(' ').unwrap_or((&act, ""));
    let saw = match act {
        "open" => File::open(argument).map(|_| "opened".to_owned()),
        "write" => write_back(argument),
        "ttl" => ttl(),
        "buffer" => buffer(argument.parse().unwrap()),
        "tos" => tos(),
        "raw" => rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
            .map(|_| "created".to_owned())
            .map_err(io::Error::from),
        "bind" => TcpListener::bind(argument).map(|_| "bound".to_owned()),
        "connect" => connect(argument),
        "query" => query(argument),
        "listen" => listen(argument),
        "discard" => datagram(argument),
        "unix" => unix(argument),
        "messages" => messages(),
        "echo" => echo(),
        "speak" => speak(),
        "long" => crate::maps_attached::long(),
        _ => panic!("{act}"),
    };
    println!("\nsaw {}", saw.unwrap_or_else(|error| word(&error)));
}

/// An error in one word.
pub fn word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "refused".to_owned(),
        io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "silence".to_owned(),
        _ => error.to_string(),
    }
}

/// Long enough for what comes over loopback.
const SHORT: Duration = Duration::from_millis(500);

/// The table's column of capabilities, all types at once: without CAP_PERFMON, and without any other.
#[test]
fn every_type_is_attached_with_two_capabilities() {
    let mut node = Node::new("two-capabilities");
    node.make_cgroup(PODS);
    // The verifiers of older kernels, here told by what else they lack, refuse some of these without PERFMON.
    let two = if Probe::ask().has.contains("VerifierLogEnd") {
        "-all,+bpf,+net_admin"
    } else {
        "-all,+bpf,+net_admin,+perfmon"
    };
    node.start_as(&["--bounding-set", two], &[]);
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    let unix = example!("cgroup-sock-addr-unix");
    let all = [
        example!("cgroup-device"),
        example!("cgroup-skb"),
        example!("cgroup-sock"),
        example!("cgroup-sock-addr"),
        example!("cgroup-sockopt"),
        example!("cgroup-sysctl"),
        example!("sk-msg"),
        example!("sk-skb"),
    ];
    let all: Vec<_> = all.into_iter().chain(node.has("CgroupUnixConnect").then_some(unix)).collect();
    for (name, manifest) in &all {
        node.apply_example(name, manifest);
    }
    for (name, _) in &all {
        node.ready(name);
    }
    for (name, _) in &all {
        node.remove(name);
    }
    node.nothing_left();
}

#[test]
fn a_device_that_can_not_be_opened() {
    let example = example!("cgroup-device");
    let acts = [("open /dev/full", "opened", "refused"), ("open /dev/zero", "opened", "opened")];
    let mut node = seen(example, &acts);
    let accepted = node.condition(example.0, "Accepted")["message"].as_str().unwrap().to_owned();
    assert!(accepted.contains("container runtimes"), "{accepted}");

    // As a runtime has one at a container's cgroup: it is said where an agent next looks at all that is there.
    let (container, theirs) = (node.cgroup().join(PODS).join("container").display().to_string(), "/sys/fs/bpf/theirs");
    node.make_cgroup("kubepods/container");
    node.foreign_program(object(example.0), theirs);
    node.run("bpftool", &["cgroup", "attach", &container, "device", "pinned", theirs, "multi"]);
    node.stop("TERM");
    node.start();
    let id = node.bpftool(&["prog", "show", "pinned", theirs])["id"].clone();
    node.until("the note", |node| {
        node.details(example.0)["notes"].to_string().contains(&format!("program {id} at /kubepods/container"))
    });
    node.run("bpftool", &["cgroup", "detach", &container, "device", "pinned", theirs]);
    unseen(&node, example.0, &acts);
}

#[test]
fn a_sysctl_that_can_not_be_written() {
    let example = example!("cgroup-sysctl");
    let acts = [
        ("write /proc/sys/net/ipv4/ip_forward", "written", "refused"),
        ("open /proc/sys/net/ipv4/ip_forward", "opened", "opened"),
    ];
    unseen(&seen(example, &acts), example.0, &acts);
}

/// Writes what is there.
fn write_back(path: &str) -> io::Result<String> {
    let value = fs::read_to_string(path)?;
    fs::write(path, value).map(|()| "written".to_owned())
}

#[test]
fn socket_options_that_are_changed_refused_and_hidden() {
    let example = example!("cgroup-sockopt");
    let acts = [
        ("ttl", "7", "64"),
        ("buffer 4194304", "taken", "refused"),
        ("buffer 65536", "taken", "taken"),
        ("tos", "16", "0"),
    ];
    unseen(&seen(example, &acts), example.0, &acts);
}

fn ttl() -> io::Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_ttl(7)?;
    Ok(socket.ttl()?.to_string())
}

fn buffer(bytes: usize) -> io::Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    Ok(sockopt::set_socket_recv_buffer_size(&socket, bytes).map(|()| "taken".to_owned())?)
}

fn tos() -> io::Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    sockopt::set_ip_tos(&socket, 16)?;
    Ok(sockopt::ip_tos(&socket)?.to_string())
}

#[test]
fn sockets_that_are_not_created_and_ports_that_are_not_given() {
    let example = example!("cgroup-sock");
    let acts = [
        ("raw", "created", "refused"),
        ("bind 127.0.0.1:4200", "bound", "refused"),
        ("bind [::1]:4200", "bound", "refused"),
        ("bind 127.0.0.1:4199", "bound", "bound"),
    ];
    let node = seen(example, &acts);
    let sockets = node.counts(&["pinned", &format!("{}/maps/sockets", node.home(example.0))]);
    assert!(sockets[0] >= 3 && sockets[1] >= 3, "created and released: {sockets:?}");
    unseen(&node, example.0, &acts);
}

#[test]
fn addresses_that_are_led_elsewhere_and_back() {
    let example = example!("cgroup-sock-addr");
    let acts = [
        ("connect 192.0.2.1:4210", "unreachable", "answered by 192.0.2.1:4210"),
        ("connect [2001:db8::1]:4210", "unreachable", "answered by [2001:db8::1]:4210"),
        ("connect 192.0.2.1:25", "unreachable", "refused"),
        ("connect [2001:db8::1]:25", "unreachable", "refused"),
        ("query 192.0.2.1:4211", "unreachable", "answered by 192.0.2.1:4211"),
        ("query [2001:db8::1]:4211", "unreachable", "answered by [2001:db8::1]:4211"),
        ("query 192.0.2.1:25", "unreachable", "refused"),
        ("listen 127.0.0.1:4201", "told 4201, 4202 is free", "told 4201, 4202 is taken"),
        ("listen [::1]:4201", "told 4201, 4202 is free", "told 4201, 4202 is taken"),
    ];
    unseen(&seen(example, &acts), example.0, &acts);
}

/// The loopback address of the same kind, with the same port.
fn loopback(service: SocketAddr) -> SocketAddr {
    let ip = if service.is_ipv4() { "127.0.0.1" } else { "::1" };
    SocketAddr::new(ip.parse().unwrap(), service.port())
}

/// Connects; where someone answers, the service does.
fn connect(service: &str) -> io::Result<String> {
    let service = service.parse().unwrap();
    let listener = TcpListener::bind(loopback(service))?;
    let mut client = TcpStream::connect(service)?;
    let (mut server, _) = listener.accept()?;
    server.write_all(b"x")?;
    client.read_exact(&mut [0])?;
    Ok(format!("answered by {}", client.peer_addr()?))
}

/// Asks by a datagram.
fn query(service: &str) -> io::Result<String> {
    let service: SocketAddr = service.parse().unwrap();
    let here = loopback(service);
    let server = UdpSocket::bind(here)?;
    let client = UdpSocket::bind(SocketAddr::new(
        if here.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() },
        0,
    ))?;
    client.set_read_timeout(Some(SHORT))?;
    client.send_to(b"?", service)?;
    let (_, from) = server.recv_from(&mut [0])?;
    server.send_to(b"!", from)?;
    let (_, by) = client.recv_from(&mut [0])?;
    Ok(format!("answered by {by}"))
}

/// Binds a port: which it is told, and whether the next one is taken.
fn listen(address: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address)?;
    let next = SocketAddr::new(listener.local_addr()?.ip(), 4202);
    let taken = if TcpListener::bind(next).is_ok() { "free" } else { "taken" };
    Ok(format!("told {}, 4202 is {taken}", listener.local_addr()?.port()))
}

#[test]
fn packets_that_are_counted_and_dropped() {
    let example = example!("cgroup-skb");
    let acts = [("discard 127.0.0.1:9", "received", "silence"), ("discard 127.0.0.1:10", "received", "received")];
    let node = seen(example, &acts);
    let traffic = node.bpftool(&["map", "dump", "pinned", &format!("{}/maps/traffic", node.home(example.0))]);
    let packets = |way: usize| traffic[way]["formatted"]["value"]["packets"].as_u64().unwrap_or_default();
    assert_eq!([packets(0), packets(1)], [2, 2], "in and out: {traffic}");
    unseen(&node, example.0, &acts);
}

fn datagram(to: &str) -> io::Result<String> {
    let server = UdpSocket::bind(to)?;
    server.set_read_timeout(Some(SHORT))?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", to)?;
    server.recv_from(&mut [0]).map(|_| "received".to_owned())
}

/// On a kernel that has it; elsewhere it is refused by its name, and nothing is loaded.
#[test]
fn unix_sockets_that_nobody_reaches() {
    let example = example!("cgroup-sock-addr-unix");
    let acts = [
        ("unix root", "connected, sent, told", "connected, sent, told"),
        ("unix nobody", "connected, sent, told", "refused, refused, told"),
    ];
    let mut node = Node::new(example.0);
    node.make_cgroup(PODS);
    node.start();
    node.until("what the kernel has", |node| node.node_status()["node"]["kernelRelease"].is_string());
    if !node.has("CgroupUnixConnect") {
        node.apply_example(example.0, example.1);
        let ready = node.condition_is(example.0, "Ready", "False");
        assert_eq!(ready["reason"], "KernelUnsupported", "{ready}");
        assert!(ready["message"].as_str().unwrap().contains("cgroup_unix_connect"), "{ready}");
        return;
    }
    drop(node);
    let node = seen(example, &acts);
    let told = node.counts(&["pinned", &format!("{}/maps/told", node.home(example.0))]);
    assert!(told.iter().all(|count| *count >= 1), "{told:?}");
    unseen(&node, example.0, &acts);
}

fn unix(user: &str) -> io::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (listener, receiver) = (UnixListener::bind(path("stream"))?, UnixDatagram::bind(path("datagram"))?);
    let sender = UnixDatagram::bind(path("sender"))?;
    for open in ["", "stream", "datagram"] {
        fs::set_permissions(path(open), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    }
    let uid = Uid::from_raw(if user == "nobody" { 65534 } else { 0 });
    set_thread_res_uid(uid, uid, Uid::ROOT)?;
    let stream = UnixStream::connect(path("stream"));
    let sent = sender.send_to(b"x", path("datagram"));
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // Whoever may send, the calls that tell addresses are made.
    sender.connect(path("datagram"))?;
    sender.send(b"y")?;
    receiver.recv_from(&mut [0])?;
    let peer = UnixStream::connect(listener.local_addr()?.as_pathname().unwrap())?;
    let told = peer.peer_addr()?.as_pathname().is_some();
    let did = |done: Result<&'static str, io::Error>| done.map_or_else(|error| word(&error), str::to_owned);
    let (stream, sent) = (did(stream.map(|_| "connected")), did(sent.map(|_| "sent")));
    Ok(format!("{stream}, {sent}, {}", if told { "told" } else { "untold" }))
}

#[test]
fn messages_that_go_past_tcp() {
    let example = example!("sk-msg");
    let acts = [("speak", "heard 10 of 10", "heard 10 of 10")];
    let node = seen(example, &acts);
    let redirected = node.counts(&["pinned", &format!("{}/maps/redirected", node.home(example.0))]);
    assert_eq!(redirected, [10], "each went past TCP");
    unseen(&node, example.0, &acts);
}

fn speak() -> io::Result<String> {
    let (mut client, mut server) = pair(0)?;
    let mut heard = 0;
    for _ in 0..10 {
        client.write_all(b"words")?;
        let mut words = [0; 5];
        server.read_exact(&mut words)?;
        heard += i32::from(&words == b"words");
    }
    Ok(format!("heard {heard} of 10"))
}

#[test]
fn streams_that_are_parsed_and_answered() {
    let example = example!("sk-skb");
    let acts = [("messages", "3abc2!x5hello", "3abc5hello"), ("echo", "silence", "hello")];
    let node = seen(example, &acts);
    let messages = node.counts(&["pinned", &format!("{}/maps/messages", node.home(example.0))]);
    assert_eq!(messages, [2, 1], "passed and dropped");
    unseen(&node, example.0, &acts);
}

/// Three messages, two of them in pieces.
fn messages() -> io::Result<String> {
    let (mut client, mut server) = pair(4203)?;
    for piece in [&b"\x03a"[..], b"bc", b"\x02!x", b"\x05hel", b"lo"] {
        client.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = server.read(&mut bytes) {
        let shown =
            bytes[..count].iter().map(|byte| if *byte < 10 { char::from(b'0' + byte) } else { char::from(*byte) });
        text.extend(shown);
    }
    Ok(text)
}

fn echo() -> io::Result<String> {
    let (mut client, _server) = pair(4204)?;
    client.write_all(b"hello")?;
    let mut answer = [0; 5];
    client.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Both ends of a connection over loopback; nobody waits on either for long.
pub fn pair(port: u16) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_read_timeout(Some(SHORT))?;
    server.set_read_timeout(Some(SHORT))?;
    Ok((client, server))
}
