//! The targets of redirects, and the credentials that go along.

use sockeye_image::{
    Digest,
    fixtures::{artifact, object},
};
use sockeye_registry::{Client, Error};

use crate::{
    content::{BASIC, Content, client_of, image, insecure, secret},
    server::{Server, answer, challenge, redirect},
};

#[tokio::test]
async fn a_layer_may_lie_elsewhere_and_is_asked_for_without_secrets() {
    let object = object(b"x");
    let manifest = artifact(&object);
    let (storage, bytes) = (Digest::of(&object).to_string(), object.clone());
    let elsewhere = Server::plain(move |_| answer(200, &[], &bytes)).await;
    let location = format!("http://{}/bucket/x?signature=abc", elsewhere.authority);
    let content = Content::default().manifest("v1", &manifest);
    let server = Server::plain(move |seen| match (&seen.authorization, seen.line.ends_with(&storage)) {
        (None, _) => challenge("Basic realm=\"x\""),
        (Some(_), true) => redirect(&location),
        (Some(_), false) => content.reply(seen),
    })
    .await;
    let client = Client::new(insecure(&[&server, &elsewhere])).unwrap().with_credentials(secret(&server.authority));
    let pulled = client.pull(&image(&server), &Digest::of(&manifest)).await.unwrap();
    assert_eq!(pulled.values().next().unwrap().object, object);
    let [seen] = elsewhere.seen().try_into().unwrap();
    assert_eq!((seen.line.as_str(), seen.authorization), ("GET /bucket/x?signature=abc", None));
    assert!(server.seen().iter().any(|seen| seen.authorization.as_deref() == Some(BASIC)));
    // What is kept is shown at once: one request without, all others with it.
    assert_eq!(server.seen().iter().filter(|seen| seen.authorization.is_none()).count(), 1);
}

#[tokio::test]
async fn within_the_registry_redirects_keep_the_secret() {
    let manifest = artifact(&object(b"x"));
    let content = Content::default().manifest("v1", &manifest).at("/moved", "x/y", &manifest).blob(&object(b"x"));
    let path = format!("manifests/{}", Digest::of(&manifest));
    let server = Server::plain(move |seen| match (&seen.authorization, seen.line.ends_with(&path)) {
        (None, _) => challenge("Basic realm=\"x\""),
        (Some(_), true) => redirect("/moved"),
        (Some(_), false) => content.reply(seen),
    })
    .await;
    let client = client_of(&server).with_credentials(secret(&server.authority));
    assert!(client.pull(&image(&server), &Digest::of(&manifest)).await.is_ok());
}

#[tokio::test]
async fn loops_end() {
    let server = Server::plain(|seen| redirect(seen.line.split(' ').nth(1).unwrap())).await;
    let error = client_of(&server).resolve(&image(&server)).await.unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }) && error.to_string().contains("more than 5 times"), "{error}");
    assert_eq!(server.lines().len(), 6);
    let server = Server::plain(|seen| redirect(&format!("{}/x", seen.line.split(' ').nth(1).unwrap()))).await;
    assert!(client_of(&server).resolve(&image(&server)).await.is_err());
    assert_eq!(server.lines().len(), 6);
}

#[tokio::test]
async fn a_redirect_to_plain_http_elsewhere_is_refused() {
    let elsewhere = Server::plain(|_| answer(200, &[], b"x")).await;
    let location = format!("http://{}/x", elsewhere.authority);
    let server = Server::plain(move |_| redirect(&location)).await;
    let error = client_of(&server).resolve(&image(&server)).await.unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }) && error.to_string().contains("over plain HTTP"), "{error}");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn redirects_to_nowhere_are_refused() {
    for location in ["ftp://a.b/x", "https://user:secret@a.b/x", "http://", "https://a.b:0/", "http://[::1/x"] {
        let server = Server::plain(move |_| redirect(location)).await;
        let error = client_of(&server).resolve(&image(&server)).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }) && !error.is_transient(), "{location}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let server = Server::plain(|_| answer(302, &[], b"")).await;
    assert!(matches!(client_of(&server).resolve(&image(&server)).await, Err(Error::Redirect { .. })));
}

#[tokio::test]
async fn what_another_host_says_is_not_shown() {
    let elsewhere = Server::plain(|_| answer(403, &[], b"internal page")).await;
    let location = format!("http://{}/x", elsewhere.authority);
    let server = Server::plain(move |_| redirect(&location)).await;
    let client = Client::new(insecure(&[&server, &elsewhere])).unwrap();
    let error = client.pull(&image(&server), &Digest::of(b"")).await.unwrap_err().to_string();
    assert!(!error.contains("internal page"), "{error}");
}
