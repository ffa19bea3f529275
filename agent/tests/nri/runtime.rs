//! The agent's side against the runtime's own half of NRI: the code that containerd links, in a process of its own
//! (`tests/nri/main.go`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::{
    admission::nri::{RuntimeHook, Starting},
    model::start::Start,
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::Hook;

/// Returns whether the tests may take long.
fn long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// A runtime at a socket. It ends with its stdin, so with the test, however the test ends.
struct Runtime {
    child: Child,
    commands: ChildStdin,
    reports: mpsc::UnboundedReceiver<Value>,
}

impl Runtime {
    async fn at(socket: &Path, flags: &[&str]) -> Self {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/nri/build.sh");
            let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "tests/nri/build.sh: {}", output.status);
            String::from_utf8(output.stdout).unwrap().trim().into()
        });
        let mut runtime = Command::new(built);
        runtime.arg("-socket").arg(socket).args(flags);
        let mut child = runtime.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (commands, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let (send, reports) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _unheard = send.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut runtime = Self { child, commands, reports };
        runtime.result("listen", "").await;
        runtime
    }

    /// Has something happen to a pod, or to its only container.
    fn command(&mut self, action: &str, pod: &str) {
        let parent = format!("/kubepods/pod{pod}");
        let command = json!({
            "action": action,
            "pod": {
                "id": format!("sandbox-{pod}"), "name": pod, "uid": format!("uid-{pod}"), "namespace": "default",
                "labels": {"app": "web"}, "linux": {"cgroup_parent": parent},
            },
            "container": {
                "id": format!("container-{pod}"), "pod_sandbox_id": format!("sandbox-{pod}"), "name": "main",
                "linux": {"cgroups_path": format!("{parent}/container-{pod}")},
            },
        });
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Waits for a command's result: how long plugins held it, and their error.
    async fn result(&mut self, action: &str, pod: &str) -> (Duration, String) {
        let reported = timeout(Duration::from_secs(20), async {
            loop {
                let report = self.reports.recv().await.expect("the runtime ended");
                if report["action"] == action && report["pod"].as_str().unwrap_or_default() == pod {
                    return report;
                }
            }
        });
        let report = reported.await.unwrap_or_else(|_| panic!("no result of {action} {pod}"));
        let held = Duration::from_millis(report["heldMs"].as_u64().unwrap());
        (held, report["error"].as_str().unwrap_or_default().to_owned())
    }

    async fn run(&mut self, action: &str, pod: &str) -> (Duration, String) {
        self.command(action, pod);
        self.result(action, pod).await
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

async fn connected(flags: &[&str]) -> (TempDir, PathBuf, Runtime, Hook) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let runtime = Runtime::at(&socket, flags).await;
    let mut hook = Hook::at(&socket);
    hook.connected().await;
    (dir, socket, runtime, hook)
}

async fn next(hook: &mut Hook) -> Starting {
    timeout(Duration::from_secs(10), hook.starts.recv()).await.expect("asked").unwrap()
}

#[tokio::test]
async fn a_start_is_held_until_it_is_answered() {
    let (_dir, _, mut runtime, mut hook) = connected(&[]).await;
    for action in ["sandbox", "start"] {
        runtime.command(action, "a");
        let Starting { start: Start { pod, container }, answer } = next(&mut hook).await;
        assert_eq!((pod.uid.as_str(), pod.labels["app"].as_str()), ("uid-a", "web"));
        assert_eq!(container.is_some(), action == "start");
        sleep(Duration::from_millis(700)).await;
        answer.send(Ok(())).unwrap();
        let (held, error) = runtime.result(action, "a").await;
        assert!(held >= Duration::from_millis(690) && error.is_empty(), "{action}: {held:?} {error}");
    }
    for action in ["create", "post", "stop"] {
        assert_eq!(runtime.run(action, "a").await.1, "", "{action}");
        assert!(hook.starts.try_recv().is_err(), "asked about {action}");
    }
}

#[tokio::test]
async fn a_refusal_fails_the_start_with_its_words() {
    let (_dir, _, mut runtime, mut hook) = connected(&[]).await;
    runtime.command("start", "a");
    next(&mut hook).await.answer.send(Err("program x does not load".to_owned())).unwrap();
    let (_, error) = runtime.result("start", "a").await;
    assert_eq!(error, "rpc error: code = FailedPrecondition desc = program x does not load");
    runtime.command("start", "b");
    next(&mut hook).await.answer.send(Err("ä".repeat(100_000))).unwrap();
    assert_eq!(runtime.result("start", "b").await.1.matches('ä').count(), 400);
    runtime.command("start", "c");
    drop(next(&mut hook).await);
    let (_, error) = runtime.result("start", "c").await;
    assert!(error.ends_with("sockeye's agent gave no answer"), "{error}");
}

#[tokio::test]
async fn a_start_without_an_answer_is_refused_before_the_runtime_gives_up() {
    // That the agent answered before the runtime gave up is in the error's words.
    for (flag, least) in [("4s", 2900), ("2s", 1400)] {
        let (_dir, _, mut runtime, mut hook) = connected(&["-timeout", flag]).await;
        runtime.command("start", "a");
        let unanswered = next(&mut hook).await;
        let (held, error) = runtime.result("start", "a").await;
        assert!(held.as_millis() >= least, "{held:?} of {flag}");
        assert!(error.contains("had not attached all that is to be within"), "{error}");
        assert!(unanswered.answer.send(Ok(())).is_err(), "nobody waits any more");
        // The runtime still asks.
        runtime.command("start", "b");
        next(&mut hook).await.answer.send(Ok(())).unwrap();
        assert_eq!(runtime.result("start", "b").await.1, "");
    }
}

#[tokio::test]
async fn a_restarted_runtime_asks_again_within_a_second() {
    let (_dir, socket, mut runtime, mut hook) = connected(&[]).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        drop(runtime);
        hook.disconnected("connect").await;
        runtime = Runtime::at(&socket, &["-running", "2"]).await;
        let back = Instant::now();
        let RuntimeHook::Connected { runtime: name, version, running } = hook.connected().await else { unreachable!() };
        times.push(back.elapsed());
        assert_eq!((name.as_str(), version.as_str(), running.len()), ("containerd", "v2.4.2", 2));
    }
    // A machine may be busy once.
    assert!(times.iter().any(|time| *time < Duration::from_secs(1)), "asks again after {times:?}");
    runtime.command("start", "a");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.result("start", "a").await.1, "");
}

