//! `audit`: prints the events of the builtin connect-audit on this node as they come, one line of JSON each. Does IO:
//! reads the program's ring buffer. Needs no cluster, and no running agent.

use std::{
    io::{self, Write as _},
    net::Ipv6Addr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use sockeye_crds::names;

use super::bpffs;
use crate::{
    kernel::{SysError, bpffs::Dir, info, ring::Ring},
    node::layout::{self, DIRECTORY, Layout},
};

/// The map that connect-audit writes its events to.
const EVENTS: &str = "events";

/// The interval at which the ring buffer is read. To be notified of each event would cost the connecting process a
/// wake-up.
const POLL: Duration = Duration::from_millis(100);

/// One event, as `struct event` in ebpf/programs/connect-audit.bpf.c has it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    time: Timestamp,
    what: &'static str,
    pid: u32,
    uid: u32,
    comm: String,
    cgroup: u64,
    protocol: String,
    address: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_micros: Option<u64>,
    socket: u64,
}

/// Prints the events of a BpfProgram until the process ends.
///
/// # Errors
/// Fails where there is no bpffs, or where the BpfProgram has no pins there, or is not connect-audit.
pub async fn follow(bpffs: &Path, program: &str) -> Result<()> {
    let layout = Layout::new(bpffs, bpffs);
    let root = bpffs::open(&layout)?;
    if let Some(why) = missing(&root, &layout, program)? {
        bail!(why);
    }
    // An open directory would keep the bpffs from being unmounted.
    drop(root);
    let pin = layout.home(program).directory().join(layout::map(EVENTS));
    let mut ring =
        Ring::open(&pin).map_err(|error| anyhow!("the events of BpfProgram {program} can't be read: {error}"))?;
    loop {
        while let Some(event) = ring.take(|record| Event::read(record, |ns| info::time_of_day(ns).ok())) {
            let line = serde_json::to_string(&event.context("a record is not connect-audit's")?)?;
            writeln!(io::stdout(), "{line}")?;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Returns why a BpfProgram's events can't be there, if its pin of them is missing.
fn missing(root: &Dir, layout: &Layout, program: &str) -> Result<Option<String>, SysError> {
    let home = Path::new(DIRECTORY).join(program);
    if root.contains(&home.join(layout::map(EVENTS)))? {
        return Ok(None);
    }
    let directory = layout.directory().display();
    if root.contains(&home)? {
        return Ok(Some(format!(
            "BpfProgram {program} is not of connect-audit, or not loaded: {directory}/{program} has no map {EVENTS}"
        )));
    }
    let mut there = root.list(Path::new(DIRECTORY))?;
    // Other names are the notes on the whole node.
    there.retain(|name| names::is_dns_label(name));
    let there = if there.is_empty() { "none".to_owned() } else { names::line(&there.join(", "), 200) };
    Ok(Some(format!(
        "there is no BpfProgram {program} in {directory}, which is on a bpffs and has these: {there}. If that is \
         another bpffs than the agent's, {}",
        bpffs::HINT
    )))
}

impl Event {
    fn read(record: &[u8], time_of_day: impl FnOnce(u64) -> Option<Timestamp>) -> Option<Self> {
        let word = |at: usize| record.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        let half = |at: usize| record.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let comm = record.get(40..56)?;
        let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(record.get(56..72)?).ok()?).to_canonical();
        let what = match record.get(75)? {
            0 => "attempt",
            1 => "established",
            2 => "failed",
            _ => return None,
        };
        let protocol = match record.get(74)? {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        };
        Some(Self {
            time: time_of_day(word(0)?)?,
            what,
            pid: half(32)?,
            uid: half(36)?,
            comm: String::from_utf8_lossy(comm).into_owned(),
            cgroup: word(24)?,
            protocol,
            address: address.to_string(),
            port: record.get(72..74)?.try_into().ok().map(u16::from_ne_bytes)?,
            took_micros: (what != "attempt").then_some(word(8)? / 1000),
            socket: word(16)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_from_a_wrong_path_and_from_another_program() {
        let made = tempfile::tempdir().unwrap();
        let (root, layout) = (Dir::at(made.path()).unwrap(), Layout::new(made.path(), made.path()));
        let why = || missing(&root, &layout, "connect-audit").unwrap();
        let directory = made.path().join(DIRECTORY).display().to_string();
        for there in ["none", "tcp-events, web"] {
            let why = why().unwrap();
            for part in ["no BpfProgram connect-audit", &directory, &format!("has these: {there}."), "set --bpffs"] {
                assert!(why.contains(part), "{part}: {why}");
            }
            for home in ["tcp-events", "web"] {
                root.make_dir(&Path::new(DIRECTORY).join(home)).unwrap();
            }
            root.make_note(&layout::version(), "1").ok();
        }
        let home = Path::new(DIRECTORY).join("connect-audit");
        root.make_dir(&home.join(layout::map("bytes"))).unwrap();
        let of_another = why().unwrap();
        assert!(of_another.contains(&format!("{directory}/connect-audit has no map events")), "{of_another}");
        root.make_dir(&home.join(layout::map(EVENTS))).unwrap();
        assert_eq!(why(), None);
    }

    #[test]
    fn a_record_is_decoded_as_the_program_writes_it() {
        let mut record = [0u8; 80];
        record[..8].copy_from_slice(&1_500_000_000u64.to_ne_bytes());
        record[8..16].copy_from_slice(&2_000_000u64.to_ne_bytes());
        record[24..32].copy_from_slice(&77u64.to_ne_bytes());
        record[32..36].copy_from_slice(&4242u32.to_ne_bytes());
        record[40..44].copy_from_slice(b"curl");
        record[56..72].copy_from_slice(&"::ffff:10.1.2.3".parse::<Ipv6Addr>().unwrap().octets());
        record[72..74].copy_from_slice(&443u16.to_ne_bytes());
        record[74..76].copy_from_slice(&[6, 2]);
        let since_1970 = |ns: u64| Timestamp::from_nanosecond(ns.into()).ok();
        let event = Event::read(&record, since_1970).unwrap();
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:01.5Z","what":"failed","pid":4242,"uid":0,"comm":"curl","cgroup":77,"#,
                r#""protocol":"tcp","address":"10.1.2.3","port":443,"tookMicros":2000,"socket":0}"#
            )
        );
        assert_eq!(Event::read(&record[..70], since_1970), None);
    }
}
