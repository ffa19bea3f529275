//! A node for one test: a mount namespace with a bpffs, a cgroup, a folder of manifests, and an agent.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sockeye_agent::kernel::cgroup::Root;
use tempfile::TempDir;

pub struct Node {
    /// Keeps the mount namespace; ends when its input does, so with the test. Absent where the node is the machine itself.
    holder: Option<Child>,
    folder: PathBuf,
    /// Removes the folder, where it was made for this test.
    _made: Option<TempDir>,
    cgroup: PathBuf,
    agent: Option<Child>,
    /// How often each manifest was applied; it carries that number, and so does the status that is about it.
    applied: RefCell<BTreeMap<String, u32>>,
    /// The statuses that were read, as text and what it means.
    read: RefCell<BTreeMap<PathBuf, (String, Value)>>,
}

/// How long something may take to come about; longer where a processor is emulated (tests/kernels).
pub fn patience() -> Duration {
    let factor = std::env::var("SOCKEYE_PATIENCE").map_or(1, |factor| factor.parse().unwrap());
    Duration::from_secs(20) * factor
}

impl Node {
    pub fn new(name: &str) -> Self {
        let script = "mount -t bpf bpf /sys/fs/bpf && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        let made = tempfile::tempdir().unwrap();
        let mut node = Self::of_machine(name, made.path());
        node.holder = Some(holder);
        node._made = Some(made);
        node
    }

    /// The machine itself, with its own bpffs, and a folder that was there before and stays.
    pub fn of_machine(name: &str, folder: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests load into the kernel: run them as root");
        let root = Root::find(None).unwrap().path;
        sweep(&root);
        let cgroup = root.join(format!("sockeye-test-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Self {
            holder: None,
            folder: folder.to_owned(),
            _made: None,
            cgroup,
            agent: None,
            applied: RefCell::default(),
            read: RefCell::default(),
        }
    }

    fn inside(&self, program: &str) -> Command {
        let Some(holder) = &self.holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", holder.id())).arg("--").arg(program);
        command
    }

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

    pub fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.agent.take().unwrap().wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Applies a manifest of deploy/examples, as it is.
    pub fn apply_example(&self, name: &str, manifest: &str) -> u32 {
        let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
        self.apply_from(name, manifest["spec"]["bytecode"].clone(), manifest["spec"].clone())
    }

    /// Puts a manifest into the folder, in one step; gives its number.
    pub fn apply(&self, name: &str, object: &[u8], programs: Value, maps: Value) -> u32 {
        self.apply_spec(name, object, json!({"programs": programs, "maps": maps}))
    }

    /// The same, with any fields of the spec but the bytecode.
    pub fn apply_spec(&self, name: &str, object: &[u8], spec: Value) -> u32 {
        self.apply_from(name, json!({"inline": STANDARD.encode(object)}), spec)
    }

    /// The same, with any bytecode.
    pub fn apply_from(&self, name: &str, bytecode: Value, mut spec: Value) -> u32 {
        let applied = {
            let mut all = self.applied.borrow_mut();
            let applied = all.entry(name.to_owned()).or_default();
            *applied += 1;
            *applied
        };
        spec["bytecode"] = bytecode;
        let manifest = json!({
            "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
            "metadata": {"name": name, "annotations": {"applied": applied.to_string()}},
            "spec": spec,
        });
        let staged = self.folder.join(format!(".{name}"));
        fs::write(&staged, manifest.to_string()).unwrap();
        fs::rename(staged, self.manifest(name)).unwrap();
        applied
    }

    /// Takes a manifest away.
    pub fn withdraw(&self, name: &str) {
        fs::remove_file(self.manifest(name)).unwrap();
    }

    /// Takes a manifest away, and waits until the agent has done with it.
    pub fn remove(&self, name: &str) {
        self.withdraw(name);
        self.until("its end", |node| {
            let status = node.node_status();
            let named = status["programs"].as_array().is_some_and(|all| all.iter().any(|p| p["name"] == name));
            !named && !node.exists(&format!("{}/programs", node.home(name))) || node.is_retained(name)
        });
    }

    fn is_retained(&self, name: &str) -> bool {
        self.node_status()["retained"].as_array().is_some_and(|all| all.iter().any(|m| m["program"] == name))
            && self.pins(name).iter().all(|pin| pin.starts_with("maps/"))
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    fn status_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.status.yaml"))
    }

    pub fn program(&self, name: &str) -> Value {
        self.yaml(&self.status_file(name))
    }

    pub fn node_status(&self) -> Value {
        self.yaml(&self.folder.join("node.status.yaml"))["status"].clone()
    }

    /// What a file says; parsed again only where it says something else, since it is asked many times.
    fn yaml(&self, path: &Path) -> Value {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut read = self.read.borrow_mut();
        let (before, value) = read.entry(path.to_owned()).or_default();
        if *before != text {
            *value = serde_saphyr::from_str(&text).unwrap_or_default();
            *before = text;
        }
        value.clone()
    }

    pub fn details(&self, name: &str) -> Value {
        let all = self.node_status()["details"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|details| details["name"] == name).unwrap_or_default()
    }

    pub fn condition(&self, name: &str, type_: &str) -> Value {
        let all = self.program(name)["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }

    pub fn condition_is(&self, name: &str, type_: &str, status: &str) -> Value {
        self.until(&format!("{type_}={status}"), |node| {
            node.is_about(name) && node.condition(name, type_)["status"] == status
        });
        self.condition(name, type_)
    }

    /// Whether a status is about what was applied last.
    pub fn is_about(&self, name: &str) -> bool {
        let number = self.applied.borrow()[name].to_string();
        self.program(name)["metadata"]["annotations"]["applied"] == number.as_str()
    }

    /// Whether a manifest's status is about the one of that number.
    pub fn is_about_number(&self, name: &str, number: u32) -> bool {
        self.program(name)["metadata"]["annotations"]["applied"] == number.to_string().as_str()
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

    pub fn ready(&self, name: &str) -> Value {
        self.condition_is(name, "Ready", "True");
        self.program(name)
    }

    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > patience() {
                panic!("{what} did not come about; the agent's log:\n{}", self.log());
            }
            sleep(patience() / 400);
        }
    }

    /// Whether the agent says that the kernel has a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.node_status()["node"]["features"].as_array().is_some_and(|all| all.iter().any(|name| name == feature))
    }

    /// What the kernel says of the pins must be what the agent says; gives that.
    pub fn agrees(&self, name: &str) -> Value {
        let details = self.details(name);
        for (kind, ours) in [("prog", "programs"), ("map", "maps"), ("link", "links")] {
            let told = details[ours].as_array().unwrap();
            assert!(!told.is_empty(), "{details}");
            for object in told {
                assert_eq!(object["id"], self.bpftool(&[kind, "show", "pinned", &self.pin(object)])["id"], "{details}");
            }
        }
        details
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    pub fn forget_log(&self) {
        fs::write(self.folder.join("agent.log"), "").unwrap();
    }

    /// Runs a command in the node's mount namespace; it must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.inside(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{program} {arguments:?}: {}", text(&done));
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("agent.out")).unwrap_or_default()
    }

