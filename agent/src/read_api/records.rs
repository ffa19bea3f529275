//! The records of ring and perf buffers, as a stream of lines.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use aya_obj::generated::bpf_map_type;
use bytes::Bytes;
use futures::stream;
use sockeye_crds::program::StreamSpec;
use sockeye_ebpf::{Object, values::RecordShape};
use sockeye_read_api::{Failure, FailureReason, record::Record};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    answers::unexpected,
    body::{Aborted, Parts},
    failures,
    inquirer::Inquirer,
    objects::KnownObjects,
};
use crate::{
    control::inspection::{Inquiry, InspectedStream, Inspection, MapName},
    streams::{Buffer, Hub, Next, Request, SubscribeError, Subscription, backlog::Read, hub::RETYPED, pods::Owners},
};

/// The interval at which it is looked whether a buffer is still what its readers were told.
const LOOK: Duration = Duration::from_secs(1);
/// The types of maps that have records.
const BUFFERS: [u32; 2] =
    [bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32, bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY as u32];
/// The end of a stream whose map is another one from here on.
const REMADE: &str = "the map was made anew, and this one gets no more records: ask again";

/// The records of all buffers. Clones are the same.
#[derive(Clone)]
pub(super) struct RecordStreams {
    inquirer: Inquirer,
    objects: Arc<KnownObjects>,
    hub: Arc<Hub>,
}

impl RecordStreams {
    pub(super) fn new(inquirer: Inquirer, objects: Arc<KnownObjects>) -> Self {
        Self { inquirer, objects, hub: Arc::default() }
    }

    /// Subscribes to a buffer.
    pub(super) async fn subscribe(&self, name: MapName) -> Result<Parts, Failure> {
        let inspected = self.inspect(&name).await?;
        let shape = self.shape(&inspected, &name).await?;
        let InspectedStream { map, pods, cgroups, .. } = inspected;
        let Some(fd) = map.fd else {
            let message = format!("map {} is not pinned, so that the agent has no way to it", name.map);
            return Err(failures::failure(FailureReason::NotStreamed, message));
        };
        let map_id = map.info.id;
        let request = Request { fd, info: map.info, shape, owners: Owners::new(cgroups, pods) };
        let hub = Arc::clone(&self.hub);
        let subscribed = spawn_blocking(move || hub.subscribe(request)).await.map_err(failures::defect)?;
        let subscription = subscribed.map_err(|error| refused(&error, &name))?;
        if subscription.is_first() {
            tokio::spawn(self.clone().watch(name, map_id, Arc::downgrade(subscription.buffer())));
        }
        Ok(parts(subscription))
    }

