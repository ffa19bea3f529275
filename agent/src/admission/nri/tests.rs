//! The protocol, without a socket. `tests/nri/recorded.bin` is what github.com/containerd/nri 0.12.3 sent to a plugin:
//! it configured the plugin, synchronized it with one container, and asked it about a pod and about a container.

use proptest::prelude::*;
use prost::{Message as _, bytes::Bytes};
use tokio::sync::mpsc;

use super::{
    RuntimeHook, Starting,
    error::SessionError,
    frame::{Channel, Decoder, FrameError, Kind, Message},
    plugin::{self, Plugin, Reply},
    proto,
};
use crate::model::start::Start;

const RECORDED: &[u8] = include_bytes!("../../../tests/nri/recorded.bin");

/// Decodes all messages in bytes that come in pieces.
fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Message>, FrameError> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn plugin() -> (Plugin, mpsc::Receiver<Starting>) {
    let (starts, receiver) = mpsc::channel(1);
    (Plugin::new(starts), receiver)
}

/// Calls a method of a plugin.
fn call(plugin: &mut Plugin, method: &str, content: &impl prost::Message) -> Result<Reply, SessionError> {
    let (service, payload) = (proto::PLUGIN.to_owned(), Bytes::from(content.encode_to_vec()));
    let request = proto::Request { service, method: method.to_owned(), payload, timeout_nano: 0 };
    plugin.receive(Message::new(Channel::Plugin, Kind::Request, 7, &request))
}

/// Returns the status code of an answer.
fn status_code(answer: &Message) -> i32 {
    proto::Response::decode(answer.payload.clone()).unwrap().status.map_or(0, |status| status.code)
}

#[tokio::test]
async fn a_recorded_conversation_is_understood() {
    let messages = decoded([RECORDED]).unwrap();
    let streams: Vec<_> = messages.iter().map(|message| (message.channel, message.kind, message.stream)).collect();
    let mut expected = vec![(Channel::Runtime, Kind::Response, 1)];
    expected.extend([1, 3, 5, 7].map(|stream| (Channel::Plugin, Kind::Request, stream)));
    let sorted = |mut all: Vec<(Channel, Kind, u32)>| {
        all.sort_by_key(|(channel, _, stream)| (*channel as u32, *stream));
        all
    };
    assert_eq!(sorted(streams), sorted(expected));

    let (mut plugin, mut starts) = plugin();
    let (mut events, mut hook, mut asked) = (0, None, Vec::new());
    for message in messages {
        match plugin.receive(message).unwrap() {
            Reply::None => {}
            Reply::Now(answer) => {
                let response = proto::Response::decode(answer.payload).unwrap();
                events = proto::ConfigureResponse::decode(response.payload).unwrap().events;
            }
            Reply::Connected(_, now) => hook = Some(now),
            Reply::Later(stream, decision) => {
                let decision = tokio::spawn(decision);
                let Starting { start: Start { pod, container }, answer } = starts.recv().await.unwrap();
                answer.send(Ok(())).unwrap();
                assert_eq!(decision.await.unwrap(), Ok(()));
                asked.push((stream, pod, container));
            }
        }
    }
    assert_eq!(events, 0b10_0001);
    let Some(RuntimeHook::Connected { runtime, version, running }) = hook else { panic!("{hook:?}") };
    assert_eq!((runtime.as_str(), version.as_str()), ("containerd", "v2.4.2"));
    let [Start { pod, container: Some(container) }] = &running[..] else { panic!("{running:?}") };
    assert_eq!((pod.name.as_str(), container.name.as_str()), ("running-0", "main"));

    let [(5, pod, None), (7, same, Some(container))] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(pod, same);
    assert_eq!((pod.uid.as_str(), pod.namespace.as_str(), pod.name.as_str()), ("uid-1", "default", "web-0"));
    assert_eq!(
        pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        ["app=web", "tier=front"]
    );
    assert_eq!((container.id.as_str(), container.name.as_str()), ("c1", "main"));
}

