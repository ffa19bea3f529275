//! The process that cases run in, and what its parent makes of its end. The agent's tests of hostile bytes use it too.

use std::{
    env, fmt, fs,
    io::{BufRead as _, BufReader, Read as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio, exit},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Each case takes less, of a processor's time: none waits for anything, and the machine may be anyone's too.
const SLOWEST: Duration = Duration::from_secs(1);
/// All cases together, one after the other, take no more memory beyond what the process had when it began.
const MOST_KIB: u64 = 64 << 10;
/// Which cases, and where to note the one that is being tried.
const RANGE: &str = "SOCKEYE_HOSTILE_CASES";
const NOTE: &str = "SOCKEYE_HOSTILE_NOTE";
/// A case that goes on for so long will not end.
const HANG: Duration = Duration::from_secs(30);
/// What the child's last line begins with.
const MARK: &str = "tally";

/// How many ends of cases are told apart.
pub const ENDS: usize = 4;

/// What became of all cases.
#[derive(Debug)]
pub struct Tally {
    /// What each end is called.
    names: [&'static str; ENDS],
    /// How many cases came to each.
    pub ends: [u64; ENDS],
    /// The slowest case's number, and how long it took, in microseconds.
    slowest: (u64, u64),
    /// The last case that raised the peak of memory, and the peak beyond the beginning, in KiB.
    largest: (u64, u64),
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, ends, slowest, largest } = self;
        let parts = names.iter().zip(ends).filter(|(_, count)| **count > 0);
        let parts: Vec<String> = parts.map(|(name, count)| format!("{count} {name}")).collect();
        let (millis, mib) = (slowest.1 as f64 / 1e3, largest.1 as f64 / 1024.0);
        write!(
            f,
            "{} cases: {}; slowest {millis:.1} ms (case {}); memory {mib:.1} MiB beyond the beginning (case {})",
            ends.iter().sum::<u64>(),
            parts.join(", "),
            slowest.0,
            largest.0
        )
    }
}

/// Runs cases in a process of their own, by the ignored test of that name, and judges what became of them.
pub fn run(test: &str, cases: Range<u64>, names: [&'static str; ENDS]) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("case");
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(RANGE, format!("{} {}", cases.start, cases.end))
        .env(NOTE, &note)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, receive) = channel();
    let reader = thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let mut tally = None;
    let mut last = (noted(&note), Instant::now());
    loop {
        match receive.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => tally = Tally::parse(&line, names).or(tally),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let case = noted(&note);
                if case != last.0 {
                    last = (case, Instant::now());
                } else if last.1.elapsed() > HANG {
                    child.kill().unwrap();
                }
            }
        }
    }
    let _ = reader.join();
    let status = child.wait().unwrap();
    assert!(status.success(), "{test} ended in case {:?}: {status}", noted(&note));
    let tally = tally.unwrap();
    assert!(tally.slowest.1 < SLOWEST.as_micros() as u64, "too slow: {tally}");
    assert!(tally.largest.1 < MOST_KIB, "too large: {tally}");
    tally
}

fn noted(note: &Path) -> Option<u64> {
    fs::read(note).ok()?.try_into().ok().map(u64::from_le_bytes)
}

impl Tally {
    fn parse(line: &str, names: [&'static str; ENDS]) -> Option<Self> {
        let (_, numbers) = line.split_once(MARK)?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [a, b, c, d, slow, micros, large, kib] = numbers[..] else { return None };
        Some(Self { names, ends: [a, b, c, d], slowest: (slow, micros), largest: (large, kib) })
    }
}

/// In the child: tries all cases, each of which gives which end it came to, and prints the tally.
pub fn work(mut case: impl FnMut(u64) -> usize) {
    let Ok(range) = env::var(RANGE) else { panic!("this is for the other test to run") };
    let (start, end) = range.split_once(' ').unwrap();
    let note = fs::File::create(env::var_os(NOTE).unwrap()).unwrap();
    // The parent's end is this one's.
    thread::spawn(|| exit(std::io::stdin().read(&mut [0]).map_or(3, |_| 3)));
    let beginning = peak_kib();
    let mut ends = [0; ENDS];
    let (mut slowest, mut largest) = ((0, 0), (0, 0));
    for number in start.parse().unwrap()..end.parse().unwrap() {
        note.write_all_at(&u64::to_le_bytes(number), 0).unwrap();
        let start = time_used();
        ends[case(number)] += 1;
        let micros = (time_used() - start).as_micros() as u64;
        slowest = most(slowest, number, micros);
        largest = most(largest, number, peak_kib() - beginning);
    }
    let ends = ends.map(|count: u64| count.to_string()).join(" ");
    println!("{MARK} {ends} {} {} {} {}", slowest.0, slowest.1, largest.0, largest.1);
}

const fn most(so_far: (u64, u64), case: u64, value: u64) -> (u64, u64) {
    if value > so_far.1 { (case, value) } else { so_far }
}

/// The processor's time that this thread has used.
fn time_used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that this process had so far.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