    async fn inspect(&self, name: &MapName) -> Result<InspectedStream, Failure> {
        match self.inquirer.ask(Inquiry::Stream(name.clone())).await? {
            Inspection::Stream(stream) => Ok(*stream),
            Inspection::Missing(missing) => Err(failures::missing(missing, &name.program, Some(&name.map))),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the type of a buffer's records; or why the agent does not read it.
    async fn shape(&self, inspected: &InspectedStream, name: &MapName) -> Result<RecordShape, Failure> {
        let stream = stream_of(inspected, name)?;
        if stream.type_name.is_none() {
            return Ok(RecordShape::default());
        }
        let untyped = |why: String| {
            let message = format!("the type of the records of map {} is not known: {why}", name.map);
            failures::failure(FailureReason::Unavailable, message)
        };
        let bytes = self.objects.bytes(inspected.map.object.clone()).await.map_err(untyped)?;
        let object = Object::read(&bytes).map_err(|error| untyped(error.to_string()))?;
        RecordShape::of(&object, stream).map_err(|mistake| untyped(format!("stream{mistake}")))
    }

    /// Ends a buffer once it is another one, or its records are of another type; tells it of pods that come and go.
    async fn watch(self, name: MapName, map_id: u32, buffer: Weak<Buffer>) {
        // What the type was worked out of last: to work it out again takes the object, and a pass over its types.
        let mut known = None;
        loop {
            sleep(LOOK).await;
            let Some(buffer) = buffer.upgrade().filter(|buffer| buffer.is_live()) else { return };
            let inspected = match self.inspect(&name).await {
                Ok(inspected) if inspected.map.info.id == map_id => inspected,
                Ok(_) => return buffer.end(REMADE),
                Err(failure) if is_gone(&failure) => return buffer.end(&failure.message),
                Err(_) => continue,
            };
            let origin = inspected.map.object.digest().map(|digest| (digest.to_owned(), inspected.stream.clone()));
            if origin.is_some() && origin == known {
                buffer.writer.update(|owners| owners.set_pods(inspected.pods));
                continue;
            }
            match self.shape(&inspected, &name).await {
                Ok(shape) if buffer.writer.is_like(&shape) => {
                    known = origin;
                    buffer.writer.update(|owners| owners.set_pods(inspected.pods));
                }
                Ok(_) => return buffer.end(RETYPED),
                // The object may come back.
                Err(failure) if failure.reason == FailureReason::Unavailable => {}
                Err(failure) => return buffer.end(&failure.message),
            }
        }
    }
}

const fn is_gone(failure: &Failure) -> bool {
    matches!(failure.reason, FailureReason::ProgramNotFound | FailureReason::MapNotFound)
}

/// Returns what the spec says of a buffer's records; or why the agent does not read them.
fn stream_of<'a>(
    inspected: &'a InspectedStream,
    MapName { program, map }: &MapName,
) -> Result<&'a StreamSpec, Failure> {
    let why = match &inspected.stream {
        _ if !BUFFERS.contains(&inspected.map.info.map_type) => {
            format!("map {map} is no ring or perf buffer, and has entries in place of records")
        }
        None => format!(
            "BpfProgram {program} does not say who reads map {map}, and reading consumes: set spec.maps[].stream \
             {{reader: Agent}} for it if nothing else does"
        ),
        Some(stream) if !stream.is_agents() => format!(
            "another process reads map {map} (spec.maps[].stream.reader of BpfProgram {program} is External), and a \
             buffer has one reader"
        ),
        Some(stream) => return Ok(stream),
    };
    Err(failures::failure(FailureReason::NotStreamed, why))
}

fn refused(error: &SubscribeError, name: &MapName) -> Failure {
    let MapName { program, map } = name;
    match error {
        SubscribeError::TooMany => failures::failure(FailureReason::TooManyReaders, error.to_string()),
        SubscribeError::Refused(kernel) if kernel.call == "perf_event_open" => failures::failure(
            FailureReason::NotStreamed,
            format!(
                "the kernel lets the agent read no perf buffers ({kernel}), as Debian's does while \
                 kernel.perf_event_paranoid is 3: set it to 2 on the node, or have {program} write to a ring buffer in \
                 place of {map}"
            ),
        ),
        SubscribeError::Refused(kernel) => failures::failure(
            FailureReason::Refused,
            format!("the kernel does not let the agent read map {map} of BpfProgram {program}: {kernel}"),
        ),
        SubscribeError::NoThread => failures::failure(FailureReason::Other, error.to_string()),
    }
}

/// Returns what a subscription gets as lines.
fn parts(subscription: Subscription) -> Parts {
    Box::pin(stream::unfold(subscription, |mut subscription| async move {
        let next = subscription.next().await?;
        Some((lines(next), subscription))
    }))
}

fn lines(next: Next) -> Result<Bytes, Aborted> {
    let mut bytes = Vec::new();
    let mut add = |record: Record| {
        bytes.extend(serde_json::to_vec(&record).map_err(|error| Aborted(error.to_string()))?);
        bytes.push(b'\n');
        Ok(())
    };
    match next {
        Next::End(why) => add(Record::End { message: why.to_string() })?,
        Next::Read(Read { lost, dropped, lines }) => {
            if lost > 0 {
                add(Record::Lost { count: lost })?;
            }
            if dropped > 0 {
                add(Record::Dropped { count: dropped })?;
            }
            bytes.extend(lines);
        }
    }
    Ok(bytes.into())
}
