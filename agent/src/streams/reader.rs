//! The thread that reads a buffer, while anybody listens.

use std::{thread::sleep, time::Duration};

use super::{
    buffer::Buffer,
    pace::{Pace, Pause},
    source::{Drained, Source},
};
use crate::kernel::perf::Taken;

/// The longest wait for a record, and so for the thread's end.
const WAIT: Duration = Duration::from_millis(100);

/// Reads a buffer until nobody listens any more, or it has ended.
pub fn read(buffer: &Buffer, source: &mut dyn Source) {
    let mut pace = Pace::new(source.capacity());
    let mut bytes = 0;
    while !buffer.stop() {
        let drained = drain(buffer, source);
        bytes += drained.bytes;
        if drained.more {
            continue;
        }
        match pace.next(std::mem::take(&mut bytes)) {
            Pause::Sleep(time) => sleep(time),
            Pause::Wait => source.wait(WAIT),
        }
    }
}

/// Takes what there is. Records are written before the readers are held up for them.
fn drain(buffer: &Buffer, source: &mut dyn Source) -> Drained {
    let mut taken: Vec<Item> = Vec::new();
    let drained = source.drain(&mut |record| {
        taken.push(match record {
            Taken::Record(record) => Item::Record(buffer.writer.line(record)),
            Taken::Dropped(count) => Item::Dropped(count),
        });
    });
    if !taken.is_empty() {
        buffer.add(|backlog| {
            for item in taken {
                match item {
                    Item::Record(line) => backlog.push(line),
                    Item::Dropped(count) => backlog.drop_records(count),
                }
            }
        });
    }
    drained
}

/// A record that was written, or a gap.
enum Item {
    Record(Box<[u8]>),
    Dropped(u64),
}
