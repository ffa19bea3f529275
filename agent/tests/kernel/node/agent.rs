//! The agent of a node: its processes and its log.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use super::{Node, text};

impl Node {
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    pub fn start_with(&mut self, arguments: &[&str]) {
        self.start_as(&[], arguments);
    }

    /// With a fault (see the agent's kernel/fault.rs).
    pub fn start_faulty(&mut self, fault: &str) {
        self.spawn(self.standalone(&[]).env("SOCKEYE_FAULT", fault));
    }

    /// With setpriv's own arguments before the agent's.
    pub fn start_as(&mut self, privileges: &[&str], arguments: &[&str]) {
        self.spawn(self.standalone(privileges).args(arguments));
    }

    /// As in a cluster, on the node of that name; the API server and who it is there are in a file.
    pub fn start_in_cluster(&mut self, kubeconfig: &Path, node_name: &str) {
        self.start_in_cluster_faulty(kubeconfig, node_name, "");
    }

    /// The same, with a fault.
    pub fn start_in_cluster_faulty(&mut self, kubeconfig: &Path, node_name: &str, fault: &str) {
        let mut command = self.command(&[], "run");
        command.env("KUBECONFIG", kubeconfig).env("SOCKEYE_FAULT", fault).args(["--node-name", node_name]);
        self.spawn(command.args(["--namespace", "sockeye-system", "--health-port", "0"]));
    }

    fn spawn(&mut self, command: &mut Command) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("agent.log")).unwrap();
        let out = fs::File::options().create(true).append(true).open(self.folder.join("agent.out")).unwrap();
        self.agent = Some(command.stdout(out).stderr(log).spawn().unwrap());
    }

    /// The agent's binary, in the node, with its places.
    fn command(&self, privileges: &[&str], verb: &str) -> Command {
        let mut command = self.inside("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(privileges).arg(agent_path()).arg(verb);
        command.arg("--cgroup-root").arg(&self.cgroup);
        command
    }

    fn standalone(&self, privileges: &[&str]) -> Command {
        let mut command = self.command(privileges, "standalone");
        // Each attempt is said, so that tests can count them.
        command.env("RUST_LOG", "info,sockeye_agent::control=debug");
        command.arg("--manifests").arg(&self.folder).args(["--node-name", "test"]);
        command
    }

    /// Takes one pass in a process of its own, with a fault (see the agent's kernel/fault.rs) or without one.
    pub fn once(&self, fault: Option<&str>) -> Output {
        let mut command = self.standalone(&[]);
        command.arg("--once").envs(fault.map(|fault| ("SOCKEYE_FAULT", fault)));
        command.output().unwrap()
    }

    /// Another verb of the agent's, which must succeed.
    pub fn verb(&self, verb: &str, arguments: &[&str]) {
        let done = self.command(&[], verb).args(arguments).output().unwrap();
        assert!(done.status.success(), "{verb}: {}", text(&done));
    }

    /// One that must not; what it says.
    pub fn refuses(&self, verb: &str, arguments: &[&str]) -> String {
        let done = self.command(&[], verb).args(arguments).output().unwrap();
        assert!(!done.status.success(), "{verb}: {}", text(&done));
        text(&done)
    }

    /// `sockeye-agent audit`, whose output is piped.
    pub fn audit(&self, program: &str) -> Child {
        let mut command = self.inside("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(agent_path())
            .args(["audit", program])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.agent.take().unwrap().wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// The agent's process, which must be there.
    pub fn process(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Whether the agent has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.is(") Z ")
    }

    /// Whether a signal has stopped the agent.
    pub fn is_stopped(&self) -> bool {
        self.is(") T ")
    }

    /// Whether its process is in a state, as proc(5) writes it.
    fn is(&self, state: &str) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.process())).unwrap().contains(state)
    }

    /// The most memory that the agent had so far.
    pub fn peak_kib(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the agent has ended");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    pub fn forget_log(&self) {
        fs::write(self.folder.join("agent.log"), "").unwrap();
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("agent.out")).unwrap_or_default()
    }
}

/// The agent that was built beside the tests, whichever package's they are, wherever the two have been put since.
fn agent_path() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("sockeye-agent");
    std::env::var_os("SOCKEYE_AGENT").map_or_else(beside, PathBuf::from)
}
