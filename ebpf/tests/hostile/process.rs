//! The process that cases run in, and what its parent makes of its end.

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

use aya_obj::btf::Btf;
use rustix::time::{ClockId, clock_gettime};
use sockeye_ebpf::{link::LinkError, programs::fixtures, trial::Outcome};

use crate::{MOST_KIB, SLOWEST};

/// Which cases, and where to note the one that is being tried.
const RANGE: &str = "SOCKEYE_HOSTILE_CASES";
const NOTE: &str = "SOCKEYE_HOSTILE_NOTE";
/// A case that goes on for so long will not end.
const HANG: Duration = Duration::from_secs(30);
/// What the child's last line begins with.
const MARK: &str = "tally";

/// What became of all cases.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ready for the kernel, refused by the reader, refused by aya-obj, and of these those in which aya-obj panicked.
    pub outcomes: [u64; 4],
    /// The slowest case's number, and how long it took.
    slowest: (u64, u64),
    /// The last case that raised the peak of memory, and the peak beyond the beginning.
    largest: (u64, u64),
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcomes: [ready, refused, unlinked, panicked], slowest, largest } = self;
        write!(
            f,
            "{} cases: {refused} refused by the reader, {unlinked} by aya-obj ({panicked} by a panic), {ready} ready for the \
             kernel; slowest {:.1} ms (case {}); memory {:.1} MiB beyond the beginning (case {})",
            ready + refused + unlinked,
            slowest.1 as f64 / 1e3,
            slowest.0,
            largest.1 as f64 / 1024.0,
            largest.0
        )
    }
}

/// Runs cases in a process of their own, by the ignored test of that name, and judges what became of them.
pub fn run(test: &str, cases: Range<u64>) -> Tally {
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
            Ok(line) => tally = Tally::parse(&line).or(tally),
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
    fn parse(line: &str) -> Option<Self> {
        let (_, numbers) = line.split_once(MARK)?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [a, b, c, d, slow, micros, large, kib] = numbers[..] else { return None };
        Some(Self { outcomes: [a, b, c, d], slowest: (slow, micros), largest: (large, kib) })
    }

    fn count(&mut self, outcome: &Outcome) {
        let panicked = matches!(outcome, Outcome::Unlinked(LinkError::Step { panicked: true, .. }));
        let index = match outcome {
            Outcome::Ready => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unlinked(_) => 2,
        };
        self.outcomes[index] += 1;
        self.outcomes[3] += u64::from(panicked);
    }
}

/// Types to relocate against.
pub struct Kernels {
    here: Option<Btf>,
    small: Btf,
}

impl Kernels {
    fn read() -> Self {
        let here = Btf::from_sys_fs().inspect_err(|error| println!("NOT RELOCATED against the kernel's BTF: {error}"));
        let small = aya_obj::Object::parse(fixtures::EVERYTHING).unwrap().btf.unwrap();
        Self { here: here.ok(), small }
    }

    /// Those of the kernel that is here.
    pub const fn here(&self) -> Option<&Btf> {
        self.here.as_ref()
    }

    /// Those of an object, as if it were a kernel.
    pub const fn small(&self) -> Option<&Btf> {
        Some(&self.small)
    }
}

/// In the child: tries all cases, and prints the tally.
pub fn work(mut case: impl FnMut(u64, &Kernels) -> Outcome) {
    let Ok(range) = env::var(RANGE) else { panic!("this is for the other test to run") };
    let (start, end) = range.split_once(' ').unwrap();
    let note = fs::File::create(env::var_os(NOTE).unwrap()).unwrap();
    // The parent's end is this one's.
    thread::spawn(|| exit(std::io::stdin().read(&mut [0]).map_or(3, |_| 3)));
    let beginning = peak_kib();
    let kernels = Kernels::read();
    let mut tally = Tally::default();
    for number in start.parse().unwrap()..end.parse().unwrap() {
        note.write_all_at(&u64::to_le_bytes(number), 0).unwrap();
        let start = time_used();
        let outcome = case(number, &kernels);
        let micros = (time_used() - start).as_micros() as u64;
        tally.count(&outcome);
        tally.slowest = tally.slowest.max_by(micros, number);
        tally.largest = tally.largest.max_by(peak_kib() - beginning, number);
    }
    let Tally { outcomes: [a, b, c, d], slowest, largest } = tally;
    println!("{MARK} {a} {b} {c} {d} {} {} {} {}", slowest.0, slowest.1, largest.0, largest.1);
}

trait Most {
    fn max_by(self, value: u64, case: u64) -> Self;
}

impl Most for (u64, u64) {
    fn max_by(self, value: u64, case: u64) -> Self {
        if value > self.1 { (case, value) } else { self }
    }
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
