//! The server of `/metrics` against a made-up API server: who gets an answer, in which format.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sockeye_metrics::{
    OperatorMetrics,
    operator::OperatorState,
    serve::{Asked, Protection, Settings, Source, serve_on},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Answers reviews: `reader` may read, `other` may not, all other tokens are nobody's; `away` fails. Counts requests.
fn api_server(requests: Arc<AtomicUsize>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        requests.fetch_add(1, Ordering::Relaxed);
        async move {
            let path = request.uri().path().to_owned();
            let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            let (code, answer) = review(&path, body);
            let response = Response::builder().status(code).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    Client::new(service, "default")
}

fn review(path: &str, mut body: Value) -> (u16, Value) {
    if path.ends_with("/tokenreviews") {
        let token = body["spec"]["token"].as_str().unwrap().to_owned();
        if token == "away" {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Timeout",
                "message": "later", "code": 504});
            return (504, status);
        }
        let known = ["reader", "other"].contains(&token.as_str());
        body["status"] = json!({"authenticated": known, "user": {"username": token, "groups": ["g"]}});
    } else {
        assert!(path.ends_with("/subjectaccessreviews"), "{path}");
        let attributes = &body["spec"]["nonResourceAttributes"];
        assert_eq!((&attributes["path"], &attributes["verb"]), (&json!("/metrics"), &json!("get")));
        assert_eq!(body["spec"]["groups"], json!(["g"]));
        body["status"] = json!({"allowed": body["spec"]["user"] == "reader"});
    }
    (201, body)
}

fn source() -> Source {
    let mut counters = Registry::default();
    let metrics = OperatorMetrics::new(&mut counters);
    metrics.errors.inc(&["apply"]);
    let ask = move || {
        let scrape = metrics.scrape(&OperatorState { leads: true, ..OperatorState::default() });
        Box::pin(async move { scrape }) as Asked
    };
    Source { counters, ask: Box::new(ask) }
}

async fn started(protection: Protection) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_on(listener, protection, source()));
    address
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // rustls reports a peer that closes the connection without a word.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn without_protection_whoever_gets_there_is_answered_in_the_format_asked_for() {
    let address = started(Protection::None).await;
    let connect = || async { TcpStream::connect(address).await.unwrap() };
    let plain = get(connect().await, "/metrics", "").await;
    assert!(plain.starts_with("HTTP/1.1 200 OK") && plain.contains("text/plain; version=0.0.4"), "{plain}");
    assert!(plain.contains("sockeye_operator_errors_total{reason=\"apply\"} 1"), "{plain}");
    assert!(plain.contains("sockeye_operator_leader 1"), "{plain}");
    assert!(!plain.contains("# EOF"), "{plain}");
    let open = get(connect().await, "/metrics", "Accept: application/openmetrics-text\r\n").await;
    assert!(open.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"), "{open}");
    assert!(get(connect().await, "/other", "").await.starts_with("HTTP/1.1 404 "));
}

mod tls {
    use std::sync::Arc;

    use rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, UnixTime},
    };
    use tokio::net::TcpStream;
    use tokio_rustls::{TlsConnector, client::TlsStream};

    /// Takes any certificate, as a scraper with `insecure_skip_verify` does.
    #[derive(Debug)]
    struct Any;

    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    pub async fn connect(address: std::net::SocketAddr) -> TlsStream<TcpStream> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Any)).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("sockeye-metrics").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

#[tokio::test]
async fn a_secure_server_answers_those_whose_token_allows_it_and_asks_once_a_minute() {
    let requests = Arc::new(AtomicUsize::new(0));
    let protection = Settings::default().protection(api_server(Arc::clone(&requests))).unwrap();
    let address = started(protection).await;
    let answer = async |path: &str, token: &str| {
        let header = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        get(tls::connect(address).await, path, &header).await
    };
    assert!(answer("/metrics", "").await.starts_with("HTTP/1.1 401 "));
    assert_eq!(requests.load(Ordering::Relaxed), 0, "without a token there is nothing to ask");
    for _ in 0..3 {
        let read = answer("/metrics", "reader").await;
        assert!(read.starts_with("HTTP/1.1 200 OK") && read.contains("sockeye_operator_leader 1"), "{read}");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 2, "one review of the token, and one of the right");
    for path in ["/metrics", "/other"] {
        let refused = answer(path, "other").await;
        assert!(refused.starts_with("HTTP/1.1 403 ") && !refused.contains("# HELP"), "{refused}");
    }
    assert!(answer("/metrics", "made-up").await.starts_with("HTTP/1.1 401 "));
    assert!(answer("/metrics", "away").await.starts_with("HTTP/1.1 503 "));
    let before = requests.load(Ordering::Relaxed);
    assert!(answer("/metrics", "away").await.starts_with("HTTP/1.1 503 "));
    assert_eq!(requests.load(Ordering::Relaxed), before + 1, "a failure is not remembered");
    // Nothing is said over plain HTTP.
    let plain = get(TcpStream::connect(address).await.unwrap(), "/metrics", "Authorization: Bearer reader\r\n").await;
    assert!(!plain.contains("sockeye"), "{plain}");
}

#[tokio::test]
async fn a_mounted_certificate_is_shown_and_one_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { certificate: Some(folder.path().to_owned()), ..Settings::default() };
    let client = api_server(Arc::default());
    let error = settings.protection(client.clone()).err().unwrap().to_string();
    assert!(error.contains("tls.crt"), "{error}");
    let made = rcgen::generate_simple_self_signed(vec!["mounted".to_owned()]).unwrap();
    for (file, label, der) in [
        ("tls.crt", "CERTIFICATE", made.cert.der().to_vec()),
        ("tls.key", "PRIVATE KEY", made.signing_key.serialize_der()),
    ] {
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
        fs::write(folder.path().join(file), pem).unwrap();
    }
    let address = started(settings.protection(client).unwrap()).await;
    let stream = tls::connect(address).await;
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(shown, [made.cert.der().clone()]);
}
