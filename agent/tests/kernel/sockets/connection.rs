//! A TCP connection of a process in the node's cgroup, which does what the test orders.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
    time::Duration,
};

use crate::node::{Node, timeout};

/// The bytes that lie unread.
pub const UNREAD: i64 = 100;
/// Returns a time that is long enough for bytes on loopback, and for a receiver that waits in vain.
fn short() -> Duration {
    timeout() / 60
}

/// A connection whose two ends are sockets of one process in the node's cgroup.
pub struct Connection {
    job: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Connection {
    /// Makes a connection to a port of loopback; 0 is any.
    pub fn new(node: &Node, port: u16) -> Self {
        Self::within(node, ".", port)
    }

    /// Makes a connection of a process in a cgroup below the node's.
    pub fn within(node: &Node, cgroup: &str, port: u16) -> Self {
        let mut command = node.job(cgroup, "sockets::connection::connection");
        let mut job = command.env("PORT", port.to_string()).stdin(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (job.stdin.take().unwrap(), BufReader::new(job.stdout.take().unwrap()));
        let mut connection = Self { job, orders, answers };
        assert_eq!(connection.ask("made"), 0);
        connection
    }

    /// Gives an order, and returns the number of bytes that answers it.
    pub fn ask(&mut self, order: &str) -> i64 {
        writeln!(self.orders, "{order}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the job has ended before it answered {order}");
            if let Some(answer) = line.strip_prefix("said ") {
                return answer.trim().parse().unwrap();
            }
        }
    }

    /// Asserts that bytes pass from one end to the other.
    pub fn assert_passes(&mut self) {
        assert_eq!(self.ask("send"), UNREAD);
        assert_eq!(self.ask("read"), UNREAD, "what is sent is received");
    }

    pub fn close(mut self) {
        drop(self.orders);
        self.job.wait().unwrap();
    }
}

/// The job of [`Connection`]: `send` writes bytes to one end; `unread` asks FIONREAD of the other, and `read` reads
/// there.
#[test]
#[ignore = "a job of the tests in this file"]
fn connection() {
    let listener = TcpListener::bind(format!("127.0.0.1:{}", std::env::var("PORT").unwrap())).unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(short())).unwrap();
    for order in std::io::stdin().lines() {
        let answer = match order.unwrap().as_str() {
            "made" => 0,
            // A message of the example sk-skb: its length without the first byte, which says so.
            "send" => sender.write(&[UNREAD as u8 - 1; UNREAD as usize]).map_or(-1, |sent| sent as i64),
            "unread" => {
                thread::sleep(short());
                rustix::io::ioctl_fionread(&receiver).unwrap() as i64
            }
            "read" => {
                let (mut bytes, mut read) = ([0; 1000], 0);
                while let Ok(count @ 1..) = receiver.read(&mut bytes) {
                    read += count as i64;
                    if read >= UNREAD {
                        break;
                    }
                }
                read
            }
            order => panic!("{order}"),
        };
        println!("\nsaid {answer}");
    }
}
