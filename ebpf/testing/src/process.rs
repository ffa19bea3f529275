//! Runs test cases in a child process, and checks that the child ends well and each case stays within its limits.

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

/// The limit on a case's CPU time. Elapsed time would also measure the load of the machine.
const SLOWEST: Duration = Duration::from_secs(1);
/// The limit on the memory of all cases, beyond what the child uses at its start.
const MOST_KIB: u64 = 64 << 10;
/// Environment variables: the range of cases, and the file that notes the current one.
const RANGE: &str = "SOCKEYE_HOSTILE_CASES";
const NOTE: &str = "SOCKEYE_HOSTILE_NOTE";
/// A case that runs longer is taken for endless.
const HANG: Duration = Duration::from_secs(30);
/// The prefix of the child's last line.
const MARK: &str = "tally";

/// The number of results that are told apart.
pub const ENDS: usize = 4;

/// The results of all cases.
#[derive(Debug)]
pub struct Tally {
    /// The name of each result.
    names: [&'static str; ENDS],
    /// The number of cases with each result.
    pub ends: [u64; ENDS],
    /// The number of the slowest case, and its CPU time in microseconds.
    slowest: (u64, u64),
    /// The number of the last case that raised the peak of memory, and the peak beyond the start in KiB.
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

/// Runs cases in a child process, which runs the ignored test `test`, and fails if the child fails or a limit is
/// exceeded.
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

/// Runs all cases in the child and prints the tally. `case` returns the index of its result.
pub fn work(mut case: impl FnMut(u64) -> usize) {
    let Ok(range) = env::var(RANGE) else { panic!("only the parent test runs this one") };
    let (start, end) = range.split_once(' ').unwrap();
    let note = fs::File::create(env::var_os(NOTE).unwrap()).unwrap();
    // The child ends with its parent.
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

/// Returns the CPU time of this thread.
fn time_used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the peak of this process's memory.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
