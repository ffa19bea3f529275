//! `audit`: prints the events of the builtin connect-audit on this node as they come, one line of JSON each. Does IO:
//! reads the program's ring buffer. Needs no cluster, and no running agent.

use std::{
    io::{self, Write as _},
    net::Ipv6Addr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::{
    kernel::{info, ring::Ring},
    node::layout::{self, Layout},
};

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
/// Fails where the BpfProgram does not run here, or is not connect-audit.
pub async fn follow(bpffs: &Path, program: &str) -> Result<()> {
    let pin = Layout::new(bpffs, bpffs).home(program).directory().join(layout::map("events"));
    let mut ring = Ring::open(&pin).with_context(|| format!("no BpfProgram {program} of connect-audit runs here"))?;
    loop {
        while let Some(event) = ring.take(|record| Event::read(record, |ns| info::time_of_day(ns).ok())) {
            let line = serde_json::to_string(&event.context("a record is not connect-audit's")?)?;
            writeln!(io::stdout(), "{line}")?;
        }
        tokio::time::sleep(POLL).await;
    }
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
