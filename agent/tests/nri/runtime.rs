//! The hook at the runtime's own half of NRI: the code that containerd links, in a process of its own (`tests/nri/main.go`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockeye_agent::nri::{Hooked, Starting};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::Hook;

/// Whether there is time for the long form.
fn long() -> bool {
    std::env::var_os("SOCKEYE_CHAOS").is_some()
}

/// A runtime at a socket; it ends with its stdin, so with the test, however that ends.
struct Runtime {
    child: Child,
    orders: ChildStdin,
    said: mpsc::UnboundedReceiver<Value>,
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
        let (orders, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let (send, said) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _unheard = send.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut runtime = Self { child, orders, said };
        runtime.did("listen", "").await;
        runtime
    }

    /// Has something happen to the only container of a pod.
    fn order(&mut self, what: &str, pod: &str) {
        let parent = format!("/kubepods/pod{pod}");
        let order = json!({
            "do": what,
            "pod": {
                "id": format!("sandbox-{pod}"), "name": pod, "uid": format!("uid-{pod}"), "namespace": "default",
                "labels": {"app": "web"}, "linux": {"cgroup_parent": parent},
            },
            "container": {
                "id": format!("container-{pod}"), "pod_sandbox_id": format!("sandbox-{pod}"), "name": "main",
                "linux": {"cgroups_path": format!("{parent}/container-{pod}")},
            },
        });
        writeln!(self.orders, "{order}").unwrap();
    }

    /// What came of it: how long it was held, and the error.
    async fn did(&mut self, what: &str, pod: &str) -> (Duration, String) {
        let seen = timeout(Duration::from_secs(20), async {
            loop {
                let said = self.said.recv().await.expect("the runtime ended");
                if said["did"] == what && said["pod"].as_str().unwrap_or_default() == pod {
                    return said;
                }
            }
        });
        let said = seen.await.unwrap_or_else(|_| panic!("no end of {what} {pod}"));
        let held = Duration::from_millis(said["heldMs"].as_u64().unwrap());
        (held, said["error"].as_str().unwrap_or_default().to_owned())
    }

    async fn order_and_see(&mut self, what: &str, pod: &str) -> (Duration, String) {
        self.order(what, pod);
        self.did(what, pod).await
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

async fn hooked(flags: &[&str]) -> (TempDir, PathBuf, Runtime, Hook) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let runtime = Runtime::at(&socket, flags).await;
    let mut hook = Hook::at(&socket);
    hook.hooked().await;
    (dir, socket, runtime, hook)
}

async fn next(hook: &mut Hook) -> Starting {
    timeout(Duration::from_secs(10), hook.starts.recv()).await.expect("asked").unwrap()
}

#[tokio::test]
async fn a_start_is_held_until_it_is_answered() {
    let (_dir, _, mut runtime, mut hook) = hooked(&[]).await;
    for what in ["sandbox", "start"] {
        runtime.order(what, "a");
        let Starting { pod, container, answer } = next(&mut hook).await;
        assert_eq!((pod.uid.as_str(), pod.labels["app"].as_str()), ("uid-a", "web"));
        assert_eq!(container.is_some(), what == "start");
        sleep(Duration::from_millis(700)).await;
        answer.send(Ok(())).unwrap();
        let (held, error) = runtime.did(what, "a").await;
        assert!(held >= Duration::from_millis(690) && error.is_empty(), "{what}: {held:?} {error}");
    }
    for what in ["create", "post", "stop"] {
        assert_eq!(runtime.order_and_see(what, "a").await.1, "", "{what}");
        assert!(hook.starts.try_recv().is_err(), "asked of {what}");
    }
}

#[tokio::test]
async fn a_refusal_fails_the_start_with_its_words() {
    let (_dir, _, mut runtime, mut hook) = hooked(&[]).await;
    runtime.order("start", "a");
    next(&mut hook).await.answer.send(Err("program x does not load".to_owned())).unwrap();
    let (_, error) = runtime.did("start", "a").await;
    assert_eq!(error, "rpc error: code = FailedPrecondition desc = program x does not load");
    runtime.order("start", "b");
    next(&mut hook).await.answer.send(Err("ä".repeat(100_000))).unwrap();
    assert_eq!(runtime.did("start", "b").await.1.matches('ä').count(), 400);
    runtime.order("start", "c");
    drop(next(&mut hook).await);
    let (_, error) = runtime.did("start", "c").await;
    assert!(error.ends_with("sockeye's agent gave no answer"), "{error}");
}

#[tokio::test]
async fn what_nobody_answers_is_refused_before_the_runtime_goes_on_without() {
    for (flag, least, most) in [("2s", 1400, 1900), ("1s", 700, 950)] {
        let (_dir, _, mut runtime, mut hook) = hooked(&["-timeout", flag]).await;
        runtime.order("start", "a");
        let unanswered = next(&mut hook).await;
        let (held, error) = runtime.did("start", "a").await;
        assert!((least..most).contains(&held.as_millis()), "{held:?} of {flag}");
        assert!(error.contains("had not attached all that is to be within"), "{error}");
        assert!(unanswered.answer.send(Ok(())).is_err(), "nobody waits any more");
        // The runtime still asks.
        runtime.order("start", "b");
        next(&mut hook).await.answer.send(Ok(())).unwrap();
        assert_eq!(runtime.did("start", "b").await.1, "");
    }
}

#[tokio::test]
async fn a_runtime_that_was_restarted_asks_again() {
    let (_dir, socket, runtime, mut hook) = hooked(&[]).await;
    drop(runtime);
    hook.lost("connect").await;
    let mut runtime = Runtime::at(&socket, &["-running", "2"]).await;
    let back = Instant::now();
    let Hooked::Yes { runtime: name, version, running } = hook.hooked().await else { unreachable!() };
    let back = back.elapsed();
    assert!(back < Duration::from_secs(1), "asks again after {back:?}");
    assert_eq!((name.as_str(), version.as_str(), running.len()), ("containerd", "v2.4.2", 2));
    runtime.order("start", "a");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.did("start", "a").await.1, "");
}

