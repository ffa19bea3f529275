//! Bounds of bytes and time, whatever a registry sends.

use std::{future::Future, time::Duration};

use sockeye_image::{
    Digest, Error as Wrong, Limits,
    fixtures::{artifact, bpfman, bpfman_config, entry, gzip, object, tar},
};
use sockeye_registry::{AnswerLimits, Client, Error, Settings, Timeouts};

use crate::{
    content::{Content, client_of, client_with, image, insecure, timeouts},
    server::{Reply, Seen, Server, answer, head, timed},
};

const NO_PAUSE: Duration = Duration::ZERO;
/// The bytes that both sockets of a connection take beyond those that are read (net.ipv4.tcp_rmem and tcp_wmem).
const BUFFERED: u64 = 12 << 20;
/// The longest that any of these takes on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// Runs work that has to fail soon, before the server has sent much more than `limit` bytes.
async fn fails_within<T: std::fmt::Debug>(
    server: &Server,
    limit: u64,
    work: impl Future<Output = Result<T, Error>>,
) -> Error {
    let (result, took) = timed(work).await;
    let error = result.expect_err("an error");
    assert!(took < SOON, "{took:?}: {error}");
    assert!(server.sent() <= limit + BUFFERED, "{} bytes were sent: {error}", server.sent());
    assert!(error.to_string().len() < 2000 && !error.to_string().contains(char::is_control), "{error}");
    error
}

fn endless(headers: &[(&str, &str)]) -> Reply {
    Reply::Endless { head: head(200, headers, None), piece: vec![b' '; 64 << 10], pause: NO_PAUSE }
}

fn in_chunks() -> Reply {
    let piece = [format!("{:x}\r\n", 64 << 10).into_bytes(), vec![b' '; 64 << 10], b"\r\n".to_vec()].concat();
    Reply::Endless { head: head(200, &[("Transfer-Encoding", "chunked")], None), piece, pause: NO_PAUSE }
}

