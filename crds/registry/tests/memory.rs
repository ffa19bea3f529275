//! The memory that hostile registries cost. One test, in a process of its own: it reads the most that the process had.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, time::Duration};

use serde_json::json;
use sockeye_image::{
    Digest,
    fixtures::{artifact, bpfman, bpfman_config, entry, entry_of_size, gzip, index, object, tar},
};
use sockeye_registry::Client;

#[path = "attacks/content.rs"]
#[allow(dead_code, reason = "the tests in attacks use more of it")]
mod content;
#[path = "attacks/server.rs"]
#[allow(dead_code, reason = "the tests in attacks use more of it")]
mod server;

use content::{Content, image, insecure};
use server::{Reply, Server, challenge, head};

/// The most that an attack may add, in KiB. An image itself may have 4 MiB each of index, manifest and layer.
const BOUND: u64 = 24 << 10;

/// Returns the most memory that the process had since the last call, in KiB (proc(5), `VmHWM` and `clear_refs`).
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = line.trim().trim_end_matches(" kB").parse().unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak
}

fn endless(head: Vec<u8>) -> Reply {
    Reply::Endless { head, piece: vec![b' '; 64 << 10], pause: Duration::ZERO }
}

/// Returns a registry with an image whose layer has 64 MiB that are sent one piece after another.
async fn with_large_layer() -> (Server, Digest) {
    let mut manifest: serde_json::Value = serde_json::from_slice(&bpfman(b"x")).unwrap();
    manifest["layers"][0]["size"] = json!(64 << 20);
    let manifest = manifest.to_string().into_bytes();
    let content = Content::default().manifest("v1", &manifest).blob(&bpfman_config());
    let file = entry_of_size(b'0', "spaces", b"", 63 << 20);
    let begun = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03\0\0\x02\xff\xfd".as_slice(), &file].concat();
    let server = Server::plain(move |seen| match seen.line.ends_with(Digest::of(b"x").as_str()) {
        // A file in stored blocks, so that there is much to unpack, too.
        true => Reply::Endless {
            head: [head(200, &[], Some(64 << 20)), begun.clone()].concat(),
            piece: [b"\0\xfb\xff\x04\0".as_slice(), &[b' '; 0xfffb]].concat(),
            pause: Duration::ZERO,
        },
        false => content.reply(seen),
    })
    .await;
    (server, Digest::of(&manifest))
}

async fn with_bomb() -> (Server, Digest) {
    let files = tar(&[entry(b'0', "zeros", &vec![0; 1 << 20])]);
    let packed = gzip(&files[..files.len() - 1024]);
    let layer = packed.repeat(256);
    let manifest = bpfman(&layer);
    let content = Content::default().manifest("v1", &manifest).blob(&layer).blob(&bpfman_config());
    (Server::plain(move |seen| content.reply(seen)).await, Digest::of(&manifest))
}

async fn with_many_images() -> (Server, Digest) {
    let manifest = artifact(&object(b"x"));
    let entries: Vec<_> = (0..10_000).map(|_| ("linux/amd64", manifest.as_slice())).collect();
    let list = index(&entries);
    let content = Content::default().manifest("v1", &list).manifest("x", &manifest).blob(&object(b"x"));
    (Server::plain(move |seen| content.reply(seen)).await, Digest::of(&list))
}

/// Returns a registry with a manifest of 1 MiB whose entries have few bytes each.
async fn with_many_small_entries() -> (Server, Digest) {
    let mut manifest: serde_json::Value = serde_json::from_slice(&artifact(&object(b"x"))).unwrap();
    let entry = json!({"digest": "", "size": 0, "annotations": {"": ""}});
    let layers = manifest["layers"].as_array_mut().unwrap();
    layers.resize(layers.len() + (1 << 20) / entry.to_string().len(), entry);
    let manifest = manifest.to_string().into_bytes();
    let content = Content::default().manifest("v1", &manifest).blob(&object(b"x"));
    (Server::plain(move |seen| content.reply(seen)).await, Digest::of(&manifest))
}

#[tokio::test]
async fn attacks_cost_a_bounded_amount_of_memory() {
    let nothing = Digest::of(b"");
    let realm = Server::plain(|_| endless(head(200, &[], None))).await;
    let with = format!(r#"Bearer realm="http://{}/""#, realm.authority);
    let attacks = [
        ("an endless manifest", Server::plain(|_| endless(head(200, &[], None))).await, nothing.clone(), true),
        ("an endless error", Server::plain(|_| endless(head(500, &[], None))).await, nothing.clone(), true),
        (
            "an endless header",
            Server::plain(|_| endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec())).await,
            nothing.clone(),
            true,
        ),
        ("an endless token", Server::plain(move |_| challenge(&with)).await, nothing, true),
        ("a layer of 64 MiB", with_large_layer().await.0, with_large_layer().await.1, true),
        ("a bomb", with_bomb().await.0, with_bomb().await.1, true),
        ("a manifest of small entries", with_many_small_entries().await.0, with_many_small_entries().await.1, true),
        ("an index of 10,000 images", with_many_images().await.0, with_many_images().await.1, false),
    ];
    for (what, server, digest, fails) in attacks {
        let mut settings = insecure(&[&server]);
        settings.registries.get_mut(&server.authority).unwrap().realm_hosts = vec![realm.authority.clone()];
        let (client, image) = (Client::new(settings).unwrap(), image(&server));
        peak();
        let before = peak();
        let result = client.pull(&image, &digest).await;
        let added = peak().saturating_sub(before);
        println!("{what}: {added} KiB, {:?}", result.as_ref().err().map(ToString::to_string));
        assert_eq!(result.is_err(), fails, "{what}");
        assert!(added < BOUND, "{what} cost {added} KiB");
    }
    // What would show: a layer that is kept.
    let (server, digest) = with_large_layer().await;
    let mut settings = insecure(&[&server]);
    settings.limits.kept_layer = 64 << 20;
    let client = Client::new(settings).unwrap();
    peak();
    let before = peak();
    assert!(client.pull(&image(&server), &digest).await.is_err());
    assert!(peak() - before > 2 * BOUND);
}
