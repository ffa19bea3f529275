//! `RecordWriter`: writes records as lines of JSON, decoded as the spec says. Does IO: a clock.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use sockeye_crds::names::hex;
use sockeye_ebpf::values::{Budget, RecordShape};
use sockeye_read_api::record::Pod;

use super::pods::Owners;

/// The bytes of a record that are shown where it can't be decoded.
const MAX_HEX: usize = 4096;
/// The bytes that a decoded record may have, about.
const MAX_DECODED: usize = 64 << 10;

/// Writes the records of one buffer.
#[derive(Debug)]
pub struct RecordWriter {
    shape: RecordShape,
    owners: Mutex<Owners>,
}

/// [`Record::Record`](sockeye_read_api::record::Record::Record), whose value is written without a copy.
#[derive(Serialize)]
#[serde(tag = "type", rename = "Record")]
struct Line<'a, V> {
    time: &'a str,
    value: V,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecoded: Option<String>,
}

impl RecordWriter {
    /// Returns a writer for records of this type.
    pub fn new(shape: RecordShape, owners: Owners) -> Self {
        Self { shape, owners: Mutex::new(owners) }
    }

    /// Returns whether records are written in the same way.
    pub fn is_like(&self, shape: &RecordShape) -> bool {
        self.shape == *shape
    }

    /// Has the owners of cgroups changed.
    pub fn update(&self, change: impl FnOnce(&mut Owners)) {
        change(&mut self.owners.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes a record.
    pub fn line(&self, record: &[u8]) -> Box<[u8]> {
        let time = format!("{:.9}", Timestamp::now());
        let pod = self.shape.pod.as_ref().and_then(|place| place.number(record));
        let pod = pod.and_then(|cgroup| self.owners.lock().unwrap_or_else(PoisonError::into_inner).pod(cgroup));
        let pod = pod.as_deref();
        let Some(shape) = &self.shape.shape else { return write_undecoded(&time, pod, record, None) };
        let budget = Budget::new(MAX_DECODED);
        let decoded = shape.with(record, &budget).map_err(|error| error.to_string()).and_then(|value| {
            let line = Line { time: &time, value, pod, undecoded: None };
            serde_json::to_vec(&line).map_err(|error| error.to_string())
        });
        match decoded {
            Ok(line) => ended(line),
            Err(why) => write_undecoded(&time, pod, record, Some(why)),
        }
    }
}

/// Writes a record that is not decoded.
fn write_undecoded(time: &str, pod: Option<&Pod>, record: &[u8], why: Option<String>) -> Box<[u8]> {
    let cut = record.len() > MAX_HEX;
    let more = cut.then(|| format!("the first {MAX_HEX} of its {} bytes are shown", record.len()));
    let undecoded = why.into_iter().chain(more).collect::<Vec<_>>().join("; ");
    let undecoded = Some(undecoded).filter(|why| !why.is_empty());
    let value = hex(record.get(..MAX_HEX).unwrap_or(record));
    ended(serde_json::to_vec(&Line { time, value, pod, undecoded }).unwrap_or_default())
}

fn ended(mut line: Vec<u8>) -> Box<[u8]> {
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use sockeye_crds::{Builtin, program::StreamSpec};
    use sockeye_ebpf::{Object, programs::builtin};
    use sockeye_read_api::record::Record;

    use super::*;

    fn read(writer: &RecordWriter, record: &[u8]) -> Record {
        let line = writer.line(record);
        assert!(line.ends_with(b"}\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_line_is_a_record_of_the_read_api() {
        let stream = serde_json::json!({"reader": "Agent", "typeName": "event",
            "fields": [{"name": "cgroup", "format": "Pod"}]});
        let stream: StreamSpec = serde_json::from_value(stream).unwrap();
        let object = Object::read(builtin(Builtin::ConnectAudit)).unwrap();
        let shape = RecordShape::of(&object, &stream).unwrap();
        let pod = Pod { namespace: "shop".into(), name: "web".into(), container: Some("app".into()) };
        let writer = RecordWriter::new(shape, Owners::of([(77, pod.clone())]));
        let mut record = [0u8; 80];
        record[24] = 77;
        record[40..44].copy_from_slice(b"curl");
        let Record::Record { time, value, pod: found, undecoded } = read(&writer, &record) else { panic!() };
        assert_eq!((value["comm"].as_str(), found, undecoded), (Some("curl"), Some(pod), None));
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{time}");
        record[24] = 78;
        assert!(matches!(read(&writer, &record), Record::Record { pod: None, .. }));
    }

    #[test]
    fn what_has_no_type_is_bytes() {
        let writer = RecordWriter::new(RecordShape::default(), Owners::default());
        let Record::Record { value, undecoded, .. } = read(&writer, &[1, 0xff]) else { panic!() };
        assert_eq!((value, undecoded), ("01ff".into(), None));
        let Record::Record { value, undecoded, .. } = read(&writer, &[7; 5000]) else { panic!() };
        assert_eq!(value, "07".repeat(MAX_HEX));
        assert_eq!(undecoded.as_deref(), Some("the first 4096 of its 5000 bytes are shown"));
    }
}
