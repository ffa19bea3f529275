//! TCP connections in the cgroups of a node.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Node, text};

impl Node {
    /// Makes TCP connections on loopback, both ends in the node's cgroup: a socket belongs to the cgroup that created
    /// it.
    pub fn connect(&self, count: usize) {
        let done = self.connector(count).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }

    /// Makes connections in several cgroups below the node's while `work` runs, at least `least` in each, and returns
    /// their numbers.
    pub fn connect_during<const N: usize>(&self, cgroups: [&str; N], least: usize, work: impl FnOnce()) -> [u64; N] {
        let file = self.folder.join(".done");
        let connect = |cgroup| self.connector_in(cgroup, least).env("UNTIL", &file).spawn().unwrap();
        let connectors = cgroups.map(connect);
        work();
        fs::write(&file, "").unwrap();
        let made = connectors.map(|connector| {
            let done = connector.wait_with_output().unwrap();
            assert!(done.status.success(), "{}", text(&done));
            let output = text(&done);
            let made =
                output.lines().find_map(|line| line.strip_prefix("made ")?.strip_suffix(" connections")?.parse().ok());
            made.unwrap_or_else(|| panic!("{output}"))
        });
        fs::remove_file(file).unwrap();
        made
    }

    /// Makes `count` cgroups below another one, and in each moves a process there, which connects at once.
    pub fn connect_in_new_cgroups(&self, above: &Path, count: usize) {
        let done = self.connector(count).env("ABOVE", above).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }

    fn connector(&self, count: usize) -> Command {
        self.connector_in(".", count)
    }

    fn connector_in(&self, cgroup: &str, count: usize) -> Command {
        let mut command = self.job(cgroup, "node::connections::connector");
        command.env("CONNECTIONS", count.to_string());
        command
    }

    /// Returns a command that runs one of these tests in a process of its own, in a cgroup below the node's. Its
    /// sockets belong to that cgroup.
    pub fn job(&self, cgroup: &str, test: &str) -> Command {
        let procs = self.cgroup.join(cgroup).join("cgroup.procs");
        let script =
            format!("echo $$ >{} && exec \"$0\" --include-ignored --exact {test} --nocapture", procs.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The job of [`Node::connect`]: makes as many connections as CONNECTIONS says (default: one), and more until the file
/// that UNTIL names exists. If ABOVE names a cgroup, each connection is made from a new cgroup below it.
#[test]
fn connector() {
    let least: usize = std::env::var("CONNECTIONS").map_or(1, |count| count.parse().unwrap());
    let until = std::env::var_os("UNTIL").map(PathBuf::from);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let above = std::env::var_os("ABOVE").map(PathBuf::from);
    let mut made = 0;
    while made < least || until.as_ref().is_some_and(|file| !file.exists()) {
        if let Some(above) = &above {
            let new = above.join(format!("container-{made}"));
            fs::create_dir(&new).unwrap();
            fs::write(new.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        }
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        made += 1;
    }
    println!("\nmade {made} connections");
}
