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

    /// Starts an agent with a fault (see the agent's kernel/fault.rs).
    pub fn start_faulty(&mut self, fault: &str) {
        self.spawn(self.standalone(&[]).env("SOCKEYE_FAULT", fault));
    }

    /// Starts an agent with these arguments of setpriv and of its own.
    pub fn start_as(&mut self, privileges: &[&str], arguments: &[&str]) {
        self.spawn(self.standalone(privileges).args(arguments));
    }

    /// Starts an agent as in a cluster, on the node of that name. The kubeconfig names the API server and the user.
    pub fn start_in_cluster(&mut self, kubeconfig: &Path, node_name: &str) {
        self.start_in_cluster_faulty(kubeconfig, node_name, "");
    }

    /// Starts an agent as in a cluster, with a fault.
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

    /// Returns a command that runs the agent's binary in the node.
    fn command(&self, privileges: &[&str], verb: &str) -> Command {
        let mut command = self.inside("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(privileges).arg(agent_path()).arg(verb);
        command.arg("--cgroup-root").arg(&self.cgroup);
        command
    }

    fn standalone(&self, privileges: &[&str]) -> Command {
        let mut command = self.command(privileges, "standalone");
        // At this level the agent logs each attempt, so that tests can count them.
        command.env("RUST_LOG", "info,sockeye_agent::control=debug");
        command.arg("--manifests").arg(&self.folder).args(["--node-name", "test"]);
        command
    }

    /// Runs one pass in a process of its own, with or without a fault (see the agent's kernel/fault.rs).
    pub fn once(&self, fault: Option<&str>) -> Output {
        self.once_with(fault, &[])
    }

    /// Runs one pass with these arguments of the agent's.
    pub fn once_with(&self, fault: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = self.standalone(&[]);
        command.args(arguments).arg("--once").envs(fault.map(|fault| ("SOCKEYE_FAULT", fault)));
        command.output().unwrap()
    }

    /// Runs a command of the agent's binary that must succeed, and returns its output.
    pub fn agent_command(&self, verb: &str, arguments: &[&str]) -> String {
        let done = self.command(&[], verb).args(arguments).output().unwrap();
        assert!(done.status.success(), "{verb}: {}", text(&done));
        text(&done)
    }

    /// Runs a command of the agent's binary that must fail, and returns its output.
    pub fn failing_agent_command(&self, verb: &str, arguments: &[&str]) -> String {
        let done = self.command(&[], verb).args(arguments).output().unwrap();
        assert!(!done.status.success(), "{verb}: {}", text(&done));
        text(&done)
    }

    /// Starts `sockeye-agent audit` with its output piped.
    pub fn audit(&self, program: &str, arguments: &[&str]) -> Child {
        self.command(&[], "audit").arg(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap()
    }

    pub fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.agent.take().unwrap().wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Returns the ID of the agent's process, which must run.
    pub fn process(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Returns whether the agent has exited by itself.
    pub fn has_ended(&self) -> bool {
        self.is(") Z ")
    }

    /// Returns whether a signal has stopped the agent.
    pub fn is_stopped(&self) -> bool {
        self.is(") T ")
    }

    /// Returns whether its process is in a state, as proc(5) writes it.
    fn is(&self, state: &str) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.process())).unwrap().contains(state)
    }

    /// Returns the peak of the agent's memory.
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

/// Returns the path of the agent: the one in SOCKEYE_AGENT, or the one that was built beside the tests.
pub fn agent_path() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("sockeye-agent");
    std::env::var_os("SOCKEYE_AGENT").map_or_else(beside, PathBuf::from)
}
