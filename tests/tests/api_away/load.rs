//! `Load`: a process that connects steadily within a cgroup, and counts its connections.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// The time between two connections.
const PACE: Duration = Duration::from_millis(10);
/// The variable that tells a child to connect until its input ends.
const STEADY: &str = "SOCKEYE_STEADY_LOAD";

/// The process; it ends with the test, even if that fails.
pub struct Load(Child);

impl Load {
    /// Starts the process. Both ends of its connections are in the cgroup: a socket belongs to the cgroup that created
    /// it.
    pub fn start(cgroup: &Path) -> Result<Self> {
        let script =
            format!("echo $$ >{}/cgroup.procs && exec \"$0\" --exact load::steady --nocapture", cgroup.display());
        let mut child = Command::new("sh");
        child.args(["-c", &script]).arg(std::env::current_exe()?).env(STEADY, "1");
        Ok(Self(child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// Ends the process, and returns the number of connections.
    pub fn stop(mut self) -> Result<u64> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().context("no output")?.read_to_string(&mut said)?;
        ensure!(self.0.wait()?.success(), "{said}");
        let made = said.lines().find_map(|line| line.strip_prefix("made ")).context("no count")?;
        Ok(made.parse()?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs in the cgroup. As a test of its own it makes one connection.
#[test]
fn steady() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if std::env::var_os(STEADY).is_some() {
        thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            DONE.store(true, Ordering::Relaxed);
        });
    } else {
        DONE.store(true, Ordering::Relaxed);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut made = 0;
    loop {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        made += 1;
        if DONE.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(PACE);
    }
    println!("\nmade {made}");
}
