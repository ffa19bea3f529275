//! TLS, and proxies.

use std::{sync::Arc, time::Duration};

use sockeye_image::{
    Digest, Reference,
    fixtures::{artifact, object},
};
use sockeye_registry::{Client, Error, Proxy, RegistrySettings, Settings, Timeouts};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    certificate::Authority,
    content::{Content, image, insecure, secret, timeouts},
    server::{Reply, Server, answer, challenge, redirect},
};

fn trusting(authority: Option<&Authority>) -> Settings {
    Settings {
        authorities: authority.map(|authority| authority.pem.clone().into_bytes()).unwrap_or_default(),
        system_authorities: false,
        timeouts: timeouts(),
        ..Settings::default()
    }
}

fn content() -> (Digest, Content) {
    let manifest = artifact(&object(b"x"));
    (Digest::of(&manifest), Content::default().manifest("v1", &manifest).blob(&object(b"x")))
}

#[tokio::test]
async fn a_registry_is_trusted_by_its_authority_and_name() {
    let (digest, content) = content();
    let (authority, stranger, named) =
        (Authority::new(None), Authority::new(None), Authority::new(Some("other.example")));
    let served = content.clone();
    let server = Server::tls(authority.server(), move |seen| served.reply(seen)).await;
    let client = Client::new(trusting(Some(&authority))).unwrap();
    assert!(client.pull(&image(&server), &digest).await.is_ok());
    let misnamed = Server::tls(named.server(), move |seen| content.reply(seen)).await;
    for (server, trusted) in [(&server, Some(&stranger)), (&server, None), (&misnamed, Some(&named))] {
        let error = Client::new(trusting(trusted)).unwrap().pull(&image(server), &digest).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }) && !error.is_transient(), "{error}");
    }
    assert!(misnamed.seen().is_empty());
}

#[tokio::test]
async fn plain_http_is_spoken_only_where_that_is_set() {
    let server = Server::plain(|_| answer(200, &[], b"")).await;
    let error = Client::new(trusting(None)).unwrap().resolve(&image(&server)).await.unwrap_err();
    assert!(error.to_string().contains("set the registry insecure"), "{error}");
    // Where it is, TLS is not spoken.
    let tls = Server::tls(Authority::new(None).server(), |_| answer(200, &[], b"")).await;
    assert!(Client::new(insecure(&[&tls])).unwrap().resolve(&image(&tls)).await.is_err());
}

#[tokio::test]
async fn from_https_nothing_leads_to_http() {
    let authority = Authority::new(None);
    let plain = Server::plain(|_| answer(200, &[], b"x")).await;
    let location = format!("http://{}/x", plain.authority);
    let server = Server::tls(authority.server(), move |_| redirect(&location)).await;
    // Not even to a registry that is set insecure.
    let registries = insecure(&[&plain]).registries;
    let client = Client::new(Settings { registries, ..trusting(Some(&authority)) }).unwrap();
    let error = client.resolve(&image(&server)).await.unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error}");
    let realm = format!(r#"Bearer realm="http://{}/token""#, plain.authority);
    let server = Server::tls(authority.server(), move |_| challenge(&realm)).await;
    let mut settings = trusting(Some(&authority));
    let named = RegistrySettings { insecure: false, realm_hosts: vec![plain.authority.clone()] };
    settings.registries.insert(server.authority.clone(), named);
    let client = Client::new(settings).unwrap().with_credentials(secret(&server.authority));
    let error = client.resolve(&image(&server)).await.unwrap_err();
    assert!(matches!(&error, Error::Realm { problem, .. } if problem.contains("plain HTTP")), "{error}");
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn a_handshake_that_never_ends_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/team/guard:v1", listener.local_addr().unwrap()).parse().unwrap();
    let held = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    let start = std::time::Instant::now();
    let connect = Duration::from_secs(2);
    let settings = Settings { timeouts: Timeouts { connect, ..timeouts() }, ..trusting(None) };
    let error = Client::new(settings).unwrap().resolve(&image).await.unwrap_err();
    assert!(matches!(&error, Error::TimedOut { limit, .. } if *limit == connect), "{error}");
    assert!(error.to_string().contains("the connection to"), "{error}");
    assert!(start.elapsed() >= connect && error.is_transient(), "{error}");
    held.abort();
}

#[test]
fn settings_with_what_is_no_certificate_are_refused() {
    for pem in [
        "x",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let settings = Settings { authorities: pem.into(), ..trusting(None) };
        assert!(matches!(Client::new(settings).map(|_| ()), Err(Error::Settings(_))), "{pem}");
    }
}

/// A proxy that opens tunnels to one server, whatever host it is asked for, and keeps what it was asked.
async fn proxy(target: String) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            seen.lock().unwrap().push(String::from_utf8(request).unwrap());
            let mut server = TcpStream::connect(&target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (address, asked)
}

fn through(proxy: &str, except: &str, authority: &Authority) -> Client {
    let proxy = Some(Proxy::new(proxy, except).unwrap());
    Client::new(Settings { proxy, ..trusting(Some(authority)) }).unwrap()
}

#[tokio::test]
async fn registries_are_reached_through_the_proxy_that_is_set() {
    let (digest, content) = content();
    let authority = Authority::new(Some("registry.example.com"));
    let server = Server::tls(authority.server(), move |seen| content.reply(seen)).await;
    let (address, asked) = proxy(server.authority.clone()).await;
    let image: Reference = "registry.example.com/team/guard:v1".parse().unwrap();
    let client = through(&format!("http://us:er@{address}"), "", &authority);
    assert!(client.pull(&image, &digest).await.is_ok());
    let request = asked.lock().unwrap()[0].clone();
    assert!(request.starts_with("CONNECT registry.example.com:443 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Proxy-Authorization: Basic dXM6ZXI=\r\n"), "{request}");
    let asked_before = asked.lock().unwrap().len();
    let error = through(&address, "example.com", &authority).pull(&image, &digest).await.unwrap_err();
    assert!(error.is_transient(), "no such host: {error}");
    assert_eq!(asked.lock().unwrap().len(), asked_before);
    assert!(server.seen().iter().all(|seen| seen.host == "registry.example.com"));
}

#[tokio::test]
async fn a_proxy_that_refuses_or_never_ends_is_named() {
    let authority = Authority::new(None);
    let image: Reference = "registry.example.com/team/guard:v1".parse().unwrap();
    for (reply, named) in [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_vec(), "407"),
        (b"HTTP/1.1 200 OK\r\n".repeat(1000), "an endless answer"),
        (b"nonsense\r\n\r\n".to_vec(), "nonsense"),
    ] {
        let server = Server::plain(move |_| Reply::Bytes(reply.clone())).await;
        let error = through(&server.authority, "", &authority).resolve(&image).await.unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("the proxy"), "{named}: {error}");
    }
}