#[tokio::test]
async fn an_endless_manifest_is_read_up_to_its_limit() {
    for reply in [|| endless(&[]), in_chunks, || endless(&[("Content-Length", "5000000000")])] {
        let server = Server::plain(move |_| reply()).await;
        let client = client_of(&server);
        let pulling = async { client.pull(&image(&server), &Digest::of(b"")).await };
        let error = fails_within(&server, 4 << 20, pulling).await;
        assert!(matches!(error, Error::TooLarge { limit: 4_194_304, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_length_that_is_too_large_is_believed() {
    let server = Server::plain(|_| Reply::Stall(head(200, &[], Some(5_000_000_000)))).await;
    // The server sends nothing more, so that only the length tells.
    let error = client_of(&server).pull(&image(&server), &Digest::of(b"")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_layer_that_does_not_end_is_read_up_to_its_size() {
    let (object, layer) = (object(b"x"), gzip(b"x"));
    for (manifest, blob) in [(artifact(&object), object), (bpfman(&layer), layer)] {
        let content = Content::default().manifest("v1", &manifest).blob(&bpfman_config());
        let path = Digest::of(&blob).to_string();
        let server = Server::plain(move |seen| match seen.line.ends_with(&path) {
            true => endless(&[]),
            false => content.reply(seen),
        })
        .await;
        let client = client_of(&server);
        let pulling = async { client.pull(&image(&server), &Digest::of(&manifest)).await };
        let error = fails_within(&server, 64 << 10, pulling).await;
        assert!(matches!(error, Error::Content { source: Wrong::WrongSize { .. }, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_gzip_bomb_ends_at_what_may_be_unpacked() {
    // Files that are no objects, so that all of it would have to be unpacked: 256 MiB from 260 KiB.
    let piece = tar(&[entry(b'0', "zeros", &vec![0; 8 << 20])]);
    let archive: Vec<u8> = std::iter::repeat_n(&piece[..piece.len() - 1024], 32).flatten().copied().collect();
    let layer = gzip(&archive);
    assert!(layer.len() < 1 << 20, "{}", layer.len());
    let manifest = bpfman(&layer);
    let content = Content::default().manifest("v1", &manifest).blob(&layer).blob(&bpfman_config());
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let client = client_of(&server);
    let pulling = async { client.pull(&image(&server), &Digest::of(&manifest)).await };
    let error = fails_within(&server, 1 << 20, pulling).await.to_string();
    assert!(error.contains("unpacks to more than 134217728 bytes"), "{error}");
}

#[tokio::test]
async fn an_endless_header_is_read_up_to_its_limit() {
    let line = b"X-Name: 0123456789012345678901234567890123456789\r\n";
    let few_long = [b"X-Name: ".as_slice(), &[b'x'; 9000]].concat();
    for piece in [line.repeat(100), few_long] {
        let server = Server::plain(move |_| Reply::Endless {
            head: b"HTTP/1.1 200 OK\r\n".to_vec(),
            piece: piece.clone(),
            pause: NO_PAUSE,
        })
        .await;
        let client = client_of(&server);
        let error = fails_within(&server, 64 << 10, async { client.resolve(&image(&server)).await }).await;
        assert!(error.to_string().contains(&server.authority), "{error}");
    }
}

#[tokio::test]
async fn answers_that_only_announce_one_end_in_time() {
    let server = Server::plain(|_| Reply::Endless {
        head: Vec::new(),
        piece: b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
        pause: Duration::from_millis(1),
    })
    .await;
    let short = Timeouts { silence: Duration::from_millis(600), resolve: Duration::from_secs(3), ..timeouts() };
    let client = client_with(&server, short);
    fails_within(&server, 1 << 20, async { client.resolve(&image(&server)).await }).await;
}

#[tokio::test]
async fn of_an_endless_error_the_beginning_is_read() {
    let server = Server::plain(|seen| match seen.line.starts_with("HEAD") {
        true => answer(200, &[], b""),
        false => Reply::Endless { head: head(500, &[], None), piece: vec![b'e'; 64 << 10], pause: NO_PAUSE },
    })
    .await;
    let client = client_of(&server);
    let error = fails_within(&server, 64 << 10, async { client.resolve(&image(&server)).await }).await;
    assert!(matches!(&error, Error::Failed { status: 500, detail, .. } if detail.is_empty()), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn one_byte_after_another_ends_in_time() {
    let server = Server::plain(|_| Reply::Endless {
        head: head(200, &[], None),
        piece: b" ".to_vec(),
        pause: Duration::from_millis(100),
    })
    .await;
    let client = client_with(&server, Timeouts { pull: Duration::from_secs(3), ..timeouts() });
    let pulling = async { client.pull(&image(&server), &Digest::of(b"")).await };
    let error = fails_within(&server, 1 << 10, pulling).await;
    assert!(matches!(&error, Error::TimedOut { what, .. } if what.contains("pulling")), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn silence_ends_in_time() {
    let silence = Duration::from_millis(600);
    for bytes in [Vec::new(), b"HTTP/1.1 2".to_vec(), head(200, &[], Some(10)), b"HTTP/1.1 200 OK\r\nA: b\r\n".to_vec()]
    {
        let server = Server::plain(move |_| Reply::Stall(bytes.clone())).await;
        let client = client_with(&server, Timeouts { silence, ..timeouts() });
        let pulling = async { client.pull(&image(&server), &Digest::of(b"")).await };
        let (result, took) = timed(pulling).await;
        let error = result.unwrap_err();
        assert!(matches!(error, Error::TimedOut { limit, .. } if limit == silence), "{error}");
        assert!(error.is_transient() && took >= silence, "{took:?}: {error}");
    }
}

#[tokio::test]
async fn a_broken_connection_may_be_better_next_time() {
    for bytes in [Vec::new(), head(200, &[], Some(10)), b"HTTP/1.1 200".to_vec()] {
        for ends in [false, true] {
            let bytes = bytes.clone();
            let reply = move |_: &Seen| if ends { Reply::Bytes(bytes.clone()) } else { Reply::Reset(bytes.clone()) };
            let server = Server::plain(reply).await;
            let client = client_of(&server);
            let pulling = async { client.pull(&image(&server), &Digest::of(b"")).await };
            let error = fails_within(&server, 1 << 10, pulling).await;
            assert!(error.is_transient(), "{error}");
        }
    }
    let image = "127.0.0.1:1/team/guard:v1".parse().unwrap();
    let error = Client::new(insecure(&[])).unwrap().resolve(&image).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { host, .. } if host == "127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn what_is_no_http_is_named() {
    let server = Server::plain(|_| Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())).await;
    let error = client_of(&server).resolve(&image(&server)).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("is it a registry?"), "{error}");
    let server = Server::plain(|_| answer(200, &[("Content-Encoding", "gzip")], &gzip(b"{}"))).await;
    let error = client_of(&server).pull(&image(&server), &Digest::of(b"")).await.unwrap_err();
    assert!(error.to_string().contains("packs its answer"), "{error}");
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (status, headers, is_transient, retry_after, named) in [
        (429, &[("Retry-After", "7")][..], true, Some(7), "asks to wait 7 s"),
        (429, &[("Retry-After", "99999999999")], true, Some(3600), "too often"),
        (429, &[("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT")], true, None, "too often"),
        (429, &[], true, None, "too often"),
        (503, &[("Retry-After", "3")], true, Some(3), "HTTP 503 (DENIED: no\\nway)"),
        (500, &[], true, None, "HTTP 500 (DENIED: no\\nway)"),
        (408, &[], true, None, "HTTP 408"),
        (403, &[], false, None, "does not allow it (DENIED: no\\nway)"),
        (404, &[], false, None, "is not there"),
        (418, &[], false, None, "answers HTTP 418 (DENIED: no\\nway)"),
        (304, &[], false, None, "answers HTTP 304"),
        (206, &[], false, None, "answers HTTP 206"),
    ] {
        let body = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\nway\",\"detail\":[[1]]}]}";
        let server = Server::plain(move |_| answer(status, headers, body.as_bytes())).await;
        let error = client_of(&server).pull(&image(&server), &Digest::of(b"")).await.unwrap_err();
        assert_eq!(error.is_transient(), is_transient, "{error}");
        assert_eq!(error.retry_after().map(|time| time.as_secs()), retry_after, "{error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

#[tokio::test]
async fn limits_are_those_of_the_settings() {
    let manifest = artifact(&object(b"x"));
    let content = Content::default().manifest("v1", &manifest).blob(&object(b"x"));
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let settings = Settings { limits: Limits { manifest: 100, ..Limits::default() }, ..insecure(&[&server]) };
    let client = Client::new(settings).unwrap();
    let error = client.pull(&image(&server), &Digest::of(&manifest)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error}");
    let answers = AnswerLimits { header_fields: 1, ..AnswerLimits::default() };
    let client = Client::new(Settings { answers, ..insecure(&[&server]) }).unwrap();
    assert!(client.pull(&image(&server), &Digest::of(&manifest)).await.is_err());
}
