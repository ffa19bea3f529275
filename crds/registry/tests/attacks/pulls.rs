//! Pulls, each of the content that its digest names.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use sockeye_image::{
    Digest, Error as Wrong, Format,
    fixtures::{artifact, bpfman, bpfman_config, entry, gadget, gzip, index, manifest, object, tar},
    format::OBJECT,
};
use sockeye_registry::Error;

use crate::{
    content::{Content, client_of, image},
    server::{Server, answer, head, ok},
};

#[tokio::test]
async fn each_format_is_pulled() {
    let object = object(b"program");
    let layer = gzip(&tar(&[entry(b'0', "pass.bpf.o", &object)]));
    for (manifest, layer, format) in [
        (artifact(&object), object.clone(), Format::Artifact),
        (gadget(&object), object.clone(), Format::InspektorGadget),
        (bpfman(&layer), layer, Format::Bpfman),
    ] {
        let content = Content::default().manifest("v1", &manifest).blob(&layer).blob(&bpfman_config());
        let server = Server::plain(move |seen| content.reply(seen)).await;
        let (client, image) = (client_of(&server), image(&server));
        let digest = client.resolve(&image).await.unwrap();
        assert_eq!(digest, Digest::of(&manifest));
        let pulled = client.pull(&image, &digest).await.unwrap();
        let [(architecture, pulled)] = pulled.into_iter().collect::<Vec<_>>().try_into().unwrap();
        assert!(architecture.is_any());
        assert_eq!((pulled.format, &pulled.object, pulled.layer), (format, &object, Some(layer)));
        assert_eq!((pulled.digest, pulled.index, pulled.manifest), (digest, None, manifest));
    }
}

#[tokio::test]
async fn of_an_index_the_architectures_that_count_are_pulled() {
    let (amd64, arm64) = (object(b"amd64"), object(b"arm64"));
    let (first, second, other) = (artifact(&amd64), gadget(&arm64), artifact(b"other"));
    let list = index(&[("linux/s390x", &other), ("linux/amd64", &first), ("linux/arm64", &second)]);
    let content = Content::default().manifest("v1", &list).manifest("x", &first).manifest("y", &second);
    let content = content.blob(&amd64).blob(&arm64);
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let pulled = client_of(&server).pull(&image(&server), &Digest::of(&list)).await.unwrap();
    let objects: Vec<_> = pulled.iter().map(|(name, image)| (name.as_str(), image.object.clone())).collect();
    assert_eq!(objects, [("amd64", amd64), ("arm64", arm64)]);
    assert!(pulled.values().all(|image| image.index.as_ref() == Some(&list) && image.digest == Digest::of(&list)));
    assert_eq!(server.lines().len(), 5, "{:?}", server.lines());
}

#[tokio::test]
async fn a_tag_that_moves_changes_nothing_that_is_named_by_digest() {
    let (old, new) = (object(b"old"), object(b"new"));
    let before = Content::default().manifest("v1", &artifact(&old)).blob(&old);
    let after = before.clone().manifest("v1", &artifact(&new)).blob(&new);
    let asked = AtomicUsize::new(0);
    let server =
        Server::plain(
            move |seen| {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 { before.reply(seen) } else { after.reply(seen) }
            },
        )
        .await;
    let (client, image) = (client_of(&server), image(&server));
    let first = client.resolve(&image).await.unwrap();
    let second = client.resolve(&image).await.unwrap();
    assert_eq!((&first, &second), (&Digest::of(&artifact(&old)), &Digest::of(&artifact(&new))));
    let pulled = client.pull(&image, &first).await.unwrap();
    assert_eq!(pulled.values().next().unwrap().object, old);
}