    pub const fn bpffs(&self) -> &'static str {
        "/sys/fs/bpf"
    }

    pub fn home(&self, name: &str) -> String {
        format!("{}/sockeye/{name}", self.bpffs())
    }

    pub fn pin(&self, object: &Value) -> String {
        object["pinPath"].as_str().unwrap().to_owned()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.seen(path).exists()
    }

    /// A path of the node's as this process sees it: most of a test's time goes by with looking, and a look is no new process.
    pub fn seen(&self, path: &str) -> PathBuf {
        let holder = self.holder.as_ref().map_or_else(|| "self".to_owned(), |holder| holder.id().to_string());
        PathBuf::from(format!("/proc/{holder}/root{path}"))
    }

    /// What is pinned below a BpfProgram's home, notes left out.
    pub fn pins(&self, name: &str) -> Vec<String> {
        let home = self.seen(&self.home(name));
        let found = Command::new("find").arg(&home).args(["-type", "f"]).output().unwrap();
        let relative = |pin: &str| Path::new(pin).strip_prefix(&home).unwrap().display().to_string();
        let mut pins: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(relative).collect();
        pins.sort();
        pins
    }

    /// The notes below a BpfProgram's home.
    pub fn notes(&self, name: &str) -> Vec<String> {
        let meta = self.seen(&format!("{}/_meta", self.home(name)));
        fs::read_dir(meta).into_iter().flatten().flatten().map(|e| e.file_name().into_string().unwrap()).collect()
    }

    pub fn bpftool(&self, args: &[&str]) -> Value {
        let shown = self.inside("bpftool").arg("--json").args(args).output().unwrap();
        assert!(shown.status.success(), "bpftool {args:?}: {}", text(&shown));
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// All objects of a kind on the machine. One that somebody is just making or ending has bpftool give up: it is asked again.
    pub fn bpftool_of_all(&self, kind: &str) -> Value {
        for _ in 0..50 {
            let shown = self.inside("bpftool").args(["--json", kind, "show"]).output().unwrap();
            if shown.status.success() {
                return serde_json::from_slice(&shown.stdout).unwrap();
            }
            sleep(Duration::from_millis(20));
        }
        self.bpftool(&[kind, "show"])
    }

    /// Whether bpftool finds what it is asked for.
    pub fn bpftool_succeeds(&self, args: &[&str]) -> bool {
        self.inside("bpftool").args(args).output().unwrap().status.success()
    }

    /// Pins the program of an object in the node, as somebody else would: nothing of it is the agent's.
    pub fn foreign_program(&self, object: &[u8], pin: &str) {
        let file = self.folder.join("foreign.o");
        fs::write(&file, object).unwrap();
        self.run("bpftool", &["prog", "load", &file.display().to_string(), pin]);
    }

    /// The counts of `my_map`, by event.
    pub fn events(&self, name: &str) -> Vec<u64> {
        self.counts(&["pinned", &format!("{}/maps/my_map", self.home(name))])
    }

    /// Those of a map that bpftool finds so.
    pub fn counts(&self, map: &[&str]) -> Vec<u64> {
        let dump = self.bpftool(&[&["map", "dump"], map].concat());
        let number = |bytes: &Value| {
            let bytes = bytes.as_array().unwrap().iter().rev();
            bytes.fold(0u64, |n, b| {
                n << 8 | u64::from_str_radix(b.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
            })
        };
        dump.as_array().unwrap().iter().map(|entry| number(&entry["value"])).collect()
    }

    pub fn make_cgroup(&self, name: &str) {
        fs::create_dir(self.cgroup.join(name)).unwrap();
    }

    /// Makes TCP connections on loopback, both ends in the node's cgroup: a socket belongs to the cgroup that created it.
    pub fn connect(&self, count: usize) {
        let done = self.connector(count).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }

    /// The same while something goes on, in some cgroups below the node's side by side, and at least so many in each; how many
    /// there were.
    pub fn connect_during<const N: usize>(&self, cgroups: [&str; N], least: usize, work: impl FnOnce()) -> [u64; N] {
        let file = self.folder.join(".done");
        let connect = |cgroup| self.connector_in(cgroup, least).env("UNTIL", &file).spawn().unwrap();
        let connectors = cgroups.map(connect);
        work();
        fs::write(&file, "").unwrap();
        let made = connectors.map(|connector| {
            let done = connector.wait_with_output().unwrap();
            assert!(done.status.success(), "{}", text(&done));
            let said = text(&done);
            let made =
                said.lines().find_map(|line| line.strip_prefix("made ")?.strip_suffix(" connections")?.parse().ok());
            made.unwrap_or_else(|| panic!("{said}"))
        });
        fs::remove_file(file).unwrap();
        made
    }

    /// Makes a cgroup below that one, moves a process there and connects at once, so often.
    pub fn connect_in_new_cgroups(&self, above: &Path, count: usize) {
        let done = self.connector(count).env("ABOVE", above).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }

    fn connector(&self, count: usize) -> Command {
        self.connector_in(".", count)
    }

    fn connector_in(&self, cgroup: &str, count: usize) -> Command {
        let mut command = self.job(cgroup, "node::connector");
        command.env("CONNECTIONS", count.to_string());
        command
    }

    /// One of these tests, in a process of its own, in a cgroup below the node's: what it opens belongs there.
    pub fn job(&self, cgroup: &str, test: &str) -> Command {
        let procs = self.cgroup.join(cgroup).join("cgroup.procs");
        let script =
            format!("echo $$ >{} && exec \"$0\" --include-ignored --exact {test} --nocapture", procs.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
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

    /// The entries of a map, as bpftool shows them by their BTF types: `key` and `value` of each.
    pub fn entries(&self, name: &str, map: &str) -> Vec<Value> {
        let dump = self.bpftool(&["map", "dump", "pinned", &format!("{}/maps/{map}", self.home(name))]);
        dump.as_array().unwrap().iter().map(|entry| entry["formatted"].clone()).collect()
    }

    /// Whatever the agent made is gone: pins, directories, links on the cgroup.
    pub fn nothing_left(&self) {
        self.until("an empty bpffs", |node| {
            let directory = node.seen(&format!("{}/sockeye", node.bpffs()));
            fs::read_dir(directory).map_or(true, |mut below| below.next().is_none())
        });
        assert_eq!(self.attached(), Vec::<Value>::new(), "still attached");
    }

    /// The IDs of the programs that are attached to the node's cgroup.
    pub fn attached(&self) -> Vec<Value> {
        self.attached_below(".")
    }

    /// The same of a cgroup below.
    pub fn attached_below(&self, path: &str) -> Vec<Value> {
        let cgroup = self.cgroup.join(path);
        let shown = self.inside("bpftool").args(["--json", "cgroup", "show"]).arg(cgroup).output().unwrap();
        let attached: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        attached.as_array().into_iter().flatten().map(|program| program["id"].clone()).collect()
    }
}

/// Whether tests are to take their long form (`make chaos`).
pub fn long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(mut holder) = self.holder.take() {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
        remove_cgroup(&self.cgroup);
    }
}

/// The agent that was built beside the tests, whichever package's they are, wherever the two have been put since.
fn agent_path() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("sockeye-agent");
    std::env::var_os("SOCKEYE_AGENT").map_or_else(beside, PathBuf::from)
}

/// What a killed run left: cgroups named after processes that are no more.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("sockeye-test-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            remove_cgroup(&entry.path());
        }
    }
}

fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Makes as many connections as CONNECTIONS says, one where it says nothing, and goes on until UNTIL, if it names a file, is
/// there: what [`Node::connect`] runs inside a cgroup. Where ABOVE names a cgroup, each is made from a new one below that.
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
