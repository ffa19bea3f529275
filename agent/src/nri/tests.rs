//! What is said on the socket, without one. `tests/nri/recorded.bin` is what github.com/containerd/nri 0.12.3 said to a plugin:
//! configured, synchronized with one container, asked of a pod, asked of a container.

use proptest::prelude::*;
use prost::{Message as _, bytes::Bytes};
use tokio::sync::mpsc;

use super::{
    Hooked, Starting,
    dialog::{Dialog, Taken, rule},
    frame::{Decoder, Garbage, Kind, Line, Message},
    proto,
    session::Lost,
};

const RECORDED: &[u8] = include_bytes!("../../tests/nri/recorded.bin");

/// All messages in some bytes, which come in pieces.
fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Message>, Garbage> {
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

fn dialog() -> (Dialog, mpsc::Receiver<Starting>) {
    let (starts, receiver) = mpsc::channel(1);
    (Dialog::new(starts), receiver)
}

/// What a dialog answers to one call.
fn call(dialog: &mut Dialog, method: &str, what: &impl prost::Message) -> Result<Taken, Lost> {
    let (service, payload) = (proto::PLUGIN.to_owned(), Bytes::from(what.encode_to_vec()));
    let request = proto::Request { service, method: method.to_owned(), payload, timeout_nano: 0 };
    dialog.take(Message::new(Line::Plugin, Kind::Request, 7, &request))
}

/// The code of an answer that refuses.
fn code(answer: &Message) -> i32 {
    proto::Response::decode(answer.payload.clone()).unwrap().status.map_or(0, |status| status.code)
}

#[tokio::test]
async fn what_the_runtime_said_is_understood() {
    let messages = decoded([RECORDED]).unwrap();
    let streams: Vec<_> = messages.iter().map(|message| (message.line, message.kind, message.stream)).collect();
    let mut expected = vec![(Line::Runtime, Kind::Response, 1)];
    expected.extend([1, 3, 5, 7].map(|stream| (Line::Plugin, Kind::Request, stream)));
    let sorted = |mut all: Vec<(Line, Kind, u32)>| {
        all.sort_by_key(|(line, _, stream)| (*line as u32, *stream));
        all
    };
    assert_eq!(sorted(streams), sorted(expected));

    let (mut dialog, mut starts) = dialog();
    let (mut events, mut hooked, mut asked) = (0, None, Vec::new());
    for message in messages {
        match dialog.take(message).unwrap() {
            Taken::Nothing => {}
            Taken::Said(answer) => {
                let response = proto::Response::decode(answer.payload).unwrap();
                events = proto::ConfigureResponse::decode(response.payload).unwrap().events;
            }
            Taken::Hooked(_, now) => hooked = Some(now),
            Taken::Held(stream, ruling) => {
                let ruling = tokio::spawn(ruling);
                let Starting { pod, container, answer } = starts.recv().await.unwrap();
                answer.send(Ok(())).unwrap();
                assert_eq!(ruling.await.unwrap(), Ok(()));
                asked.push((stream, pod, container));
            }
        }
    }
    assert_eq!(events, 0b10_0001);
    let Some(Hooked::Yes { runtime, version, running }) = hooked else { panic!("{hooked:?}") };
    assert_eq!((runtime.as_str(), version.as_str()), ("containerd", "v2.4.2"));
    let [(pod, container)] = &running[..] else { panic!("{running:?}") };
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
async fn runtimes_from_before_there_was_a_call_for_each_event_are_answered() {
    let (mut dialog, mut starts) = dialog();
    let pod = Some(proto::PodSandbox { name: "p".to_owned(), ..Default::default() });
    let container = Some(proto::Container { name: "c".to_owned(), ..Default::default() });
    let start = proto::StateChangeEvent { event: proto::START_CONTAINER, pod: pod.clone(), container };
    let Taken::Held(7, ruling) = call(&mut dialog, "StateChange", &start).unwrap() else { panic!("not held") };
    let ruling = tokio::spawn(ruling);
    let starting = starts.recv().await.unwrap();
    assert_eq!((starting.pod.name.as_str(), starting.container.unwrap().name.as_str()), ("p", "c"));
    drop(starting.answer);
    assert_eq!(ruling.await.unwrap(), Err("sockeye's agent gave no answer".to_owned()));

    const REMOVE_CONTAINER: i32 = 11;
    let other = proto::StateChangeEvent { event: REMOVE_CONTAINER, pod, container: None };
    let Taken::Said(answer) = call(&mut dialog, "StateChange", &other).unwrap() else { panic!("held") };
    assert_eq!(code(&answer), 0);
}

#[test]
fn what_is_not_asked_for_is_refused_by_its_name() {
    let (mut dialog, _starts) = dialog();
    let Taken::Said(answer) = call(&mut dialog, "CreateContainer", &()).unwrap() else { panic!("held") };
    assert_eq!(code(&answer), proto::UNIMPLEMENTED);
    let Taken::Said(answer) = call(&mut dialog, "StartContainer", &()).unwrap() else { panic!("held") };
    assert_eq!(code(&answer), proto::INVALID_ARGUMENT);
}

#[test]
fn a_refusal_fits_an_event_and_a_frame() {
    let encoded = rule(1, Err("ä".repeat(10_000))).encode();
    assert!(encoded.len() < 1024, "{}", encoded.len());
    let response = proto::Response::decode(decoded([&encoded[..]]).unwrap()[0].payload.clone()).unwrap();
    assert_eq!(response.status.unwrap().message, "ä".repeat(400));
}

#[test]
fn a_runtime_that_refuses_the_plugin_ends_the_dialog() {
    let (mut dialog, _starts) = dialog();
    let status = Some(proto::Status { code: 2, message: "invalid plugin index".to_owned() });
    let refusal = proto::Response { status, ..Default::default() };
    let lost = dialog.take(Message::new(Line::Runtime, Kind::Response, 1, &refusal)).err().unwrap();
    assert_eq!(lost.to_string(), "the runtime refuses the plugin: invalid plugin index");
}

#[test]
fn lengths_that_no_message_has_are_garbage() {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    assert_eq!(decoded([&bytes(&[1, 0xffff_ffff])[..]]), Err(Garbage::Frame(0xffff_ffff)));
    assert_eq!(decoded([&bytes(&[1, 12, 5 << 20, 1, 0x0100_0000])[..]]), Err(Garbage::Length(5 << 20)));
    assert_eq!(decoded([&bytes(&[2, 12, 0, 1, 0x0900_0000])[..]]), Err(Garbage::Kind(9)));
    // What is for no connection is for nobody.
    assert_eq!(decoded([&bytes(&[0, 4, 1])[..]]), Ok(Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn where_reads_and_frames_end_means_nothing(size in 1_usize..6000, payload in prop::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert_eq!(decoded(RECORDED.chunks(size)), decoded([RECORDED]));
        let message = Message { line: Line::Runtime, kind: Kind::Request, stream: 9, payload: payload.into() };
        prop_assert_eq!(decoded(message.encode().chunks(size)), Ok(vec![message]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_bytes_make_it_panic(at in 0_usize..200, damage in prop::collection::vec(any::<u8>(), 1..300), appended in any::<bool>()) {
        // Most of the recording is one long annotation; what has a shape is before and after it.
        let mut bytes = RECORDED.to_vec();
        let at = if appended { bytes.len() - at } else { at };
        bytes.truncate(at.max(1));
        bytes.extend(damage);
        bytes.extend(&RECORDED[at.min(RECORDED.len())..]);
        let (mut dialog, _starts) = dialog();
        for message in decoded([&bytes[..]]).unwrap_or_default() {
            let _refused = dialog.take(message);
        }
    }
}