#[tokio::test]
async fn a_reference_with_a_digest_is_resolved_without_the_registry() {
    let server = Server::plain(|_| answer(500, &[], b"")).await;
    let digest = Digest::of(b"x");
    let image = format!("{}/team/guard:v1@{digest}", server.authority).parse().unwrap();
    assert_eq!(client_of(&server).resolve(&image).await, Ok(digest));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_registry_that_answers_no_head_is_asked_again() {
    let manifest = artifact(&object(b"x"));
    let digest = Digest::of(&manifest);
    for status in [200, 405] {
        let bytes = manifest.clone();
        let server = Server::plain(move |seen| match seen.line.starts_with("HEAD") {
            true => crate::server::Reply::Bytes(head(status, &[], Some(0))),
            false => ok("application/json", &bytes),
        })
        .await;
        assert_eq!(client_of(&server).resolve(&image(&server)).await.as_ref(), Ok(&digest));
        assert_eq!(server.lines(), ["HEAD /v2/team/guard/manifests/v1", "GET /v2/team/guard/manifests/v1"]);
    }
}

/// Returns what a pull of `digest` fails with, where the registry answers so.
async fn wrong(digest: &Digest, content: Content) -> (Wrong, String) {
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let error = client_of(&server).pull(&image(&server), digest).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("team/guard"), "{error}");
    let text = error.to_string();
    match error {
        Error::Content { source, .. } => (source, text),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_wherever_they_are() {
    let (ours, theirs) = (object(b"ours"), object(b"thei"));
    let layer = gzip(&tar(&[entry(b'0', "x", &ours)]));
    let (manifest, list) = (artifact(&ours), index(&[("linux/amd64", &artifact(&ours))]));
    let path = |kind: &str, bytes: &[u8]| format!("/v2/team/guard/{kind}/{}", Digest::of(bytes));
    let good = Content::default().manifest("v1", &manifest).manifest("v1", &list).manifest("v1", &bpfman(&layer));
    let good = good.blob(&ours).blob(&layer).blob(&bpfman_config());
    for (pulled, changed, with) in [
        (&manifest, path("manifests", &manifest), artifact(&theirs)),
        (&list, path("manifests", &list), index(&[("linux/amd64", &artifact(&theirs))])),
        (&list, path("manifests", &manifest), artifact(&theirs)),
        (&manifest, path("blobs", &ours), theirs.clone()),
        (&bpfman(&layer), path("blobs", &layer), vec![0; layer.len()]),
        (&bpfman(&layer), path("blobs", &bpfman_config()), vec![b' '; bpfman_config().len()]),
    ] {
        let (error, text) = wrong(&Digest::of(pulled), good.clone().at(&changed, "x/y", &with)).await;
        assert!(matches!(error, Wrong::WrongDigest { .. }), "{changed}: {text}");
    }
}

#[tokio::test]
async fn a_layer_of_five_gigabytes_is_refused_before_it_is_asked_for() {
    for (manifest, limit) in [(artifact(b"x"), "1048576"), (bpfman(b"x"), "67108864")] {
        let mut text: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        text["layers"][0]["size"] = json!(5_000_000_000u64);
        let manifest = text.to_string().into_bytes();
        let content = Content::default().manifest("v1", &manifest);
        let server = Server::plain(move |seen| content.reply(seen)).await;
        let error = client_of(&server).pull(&image(&server), &Digest::of(&manifest)).await.unwrap_err().to_string();
        assert!(error.contains("5000000000 bytes") && error.contains(limit), "{error}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn a_manifest_that_an_index_says_is_huge_is_not_asked_for() {
    let mut list: serde_json::Value = serde_json::from_slice(&index(&[("linux/amd64", b"x")])).unwrap();
    list["manifests"][0]["size"] = json!(5_000_000_000u64);
    let list = list.to_string().into_bytes();
    let (error, text) = wrong(&Digest::of(&list), Content::default().manifest("v1", &list)).await;
    assert!(matches!(error, Wrong::TooLarge { .. }), "{text}");
}

#[tokio::test]
async fn a_container_image_that_is_none_of_an_object_is_refused() {
    let layer = gzip(&tar(&[entry(b'0', "x", &object(b"x"))]));
    let config = br#"{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"b"}}}"#;
    let manifest = manifest((sockeye_image::fixtures::CONFIG, config), &[(sockeye_image::fixtures::TAR_GZIP, &layer)]);
    let content = Content::default().manifest("v1", &manifest).blob(config).blob(&layer);
    let (_, text) = wrong(&Digest::of(&manifest), content).await;
    assert!(text.contains("without the labels io.ebpf.*"), "{text}");
}

#[tokio::test]
async fn a_hostile_archive_is_refused_with_its_names() {
    let object = object(b"x");
    let entries = [entry(b'0', "../../etc/x.o", &object), entry(b'2', "link.o", b""), entry(b'3', "dev", b"")];
    let layer = gzip(&tar(&entries));
    let manifest = bpfman(&layer);
    let content = Content::default().manifest("v1", &manifest).blob(&layer).blob(&bpfman_config());
    let (_, text) = wrong(&Digest::of(&manifest), content).await;
    for named in ["../../etc/x.o", "a symbolic link", "a device"] {
        assert!(text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let server = Server::plain(|seen| Content::default().reply(seen)).await;
    let (client, image) = (client_of(&server), image(&server));
    let error = client.resolve(&image).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("team/guard:v1"), "{error}");
    let manifest = manifest((OBJECT, b"{}"), &[(OBJECT, b"x")]);
    let content = Content::default().manifest("v1", &manifest);
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let error = client_of(&server).pull(&super::content::image(&server), &Digest::of(&manifest)).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { what, .. } if what.contains("the layer")), "{error}");
}
