//! Acts whose outcomes show the effect of a program, such as to open a file or to connect. Each runs in a process of
//! its own, in a pod's cgroup.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, ipproto, sockopt},
    process::Uid,
    thread::set_thread_res_uid,
};

use crate::node::timeout;

/// The job of [`super::actor`]: does the act that ACT names, and prints its outcome. No test by itself.
#[test]
fn actor() {
    let Ok(act) = std::env::var("ACT") else { return };
    let (act, argument) = act.split_once(' ').unwrap_or((&act, ""));
    let outcome = match act {
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
        "long" => long_connection(),
        _ => panic!("{act}"),
    };
    println!("\noutcome {}", outcome.unwrap_or_else(|error| error_word(&error)));
}

/// Returns an error in one word.
fn error_word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "refused".to_owned(),
        io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "silence".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns a timeout that is long enough for loopback.
fn short() -> Duration {
    timeout() / 40
}

/// Writes the current contents of a file back.
fn write_back(path: &str) -> io::Result<String> {
    let value = fs::read_to_string(path)?;
    fs::write(path, value).map(|()| "written".to_owned())
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

/// Returns the loopback address of the same family, with the same port.
fn loopback(service: SocketAddr) -> SocketAddr {
    let ip = if service.is_ipv4() { "127.0.0.1" } else { "::1" };
    SocketAddr::new(ip.parse().unwrap(), service.port())
}

/// Connects to a service, for which a listener on loopback answers.
fn connect(service: &str) -> io::Result<String> {
    let service = service.parse().unwrap();
    let listener = TcpListener::bind(loopback(service))?;
    let mut client = TcpStream::connect(service)?;
    let (mut server, _) = listener.accept()?;
    server.write_all(b"x")?;
    client.read_exact(&mut [0])?;
    Ok(format!("answered by {}", client.peer_addr()?))
}

/// Sends a datagram to a service, for which a socket on loopback answers.
fn query(service: &str) -> io::Result<String> {
    let service: SocketAddr = service.parse().unwrap();
    let local = loopback(service);
    let server = UdpSocket::bind(local)?;
    let client = UdpSocket::bind(SocketAddr::new(
        if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() },
        0,
    ))?;
    client.set_read_timeout(Some(short()))?;
    client.send_to(b"?", service)?;
    let (_, from) = server.recv_from(&mut [0])?;
    server.send_to(b"!", from)?;
    let (_, by) = client.recv_from(&mut [0])?;
    Ok(format!("answered by {by}"))
}

/// Binds a port, and returns the port that getsockname reports and whether the next one is taken.
fn listen(address: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address)?;
    let next = SocketAddr::new(listener.local_addr()?.ip(), 4202);
    let taken = if TcpListener::bind(next).is_ok() { "free" } else { "taken" };
    Ok(format!("port {}, 4202 is {taken}", listener.local_addr()?.port()))
}

fn datagram(to: &str) -> io::Result<String> {
    let server = UdpSocket::bind(to)?;
    server.set_read_timeout(Some(short()))?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", to)?;
    server.recv_from(&mut [0]).map(|_| "received".to_owned())
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
    // The calls that return addresses are made for any user.
    sender.connect(path("datagram"))?;
    sender.send(b"y")?;
    receiver.recv_from(&mut [0])?;
    let peer = UnixStream::connect(listener.local_addr()?.as_pathname().unwrap())?;
    let is_named = peer.peer_addr()?.as_pathname().is_some();
    let did = |done: Result<&'static str, io::Error>| done.map_or_else(|error| error_word(&error), str::to_owned);
    let (stream, sent) = (did(stream.map(|_| "connected")), did(sent.map(|_| "sent")));
    Ok(format!("{stream}, {sent}, {}", if is_named { "named" } else { "unnamed" }))
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

/// Sends three messages, two of them in pieces, and returns what arrives.
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

/// Returns both ends of a connection over loopback, with short timeouts.
fn pair(port: u16) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_read_timeout(Some(short()))?;
    server.set_read_timeout(Some(short()))?;
    Ok((client, server))
}

/// Sends over one connection for each line that it reads.
fn long_connection() -> io::Result<String> {
    let (mut client, mut server) = pair(0)?;
    println!("\nready");
    for _ in io::stdin().lines() {
        client.write_all(b"word")?;
        server.read_exact(&mut [0; 4])?;
        println!("spoke");
    }
    Ok(String::new())
}