#[tokio::test]
async fn older_runtimes_that_send_all_events_in_one_message_are_answered() {
    let (mut plugin, mut starts) = plugin();
    let pod = Some(proto::PodSandbox { name: "p".to_owned(), ..Default::default() });
    let container = Some(proto::Container { name: "c".to_owned(), ..Default::default() });
    let start = proto::StateChangeEvent { event: proto::START_CONTAINER, pod: pod.clone(), container };
    let Reply::Later(7, decision) = call(&mut plugin, "StateChange", &start).unwrap() else { panic!("no start") };
    let decision = tokio::spawn(decision);
    let Starting { start, answer } = starts.recv().await.unwrap();
    assert_eq!((start.pod.name.as_str(), start.container.unwrap().name.as_str()), ("p", "c"));
    drop(answer);
    assert_eq!(decision.await.unwrap(), Err("sockeye's agent gave no answer".to_owned()));

    const REMOVE_CONTAINER: i32 = 11;
    let other = proto::StateChangeEvent { event: REMOVE_CONTAINER, pod, container: None };
    let Reply::Now(answer) = call(&mut plugin, "StateChange", &other).unwrap() else { panic!("a start") };
    assert_eq!(status_code(&answer), 0);
}

#[test]
fn unknown_methods_and_starts_without_a_pod_fail_with_their_codes() {
    let (mut plugin, _starts) = plugin();
    let Reply::Now(answer) = call(&mut plugin, "CreateContainer", &()).unwrap() else { panic!("a start") };
    assert_eq!(status_code(&answer), proto::UNIMPLEMENTED);
    let Reply::Now(answer) = call(&mut plugin, "StartContainer", &()).unwrap() else { panic!("a start") };
    assert_eq!(status_code(&answer), proto::INVALID_ARGUMENT);
}

#[test]
fn a_refusal_fits_an_event_and_a_frame() {
    let encoded = plugin::answer(1, Err("ä".repeat(10_000))).encode();
    assert!(encoded.len() < 1024, "{}", encoded.len());
    let response = proto::Response::decode(decoded([&encoded[..]]).unwrap()[0].payload.clone()).unwrap();
    assert_eq!(response.status.unwrap().message, "ä".repeat(400));
}

#[test]
fn a_plugin_that_the_runtime_rejects_ends_the_connection() {
    let (mut plugin, _starts) = plugin();
    let status = Some(proto::Status { code: 2, message: "invalid plugin index".to_owned() });
    let refusal = proto::Response { status, ..Default::default() };
    let error = plugin.receive(Message::new(Channel::Runtime, Kind::Response, 1, &refusal)).err().unwrap();
    assert_eq!(error.to_string(), "the runtime refuses the plugin: invalid plugin index");
}

#[test]
fn lengths_and_kinds_that_no_message_has_are_errors() {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    assert_eq!(decoded([&bytes(&[1, 0xffff_ffff])[..]]), Err(FrameError::FrameLength(0xffff_ffff)));
    assert_eq!(decoded([&bytes(&[1, 12, 5 << 20, 1, 0x0100_0000])[..]]), Err(FrameError::MessageLength(5 << 20)));
    assert_eq!(decoded([&bytes(&[2, 12, 0, 1, 0x0900_0000])[..]]), Err(FrameError::Kind(9)));
    // Bytes of an unknown channel are dropped.
    assert_eq!(decoded([&bytes(&[0, 4, 1])[..]]), Ok(Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn messages_decode_the_same_wherever_reads_and_frames_end(
        size in 1_usize..6000,
        payload in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        prop_assert_eq!(decoded(RECORDED.chunks(size)), decoded([RECORDED]));
        let message = Message { channel: Channel::Runtime, kind: Kind::Request, stream: 9, payload: payload.into() };
        prop_assert_eq!(decoded(message.encode().chunks(size)), Ok(vec![message]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_bytes_make_the_plugin_panic(
        at in 0_usize..200,
        damage in prop::collection::vec(any::<u8>(), 1..300),
        appended in any::<bool>(),
    ) {
        // Most of the recording is one long annotation: the damage goes before it or after it.
        let mut bytes = RECORDED.to_vec();
        let at = if appended { bytes.len() - at } else { at };
        bytes.truncate(at.max(1));
        bytes.extend(damage);
        bytes.extend(&RECORDED[at.min(RECORDED.len())..]);
        let (mut plugin, _starts) = plugin();
        for message in decoded([&bytes[..]]).unwrap_or_default() {
            let _refused = plugin.receive(message);
        }
    }
}
