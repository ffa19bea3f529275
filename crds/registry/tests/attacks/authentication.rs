//! Who is shown which secret.

use serde_json::json;
use sockeye_image::{
    Digest,
    fixtures::{artifact, object},
};
use sockeye_registry::{Client, Credentials, Error, Settings};

use crate::{
    content::{BASIC, Content, client_of, image, insecure, secret},
    server::{Reply, Seen, Server, answer, challenge, head, ok, redirect},
};

fn content() -> (Digest, Content) {
    let manifest = artifact(&object(b"x"));
    (Digest::of(&manifest), Content::default().manifest("v1", &manifest).blob(&object(b"x")))
}

/// A registry that wants a token of a realm, and counts no other.
async fn registry_with(realm: String, content: Content) -> Server {
    let challenge_text = format!(r#"Bearer realm="{realm}",service="reg & co",scope="repository:team/guard:pull""#);
    Server::plain(move |seen| match seen.authorization.as_deref() {
        Some("Bearer valid") => content.reply(seen),
        _ => challenge(&challenge_text),
    })
    .await
}

fn token(seen: &Seen) -> Reply {
    let is_known = seen.authorization.as_deref() == Some(BASIC);
    ok("application/json", json!({"token": if is_known { "valid" } else { "anonymous" }}).to_string().as_bytes())
}

/// Settings in which a registry has no TLS, and may have these realms.
fn with_realms(server: &Server, realms: &[&Server]) -> Settings {
    let mut settings = insecure(&[server]);
    let realm_hosts = realms.iter().map(|realm| realm.authority.clone()).collect();
    settings.registries.get_mut(&server.authority).unwrap().realm_hosts = realm_hosts;
    settings
}

#[tokio::test]
async fn a_token_is_got_once_for_each_repository() {
    let (digest, content) = content();
    let realm = Server::plain(token).await;
    let server = registry_with(format!("http://{}/token?x=1", realm.authority), content).await;
    let client = Client::new(with_realms(&server, &[&realm])).unwrap().with_credentials(secret(&server.authority));
    let image = image(&server);
    assert_eq!(client.resolve(&image).await, Ok(digest.clone()));
    assert!(client.pull(&image, &digest).await.is_ok());
    let [seen] = realm.seen().try_into().unwrap();
    assert_eq!(seen.line, "GET /token?x=1&service=reg%20%26%20co&scope=repository:team/guard:pull");
    assert_eq!(seen.authorization.as_deref(), Some(BASIC));
    // The registry itself never sees the password.
    assert!(server.seen().iter().all(|seen| seen.authorization.as_deref() != Some(BASIC)));
    let other = format!("{}/team/other:v1", server.authority).parse().unwrap();
    assert!(matches!(client.resolve(&other).await, Err(Error::NotFound { .. })));
    assert_eq!(realm.seen().len(), 2);
    // Another secret's client has no part in that token.
    let error = client.with_credentials(Credentials::default()).resolve(&image).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{error}");
}

#[tokio::test]
async fn a_realm_elsewhere_that_collects_secrets_gets_none() {
    let (digest, content) = content();
    let collector = Server::plain(token).await;
    let server = registry_with(format!("http://{}/token", collector.authority), content.clone()).await;
    let client = client_of(&server).with_credentials(secret(&server.authority));
    let error = client.pull(&image(&server), &digest).await.unwrap_err();
    assert!(matches!(error, Error::Realm { .. }) && !error.is_transient(), "{error}");
    assert!(error.to_string().contains(&collector.authority), "{error}");
    assert!(collector.seen().is_empty());
    // Nor one over HTTPS, be it the same host at another port.
    let server = registry_with(format!("https://{}/token", collector.authority), content).await;
    let client = client_of(&server).with_credentials(secret(&server.authority));
    let error = client.pull(&image(&server), &digest).await.unwrap_err().to_string();
    assert!(error.contains("not shown the pull secret") && error.contains("realm hosts"), "{error}");
    assert!(collector.seen().is_empty());
}

#[tokio::test]
async fn without_a_secret_there_is_nothing_to_steal() {
    let (digest, content) = content();
    let realm = Server::plain(|_| ok("application/json", br#"{"access_token":"valid","expires_in":300}"#)).await;
    let server = registry_with(format!("http://{}/token", realm.authority), content).await;
    let client = Client::new(with_realms(&server, &[&realm])).unwrap();
    assert!(client.pull(&image(&server), &digest).await.is_ok());
    assert_eq!(realm.seen()[0].authorization, None);
}

#[tokio::test]
async fn a_token_is_for_the_image_s_own_repository_whatever_the_registry_asks_for() {
    for scope in ["repository:other/secret:pull", "repository:team/guard:pull repository:other/secret:pull"] {
        let (digest, content) = content();
        let realm = Server::plain(token).await;
        let text = format!(r#"Bearer realm="http://{}/token",scope="{scope}""#, realm.authority);
        let server = Server::plain(move |seen| match seen.authorization.as_deref() {
            Some("Bearer valid") => content.reply(seen),
            _ => challenge(&text),
        })
        .await;
        let client = Client::new(with_realms(&server, &[&realm])).unwrap();
        let client = client.with_credentials(secret(&server.authority));
        assert!(client.pull(&image(&server), &digest).await.is_ok());
        assert_eq!(realm.lines()[0], "GET /token?scope=repository:team/guard:pull");
    }
}

#[tokio::test]
async fn a_registry_may_be_its_own_realm() {
    let (digest, content) = content();
    let own = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let realm = own.clone();
    let server = Server::plain(move |seen| match seen.authorization.as_deref() {
        Some("Bearer valid") => content.reply(seen),
        _ if seen.line.starts_with("GET /token") => token(seen),
        _ => challenge(&format!(r#"Bearer realm="http://{}/token",scope="registry:catalog:*""#, realm.lock().unwrap())),
    })
    .await;
    *own.lock().unwrap() = server.authority.clone();
    let client = client_of(&server).with_credentials(secret(&server.authority));
    assert!(client.pull(&image(&server), &digest).await.is_ok());
    // A scope for more than pulling is not asked for.
    assert_eq!(server.lines()[1], "GET /token?scope=repository:team/guard:pull");
}

#[tokio::test]
async fn realms_that_send_no_token_are_named() {
    let (digest, content) = content();
    let injected = || ok("application/json", br#"{"token":"valid\r\nX-Evil: 1"}"#);
    let long = || ok("application/json", format!(r#"{{"token":"{}"}}"#, "x".repeat(20 << 10)).as_bytes());
    let endless =
        || Reply::Endless { head: head(200, &[], None), piece: vec![b' '; 64 << 10], pause: std::time::Duration::ZERO };
    type Answers = fn() -> Reply;
    let replies: [(Answers, &str); 8] = [
        (injected, "a token that is none"),
        (long, "a token that is none"),
        (|| ok("text/html", b"<html>"), "what is no token"),
        (|| ok("application/json", b"{}"), "a token that is none"),
        (endless, "more than the 65536 bytes"),
        (|| redirect("/other"), "sends the client on"),
        (|| answer(403, &[], b"internal page"), "does not allow it"),
        (|| answer(429, &[("Retry-After", "5")], b""), "wait 5 s"),
    ];
    for (reply, named) in replies {
        let realm = Server::plain(move |_| reply()).await;
        let server = registry_with(format!("http://{}/token", realm.authority), content.clone()).await;
        let client = Client::new(with_realms(&server, &[&realm])).unwrap().with_credentials(secret(&server.authority));
        let error = client.pull(&image(&server), &digest).await.unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains("internal page"), "{named}: {error}");
        assert_eq!(realm.seen().len(), 1);
    }
}

#[tokio::test]
async fn realms_that_are_no_urls_are_refused() {
    let (digest, content) = content();
    for realm in ["", "token", "file:///etc/passwd", "https://user@a.b/", "gopher://a.b/"] {
        let server = registry_with(realm.to_owned(), content.clone()).await;
        let client = client_of(&server).with_credentials(secret(&server.authority));
        let error = client.pull(&image(&server), &digest).await.unwrap_err();
        assert!(matches!(error, Error::Realm { .. }), "{realm}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_is_never_content_is_asked_twice() {
    let realm = Server::plain(token).await;
    let server = registry_with(format!("http://{}/token", realm.authority), Content::default()).await;
    let client = Client::new(with_realms(&server, &[&realm])).unwrap();
    let error = client.resolve(&image(&server)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{error}");
    assert!(error.to_string().contains("wants a pull secret"), "{error}");
    assert_eq!((server.lines().len(), realm.lines().len()), (2, 1));
}

#[tokio::test]
async fn a_password_goes_to_its_registry_alone() {
    let (digest, content) = content();
    let server = Server::plain(move |seen| match seen.authorization.as_deref() {
        Some(BASIC) => content.reply(seen),
        _ => challenge("Basic realm=\"x\""),
    })
    .await;
    let client = client_of(&server);
    let right = client.with_credentials(secret(&server.authority));
    assert!(right.pull(&image(&server), &digest).await.is_ok());
    let below = client.with_credentials(secret(&format!("https://{}/team", server.authority)));
    assert!(below.pull(&image(&server), &digest).await.is_ok());
    for other in
        ["registry.example.com".to_owned(), format!("{}/other", server.authority), format!("{}0", server.authority)]
    {
        let before = server.seen().len();
        let error = client.with_credentials(secret(&other)).pull(&image(&server), &digest).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { has_secret: false, .. }), "{other}: {error}");
        assert!(server.seen()[before..].iter().all(|seen| seen.authorization.is_none()));
    }
    let wrong = json!({"auths": {&server.authority: {"auth": "dXNlcjp3cm9uZw=="}}}).to_string();
    let wrong = client.with_credentials(Credentials::from_docker_config(wrong.as_bytes()).unwrap());
    let error = wrong.pull(&image(&server), &digest).await.unwrap_err();
    assert!(
        error.to_string().contains("does not accept the pull secret for this (UNAUTHORIZED: who are you)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_asks_for_what_is_unknown_is_named() {
    for with in ["Negotiate", "Digest realm=\"x\"", ""] {
        let server = Server::plain(move |_| challenge(with)).await;
        let client = client_of(&server).with_credentials(secret(&server.authority));
        let error = client.resolve(&image(&server)).await.unwrap_err().to_string();
        assert!(error.contains("neither for a Bearer token nor for Basic"), "{error}");
        assert!(server.seen().iter().all(|seen| seen.authorization.is_none()));
    }
}