/// What the runtime does not guarantee is shown too, as docs/strict.md says it.
#[tokio::test]
async fn an_agent_that_ends_refuses_what_it_holds_and_then_nobody_is_asked() {
    let (_dir, socket, mut runtime, mut hook) = hooked(&[]).await;
    // Over and over: the runtime takes an answer and the connection's end in either order when it finds both.
    for round in 0..10 {
        runtime.order("start", "a");
        let held = next(&mut hook).await;
        // Whoever is to answer ends just before the connection does, or after it.
        let held = (round % 2 == 0).then_some(held);
        if held.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        drop(hook);
        let (_, error) = runtime.did("start", "a").await;
        let why = if held.is_some() { "sockeye's agent is ending" } else { "sockeye's agent gave no answer" };
        assert!(error.ends_with(why), "round {round}: {error:?}");
        assert_eq!(runtime.order_and_see("start", "b").await.1, "", "nobody is asked");
        hook = Hook::at(&socket);
        hook.hooked().await;
    }
    runtime.order("start", "c");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.did("start", "c").await.1, "");
}

#[tokio::test]
async fn where_it_is_required_no_container_is_created_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let mut runtime = Runtime::at(&socket, &["-required", "sockeye"]).await;
    let missing = "required plugin \"sockeye\" not present";
    let (_, error) = runtime.order_and_see("create", "a").await;
    assert!(error.contains(missing), "{error}");
    let mut hook = Hook::at(&socket);
    hook.hooked().await;
    assert_eq!(runtime.order_and_see("create", "a").await.1, "");
    drop(hook);
    // The runtime forgets a plugin that is gone with the next thing it tells plugins of: a pod comes before its containers.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(runtime.order_and_see("sandbox", "b").await.1, "");
    let (_, error) = runtime.order_and_see("create", "b").await;
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
    hook.hooked().await;
    agent.spawn(async { std::thread::sleep(Duration::from_millis(3500)) });
    sleep(Duration::from_millis(100)).await;
    let (held, error) = runtime.order_and_see("sandbox", "a").await;
    assert!(
        held >= Duration::from_millis(1990) && error.is_empty(),
        "the runtime went on without it: {held:?} {error}"
    );
    // The pod got by, and gets no container.
    let (_, error) = runtime.order_and_see("create", "a").await;
    assert!(error.contains("required plugin \"sockeye\" not present"), "{error}");
    hook.lost("connect").await;
    hook.hooked().await;
    assert_eq!(runtime.order_and_see("create", "a").await.1, "");
    runtime.order("start", "a");
    // The question of before may still have been passed on; nobody waits for its answer.
    let answer = loop {
        let Starting { container, answer, .. } = next(&mut hook).await;
        if container.is_some() {
            break answer;
        }
        assert!(answer.send(Ok(())).is_err());
    };
    answer.send(Ok(())).unwrap();
    assert_eq!(runtime.did("start", "a").await.1, "");
    drop(hook);
    agent.shutdown_background();
}

#[tokio::test]
async fn a_node_full_of_containers_is_taken_in() {
    // 13 MB: the runtime finds that one message does not do, and sends several.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nri.sock");
    let mut runtime = Runtime::at(&socket, &["-running", "3000"]).await;
    let mut hook = Hook::at(&socket);
    let Hooked::Yes { running, .. } = hook.hooked().await else { unreachable!() };
    assert_eq!(running.len(), 3000);
    assert_eq!((running[2999].0.name.as_str(), running[2999].1.name.as_str()), ("running-2999", "main"));
    runtime.order("start", "a");
    next(&mut hook).await.answer.send(Ok(())).unwrap();
    assert_eq!(runtime.did("start", "a").await.1, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_starts_at_once_are_each_asked_once() {
    let (_dir, _, mut runtime, mut hook) = hooked(&[]).await;
    let many = if long() { 20_000 } else { 1_000 };
    let answered = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < many {
            let Starting { pod, answer, .. } = next(&mut hook).await;
            answer.send(Ok(())).unwrap();
            assert!(seen.insert(pod.uid), "asked twice");
        }
        hook
    });
    let started = Instant::now();
    for n in 0..many {
        runtime.order("start", &n.to_string());
    }
    for _ in 0..many {
        let said = loop {
            let said = runtime.said.recv().await.unwrap();
            if said["did"] == "start" {
                break said;
            }
        };
        assert_eq!(said["error"], Value::Null, "{said}");
    }
    println!("{many} starts, each held and released: {:?} apiece", started.elapsed() / many as u32);
    let mut hook = answered.await.unwrap();
    assert!(hook.starts.try_recv().is_err());
}