/// docs/strict.md names what the runtime does not guarantee; the test shows that too.
#[tokio::test]
async fn an_agent_that_ends_refuses_what_it_holds_and_then_nobody_is_asked() {
    let (_dir, socket, mut runtime, mut hook) = connected(&[]).await;
    // Repeated, because the runtime handles an answer and the connection's end in either order when it finds both.
    for round in 0..10 {
        runtime.command("start", "a");
        let held = next(&mut hook).await;
        // The controller ends just before the connection does, or after it.
        let held = (round % 2 == 0).then_some(held);
        if held.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        hook.end();
        let (_, error) = runtime.result("start", "a").await;
        let why = if held.is_some() { "sockeye's agent is ending" } else { "sockeye's agent gave no answer" };
        assert!(error.ends_with(why), "round {round}: {error:?}");
        hook.ended().await;
        assert_eq!(runtime.run("start", "b").await.1, "", "nobody is asked");
        hook = Hook::at(&socket);
        hook.connected().await;
    }
    runtime.command("start", "c");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.result("start", "c").await.1, "");
}

#[tokio::test]
async fn a_runtime_that_requires_the_agent_creates_no_container_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let mut runtime = Runtime::at(&socket, &["-required", "sockeye"]).await;
    let missing = "required plugin \"sockeye\" not present";
    let (_, error) = runtime.run("create", "a").await;
    assert!(error.contains(missing), "{error}");
    let mut hook = Hook::at(&socket);
    hook.connected().await;
    assert_eq!(runtime.run("create", "a").await.1, "");
    drop(hook);
    // The runtime notices that a plugin is gone at the next call of it: a pod comes before its containers.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(runtime.run("sandbox", "b").await.1, "");
    let (_, error) = runtime.run("create", "b").await;
    assert!(error.contains(missing), "{error}");
}

#[tokio::test]
async fn an_agent_that_gets_no_cpu_is_dropped_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let mut runtime = Runtime::at(&socket, &["-required", "sockeye"]).await;
    let agent = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut hook = {
        let _entered = agent.enter();
        Hook::at(&socket)
    };
    hook.connected().await;
    agent.spawn(async { std::thread::sleep(Duration::from_millis(3500)) });
    sleep(Duration::from_millis(100)).await;
    let (held, error) = runtime.run("sandbox", "a").await;
    assert!(
        held >= Duration::from_millis(1990) && error.is_empty(),
        "the runtime did not go on without it: {held:?} {error}"
    );
    // The pod started without an answer, and gets no container.
    let (_, error) = runtime.run("create", "a").await;
    assert!(error.contains("required plugin \"sockeye\" not present"), "{error}");
    hook.disconnected("connect").await;
    hook.connected().await;
    assert_eq!(runtime.run("create", "a").await.1, "");
    runtime.command("start", "a");
    // The question about the pod may have been passed on late; nobody waits for its answer.
    let answer = loop {
        let Starting { start, answer } = next(&mut hook).await;
        if start.container.is_some() {
            break answer;
        }
        assert!(answer.send(Ok(())).is_err());
    };
    answer.send(Ok(())).unwrap();
    assert_eq!(runtime.result("start", "a").await.1, "");
    drop(hook);
    agent.shutdown_background();
}

#[tokio::test]
async fn three_thousand_running_containers_are_synchronized() {
    // 13 MB: more than one message holds, so that the runtime sends several.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let mut runtime = Runtime::at(&socket, &["-running", "3000"]).await;
    let mut hook = Hook::at(&socket);
    let RuntimeHook::Connected { running, .. } = hook.connected().await else { unreachable!() };
    assert_eq!(running.len(), 3000);
    let Start { pod, container } = &running[2999];
    assert_eq!((pod.name.as_str(), container.as_ref().unwrap().name.as_str()), ("running-2999", "main"));
    runtime.command("start", "a");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.result("start", "a").await.1, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_starts_at_once_are_each_asked_once() {
    let (_dir, _, mut runtime, mut hook) = connected(&[]).await;
    let many = if long() { 20_000 } else { 1_000 };
    let answered = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < many {
            let Starting { start, answer } = next(&mut hook).await;
            answer.send(Ok(())).unwrap();
            assert!(seen.insert(start.pod.uid), "asked twice");
        }
        hook
    });
    let started = Instant::now();
    for n in 0..many {
        runtime.command("start", &n.to_string());
    }
    for _ in 0..many {
        let report = loop {
            let report = runtime.reports.recv().await.unwrap();
            if report["action"] == "start" {
                break report;
            }
        };
        assert_eq!(report["error"], Value::Null, "{report}");
    }
    println!("{many} starts, each held and released: {:?} apiece", started.elapsed() / many as u32);
    let mut hook = answered.await.unwrap();
    assert!(hook.starts.try_recv().is_err());
}
