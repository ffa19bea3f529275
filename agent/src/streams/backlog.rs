//! `Backlog`: keeps the newest records of one buffer, as lines; each reader has a [`Cursor`] and learns how many it
//! lost. No IO.

use std::collections::VecDeque;

/// The records that are kept.
const MAX_RECORDS: usize = 16_384;
/// The bytes that are kept.
const MAX_BYTES: usize = 4 << 20;

/// The newest records.
#[derive(Debug)]
pub struct Backlog {
    records: VecDeque<Record>,
    bytes: usize,
    /// The place after the last record.
    end: Cursor,
    limits: (usize, usize),
}

/// A record, and its place.
#[derive(Debug)]
struct Record {
    place: Cursor,
    line: Box<[u8]>,
}

/// A place among the records: how many came before it, and how many the kernel dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    records: u64,
    dropped: u64,
}

/// One reading: gaps, then lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records that came and went before the reader took them.
    pub lost: u64,
    /// Records that the kernel had no room for.
    pub dropped: u64,
    /// The lines after these gaps, each with its end.
    pub lines: Vec<u8>,
}

impl Read {
    /// Returns whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.lost == 0 && self.dropped == 0 && self.lines.is_empty()
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self::within(MAX_RECORDS, MAX_BYTES)
    }
}

impl Backlog {
    /// Returns a backlog that keeps so many records and bytes, and at least one record.
    pub fn within(records: usize, bytes: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, end: Cursor::default(), limits: (records, bytes) }
    }

    /// Returns the place of a reader that begins now.
    pub const fn end(&self) -> Cursor {
        self.end
    }

    /// Adds a record.
    pub fn push(&mut self, line: Box<[u8]>) {
        self.bytes += line.len();
        self.records.push_back(Record { place: self.end, line });
        self.end.records += 1;
        while self.records.len() > self.limits.0.max(1) || (self.bytes > self.limits.1 && self.records.len() > 1) {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.line.len());
        }
    }

    /// Adds a gap: the kernel had no room for so many records.
    pub const fn drop_records(&mut self, count: u64) {
        self.end.dropped += count;
    }

    /// Returns what comes next for a reader: gaps, and lines up to the next gap, about so many bytes.
    pub fn read(&self, cursor: &mut Cursor, most: usize) -> Read {
        let mut read = Read::default();
        let oldest = self.records.front().map_or(self.end, |record| record.place);
        read.lost = oldest.records.saturating_sub(cursor.records);
        cursor.records = cursor.records.max(oldest.records);
        let first = usize::try_from(cursor.records - oldest.records).unwrap_or(usize::MAX);
        for Record { place, line } in self.records.iter().skip(first) {
            let is_gap = place.dropped > cursor.dropped;
            if read.lines.len() >= most || is_gap && !read.lines.is_empty() {
                return read;
            }
            read.dropped += place.dropped - cursor.dropped;
            read.lines.extend_from_slice(line);
            *cursor = Cursor { records: place.records + 1, dropped: place.dropped };
        }
        if read.lines.is_empty() {
            read.dropped += self.end.dropped - cursor.dropped;
            *cursor = self.end;
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Record(usize),
        Dropped(u64),
        Read(usize, usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (1..40_usize).prop_map(Event::Record),
            1 => (1..9_u64).prop_map(Event::Dropped),
            2 => (0..3_usize, 1..200_usize).prop_map(|(reader, most)| Event::Read(reader, most)),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        /// Whatever a reader takes and when, it gets records in order, and each is either read or counted as lost; what
        /// is kept is bounded.
        #[test]
        fn each_record_is_read_once_or_counted(events in events(), (most, bytes) in (1..20_usize, 1..300_usize)) {
            let mut backlog = Backlog::within(most, bytes);
            let (mut sent, mut dropped) = (0_u64, 0_u64);
            let mut readers = [(Cursor::default(), 0_u64, 0_u64); 3];
            let take = |backlog: &Backlog, reader: &mut (Cursor, u64, u64), most: usize| {
                let (cursor, seen, gaps) = reader;
                let read = backlog.read(cursor, most);
                *gaps += read.dropped;
                *seen += read.lost;
                for line in read.lines.split_inclusive(|byte| *byte == b'\n') {
                    let number: u64 = str::from_utf8(line).unwrap().trim().parse().unwrap();
                    prop_assert_eq!(number, *seen);
                    *seen += 1;
                }
                Ok(read.is_empty())
            };
            for event in events {
                match event {
                    Event::Record(length) => {
                        backlog.push(format!("{sent:length$}\n").into_bytes().into());
                        sent += 1;
                    }
                    Event::Dropped(count) => {
                        backlog.drop_records(count);
                        dropped += count;
                    }
                    Event::Read(reader, most) => drop(take(&backlog, &mut readers[reader], most)?),
                }
                prop_assert!(backlog.records.len() <= most);
                prop_assert!(backlog.bytes <= bytes.max(60));
                let kept: usize = backlog.records.iter().map(|record| record.line.len()).sum();
                prop_assert_eq!(kept, backlog.bytes);
            }
            for mut reader in readers {
                while !take(&backlog, &mut reader, 64)? {}
                prop_assert_eq!((reader.1, reader.2), (sent, dropped));
            }
        }
    }

    #[test]
    fn a_reader_that_begins_now_gets_what_comes_after() {
        let mut backlog = Backlog::default();
        backlog.push(Box::from(*b"a\n"));
        let mut cursor = backlog.end();
        assert!(backlog.read(&mut cursor, 9).is_empty());
        backlog.push(Box::from(*b"b\n"));
        assert_eq!(backlog.read(&mut cursor, 9), Read { lines: b"b\n".to_vec(), ..Read::default() });
    }
}
