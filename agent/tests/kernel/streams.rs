//! Records of ring and perf buffers: each reader gets each of them or is told how many it has lost.

use std::{
    fs,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sockeye_ebpf::programs::fixtures;
use sockeye_read_api::{FailureReason, record::Record};
use tokio::runtime::Runtime;

use crate::{
    node::{Node, timeout},
    read_api::client::{self, Client, connect, request, socket},
};

/// Everything that one reader got.
#[derive(Debug, Default)]
struct Got {
    /// The numbers of records, in the order in which they came.
    numbers: Vec<u64>,
    lost: u64,
    dropped: u64,
    end: Option<String>,
    /// The first records.
    records: Vec<Record>,
}

/// A reader of a stream, on a thread of its own.
struct Reader {
    /// The number of records that it has to get before it ends, or [`ENDLESS`].
    expected: Arc<AtomicU64>,
    /// The number of records that it got or lost so far.
    received: Arc<AtomicU64>,
    thread: JoinHandle<Got>,
}

/// A reader that is not to finish yet expects so many records.
const ENDLESS: u64 = u64::MAX;

impl Reader {
    /// Starts to read; returns once the agent answers. `pause` is how long each piece of an answer takes, until it
    /// is to finish.
    fn start(node: &Node, program: &str, map: &str, pause: Duration) -> Self {
        let (path, socket) = (format!("/v1/programs/{program}/maps/{map}/records"), socket(node));
        let [expected, received] = [ENDLESS, 0].map(|number| Arc::new(AtomicU64::new(number)));
        let (ready, answered) = std::sync::mpsc::channel();
        let (expects, receives) = (Arc::clone(&expected), Arc::clone(&received));
        let thread = spawn(move || {
            Runtime::new().unwrap().block_on(async {
                let mut sender = connect(&socket).await.unwrap();
                let response = request(&mut sender, &path).await.unwrap();
                assert_eq!(response.status(), 200, "{path}");
                ready.send(()).unwrap();
                let (mut body, mut rest, mut got) = (response.into_body(), Vec::new(), Got::default());
                let (is_finishing, mut silence) = (|| expects.load(Ordering::Relaxed) != ENDLESS, Duration::ZERO);
                loop {
                    let Ok(frame) = tokio::time::timeout(QUIET, body.frame()).await else {
                        silence += QUIET;
                        if got.total() >= expects.load(Ordering::Relaxed) || is_finishing() && silence > timeout() {
                            break;
                        }
                        continue;
                    };
                    silence = Duration::ZERO;
                    let Some(Ok(frame)) = frame else { break };
                    rest.extend_from_slice(&frame.into_data().unwrap());
                    let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                    let lines = serde_json::Deserializer::from_slice(&rest[..end]).into_iter();
                    lines.for_each(|record| got.take(record.unwrap()));
                    rest.drain(..end);
                    receives.store(got.total(), Ordering::Relaxed);
                    if !is_finishing() {
                        tokio::time::sleep(pause).await;
                    }
                }
                got
            })
        });
        answered.recv_timeout(timeout()).unwrap();
        Self { expected, received, thread }
    }

    /// Ends it once it has got or lost so many records and nothing comes any more, or if nothing comes for long.
    fn finish(self, expected: u64) -> Got {
        self.expected.store(expected, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Waits until the agent ends the stream.
    fn ended(self) -> Got {
        self.thread.join().unwrap()
    }
}

impl Got {
    fn take(&mut self, record: Record) {
        match &record {
            Record::Record { value, .. } => {
                self.numbers.extend(value["number"].as_u64());
                if self.records.len() < 100 {
                    self.records.push(record);
                }
            }
            Record::Lost { count } => self.lost += count,
            Record::Dropped { count } => self.dropped += count,
            Record::End { message } => self.end = Some(message.clone()),
        }
    }

    /// Returns the number of records that came or were lost.
    fn total(&self) -> u64 {
        self.numbers.len() as u64 + self.lost
    }

    fn is_in_order(&self) -> bool {
        self.numbers.windows(2).all(|two| two[0] < two[1])
    }
}

const STREAM: &str = "stream";
/// A reader that has what it expects, and to whom nothing more comes for so long, has had everything.
const QUIET: Duration = Duration::from_millis(700);

fn stream(fields: Value) -> Value {
    json!({"reader": "Agent", "typeName": "record", "fields": fields})
}

/// Applies the object whose programs write records.
fn apply(node: &Node, events: &Value) {
    let attach = json!([{"type": "Node"}]);
    let programs = ["send", "send_other", "sample"].map(|name| json!({"name": name, "attach": attach}));
    let maps = json!([
        {"name": "events", "stream": events},
        {"name": "others", "stream": stream(json!([]))},
        {"name": "samples", "stream": stream(json!([]))},
    ]);
    node.apply(STREAM, fixtures::STREAM, json!(programs), maps);
}

/// Has a program run so many times, as fast as it can, in a process of its own.
fn run(node: &Node, program: &str, times: u32) -> Child {
    let packet = node.folder().join("packet");
    fs::write(&packet, [0; 64]).unwrap();
    let pin = format!("/sys/fs/bpf/sockeye/{STREAM}/programs/{program}");
    let mut command = node.inside("bpftool");
    command.args(["prog", "run", "pinned", &pin, "data_in"]).arg(&packet);
    command.args(["repeat", &times.to_string()]).stdout(Stdio::null()).spawn().unwrap()
}

fn run_all(node: &Node, program: &str, times: u32) {
    assert!(run(node, program, times).wait().unwrap().success());
}

/// Returns how many records a program wrote, and how many found no room.
fn counts(client: &Client, buffer: usize) -> (u64, u64) {
    let entries = client.entries(STREAM, "counted", 16);
    let value = entries[buffer].1.clone().unwrap();
    (value["written"].as_u64().unwrap(), value["refused"].as_u64().unwrap())
}

fn started(name: &str) -> (Node, Client) {
    let mut node = Node::new(name);
    let client = client::start(&mut node);
    apply(&node, &stream(json!([])));
    node.ready(STREAM);
    (node, client)
}

#[test]
fn each_reader_gets_each_record_decoded_and_in_order() {
    let (node, client) = started("streams");
    // What comes before the first reader waits for it.
    run_all(&node, "send", 100);
    let first = Reader::start(&node, STREAM, "events", Duration::ZERO);
    let leaves = Reader::start(&node, STREAM, "events", Duration::ZERO);
    let other = Reader::start(&node, STREAM, "others", Duration::ZERO);
    sleep(Duration::from_millis(300));
    assert!(leaves.finish(0).numbers.len() <= 100);
    let late = Reader::start(&node, STREAM, "events", Duration::ZERO);
    run_all(&node, "send", 1000);
    run_all(&node, "send_other", 200);
    let (first, late, other) = (first.finish(1100), late.finish(1000), other.finish(200));
    assert_eq!(first.numbers, (0..1100).collect::<Vec<u64>>());
    assert_eq!(late.numbers, (100..1100).collect::<Vec<u64>>());
    assert_eq!(other.numbers, (0..200).collect::<Vec<u64>>());
    assert_eq!([first.lost, late.lost, other.lost, first.dropped], [0; 4]);
    assert_eq!((counts(&client, 0), counts(&client, 1)), ((1100, 0), (200, 0)));
    let Record::Record { value, pod: None, undecoded: None, .. } = &first.records[0] else { panic!() };
    assert_eq!((&value["parity"], &value["name"]), (&json!("EVEN"), &json!("stream")));
    // Nobody listens, so that nothing is read.
    run_all(&node, "send", 10);
    let next = Reader::start(&node, STREAM, "events", Duration::ZERO).finish(10);
    assert_eq!(next.numbers, (1100..1110).collect::<Vec<u64>>());
    node.remove(STREAM);
    node.nothing_left();
}

#[test]
fn a_slow_reader_loses_by_a_count_and_others_lose_nothing() {
    let (node, client) = started("slow");
    let slow = Reader::start(&node, STREAM, "events", Duration::from_millis(400));
    let quick = Reader::start(&node, STREAM, "events", Duration::ZERO);
    // In bursts that the ring can hold, and together more than the agent keeps for a reader.
    let (rounds, each) = (40, 1000);
    for _ in 0..rounds {
        run_all(&node, "send", each);
        // At the pace of the quick one.
        let (written, _) = counts(&client, 0);
        node.until("all that was written", |_| quick.received.load(Ordering::Relaxed) >= written);
    }
    let (written, refused) = counts(&client, 0);
    let (quick, slow) = (quick.finish(written), slow.finish(written));
    assert_eq!(written + refused, u64::from(rounds * each));
    assert_eq!((quick.numbers.len() as u64, quick.lost), (written, 0), "{rounds} rounds");
    assert!(quick.is_in_order() && slow.is_in_order());
    assert_eq!(slow.total(), written);
    assert!(slow.lost > 0, "{} records are not slow to read", slow.numbers.len());
}

#[test]
fn a_hundred_thousand_records_a_second_are_read_or_counted() {
    let (node, client) = started("rate");
    let reader = Reader::start(&node, STREAM, "events", Duration::ZERO);
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < Duration::from_secs(3) {
        run_all(&node, "send", 50_000);
        sent += 50_000;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (written, refused) = counts(&client, 0);
    let got = reader.finish(written);
    println!(
        "{:.0} records a second; {} read, {} lost by the reader, {refused} found no room",
        f64::from(sent) / seconds,
        got.numbers.len(),
        got.lost
    );
    assert!(got.is_in_order());
    assert_eq!(got.total(), written);
    assert_eq!(written + refused, u64::from(sent));
}

#[test]
fn a_perf_buffer_is_read_where_the_kernel_lets_the_agent() {
    let (node, client) = started("perf");
    if node.has_feature("PerfEventParanoid") {
        let failure = client.fails(&format!("/v1/programs/{STREAM}/maps/samples/records"));
        assert_eq!(failure.reason, FailureReason::NotStreamed);
        assert!(failure.message.contains("perf_event_paranoid"), "{failure}");
        return;
    }
    run_all(&node, "sample", 10);
    let one = Reader::start(&node, STREAM, "samples", Duration::ZERO);
    let two = Reader::start(&node, STREAM, "samples", Duration::ZERO);
    run_all(&node, "sample", 300);
    for got in [one.finish(300), two.finish(300)] {
        // A perf buffer exists only while it is read: what came before found none.
        assert_eq!((got.numbers, got.lost), ((0..300).collect::<Vec<u64>>(), 0));
    }
    // More at once than a buffer holds.
    let burst = Reader::start(&node, STREAM, "samples", Duration::ZERO);
    run_all(&node, "sample", 200_000);
    let (written, refused) = counts(&client, 2);
    let burst = burst.finish(written - 300);
    assert_eq!(burst.total() + 300, written);
    assert_eq!(refused, 10 + 200_000 + 300 - written);
    assert!(burst.dropped <= refused, "{} of {refused}", burst.dropped);
}

#[test]
fn an_edit_of_a_stream_reloads_nothing_and_ends_what_it_changes() {
    let (node, client) = started("edited");
    let ids = |node: &Node| {
        let detail = node.details(STREAM);
        ["programs", "maps"].map(|kind| {
            let all = detail[kind].as_array().unwrap();
            all.iter().map(|one| one["id"].as_u64().unwrap()).collect::<Vec<_>>()
        })
    };
    let before = ids(&node);
    let edited = Reader::start(&node, STREAM, "events", Duration::ZERO);
    let kept = Reader::start(&node, STREAM, "others", Duration::ZERO);
    apply(&node, &stream(json!([{"name": "address", "format": "IPAddress"}, {"name": "number", "format": "Decimal"}])));
    node.ready(STREAM);
    assert!(edited.ended().end.unwrap().contains("decoded otherwise"));
    assert_eq!(ids(&node), before);
    let again = Reader::start(&node, STREAM, "events", Duration::ZERO);
    run_all(&node, "send", 5);
    run_all(&node, "send_other", 5);
    let again = again.finish(5);
    let Record::Record { value, .. } = &again.records[0] else { panic!() };
    assert_eq!((again.numbers.len(), &value["address"]), (5, &json!("10.0.0.1")));
    // Another process reads it from now on.
    let agents = Reader::start(&node, STREAM, "events", Duration::ZERO);
    apply(&node, &json!({"reader": "External"}));
    node.ready(STREAM);
    assert!(agents.ended().end.unwrap().contains("External"));
    let failure = client.fails(&format!("/v1/programs/{STREAM}/maps/events/records"));
    assert!(failure.reason == FailureReason::NotStreamed && failure.message.contains("External"), "{failure}");
    let none = client.fails(&format!("/v1/programs/{STREAM}/maps/counted/records"));
    assert!(none.reason == FailureReason::NotStreamed && none.message.contains("no ring"), "{none}");
    // The BpfProgram goes.
    assert_eq!(ids(&node), before);
    node.remove(STREAM);
    let kept = kept.ended();
    assert_eq!(kept.numbers, (0..5).collect::<Vec<u64>>());
    assert!(kept.end.unwrap().contains("no BpfProgram"));
    node.nothing_left();
}

#[test]
fn a_record_names_the_pod_and_the_container_of_its_cgroup() {
    let mut node = Node::new("podnames");
    let (uid, container) = ("0000002a-0000-4000-8000-000000000000", "c".repeat(64));
    let status = json!({
        "name": "app", "containerID": format!("containerd://{container}"), "image": "", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}},
    });
    let pod = json!({
        "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", "uid": uid},
        "status": {"containerStatuses": [status]},
    });
    let pods = node.folder().join("pods.json");
    fs::write(&pods, json!({"items": [pod]}).to_string()).unwrap();
    let of_container = format!("kubepods/burstable/pod{uid}/{container}/nested");
    fs::create_dir_all(node.cgroup().join(&of_container)).unwrap();
    let [option, path] = client::arguments(&node);
    node.start_with(&[&option, &path, "--pods", &pods.display().to_string()]);
    let attach = json!([{"type": "Node"}]);
    let fields = json!([{"name": "cgroup", "format": "Pod"}, {"name": "address", "format": "IPAddress"}]);
    let spec = json!({
        "programs": [{"name": "connect4", "attach": attach}],
        "maps": [{"name": "events", "stream": {"reader": "Agent", "typeName": "event", "fields": fields}}],
    });
    node.apply_from("audit", json!({"builtin": "connect-audit"}), spec);
    node.ready("audit");
    let reader = Reader::start(&node, "audit", "events", Duration::ZERO);
    let made = node.connect_during([&of_container, "."], 1, || ());
    let got = reader.finish(made.iter().sum());
    let shown = |record: &Record| match record {
        Record::Record { value, pod, .. } => {
            assert_eq!((&value["address"], &value["what"]), (&json!("127.0.0.1"), &json!("ATTEMPT")));
            let pod = pod.as_ref();
            pod.map(|pod| format!("{}/{} {}", pod.namespace, pod.name, pod.container.as_deref().unwrap_or_default()))
        }
        other => panic!("{other:?}"),
    };
    let mut pods: Vec<Option<String>> = got.records.iter().map(shown).collect();
    pods.sort_unstable();
    pods.dedup();
    assert_eq!(pods, [None, Some("shop/web-0 app".to_owned())]);
    node.remove("audit");
    node.nothing_left();
}
