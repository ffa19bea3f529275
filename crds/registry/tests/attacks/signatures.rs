//! The signatures that lie beside an image, wherever cosign puts them.

use serde_json::{Value, json};
use sockeye_image::{
    Digest, SignatureKind, SignatureManifest,
    fixtures::{CONFIG, descriptor, manifest},
    manifest::{OCI_INDEX, OCI_MANIFEST},
};
use sockeye_registry::{AnswerLimits, Client, Error, Settings};

use crate::{
    content::{Content, client_of, image, insecure},
    server::{Reply, Server, answer},
};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

fn subject() -> Digest {
    Digest::of(b"the signed image")
}

/// Returns a manifest about a subject, with one layer.
fn about(subject: &Digest, layer: (&str, &[u8])) -> Vec<u8> {
    let bytes = manifest(("application/vnd.oci.empty.v1+json", b"{}"), &[layer]);
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    value["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": 1});
    value.to_string().into_bytes()
}

fn list(manifests: &[&[u8]]) -> Vec<u8> {
    let manifests: Vec<_> = manifests.iter().map(|bytes| descriptor(OCI_MANIFEST, bytes)).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// Returns the manifest of cosign's `.sig` tag, with one signature for each text.
fn simple_signing(texts: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<(&str, &[u8])> = texts.iter().map(|text| (SIMPLE, *text)).collect();
    let mut value: Value = serde_json::from_slice(&manifest((CONFIG, b"{}"), &layers)).unwrap();
    for layer in value["layers"].as_array_mut().unwrap() {
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": "MEUC",
            "dev.sigstore.cosign/certificate": "PEM", "dev.sigstore.cosign/bundle": ""});
    }
    value.to_string().into_bytes()
}

fn referrers() -> String {
    format!("/v2/team/guard/referrers/{}", subject())
}

fn fallback() -> String {
    format!("sha256-{}", subject().hex())
}

async fn collected(content: Content) -> Result<Vec<SignatureManifest>, Error> {
    let server = Server::plain(move |seen| content.reply(seen)).await;
    client_of(&server).signatures(&image(&server), &[subject()]).await
}

fn bundle(bytes: &[u8]) -> SignatureManifest {
    SignatureManifest { subject: subject(), kind: SignatureKind::Bundle(bytes.to_vec()) }
}

#[tokio::test]
async fn signatures_are_found_in_all_three_places() {
    let (first, second) = (about(&subject(), (BUNDLE, b"{1}")), about(&subject(), (BUNDLE, b"{2}")));
    let old = simple_signing(&[b"text", b"more"]);
    let content = Content::default()
        .at(&referrers(), OCI_INDEX, &list(&[&first]))
        .manifest(&fallback(), &list(&[&second, &first]))
        .manifest(&format!("{}.sig", fallback()), &old)
        .manifest("a", &first)
        .manifest("b", &second);
    let content = content.blob(b"{1}").blob(b"{2}").blob(b"text").blob(b"more");
    let found = collected(content).await.unwrap();
    let simple = |payload: &[u8]| SignatureManifest {
        subject: subject(),
        kind: SignatureKind::SimpleSigning {
            payload: payload.to_vec(),
            signature: "MEUC".to_owned(),
            certificate: Some("PEM".to_owned()),
            chain: None,
            bundle: None,
        },
    };
    assert_eq!(found, [bundle(b"{1}"), bundle(b"{2}"), simple(b"text"), simple(b"more")]);
}

#[tokio::test]
async fn an_image_without_signatures_has_none() {
    assert_eq!(collected(Content::default()).await, Ok(vec![]));
    let content = Content::default().at(&referrers(), OCI_INDEX, &list(&[]));
    assert_eq!(collected(content).await, Ok(vec![]));
    // A page for people, of a registry that knows no referrers.
    assert_eq!(collected(Content::default().at(&referrers(), "text/html", b"<html>")).await, Ok(vec![]));
}

#[tokio::test]
async fn pages_are_followed_within_the_registry() {
    let (first, second) = (about(&subject(), (BUNDLE, b"{1}")), about(&subject(), (BUNDLE, b"{2}")));
    let pages = [list(&[&first]), list(&[&second])];
    let content = Content::default().manifest("a", &first).manifest("b", &second).blob(b"{1}").blob(b"{2}");
    let path = referrers();
    for (link, count) in [
        (format!("<{path}?page=2>; rel=\"next\""), 2),
        (format!("<{path}?page=2>; rel=\"prev\""), 1),
        (format!("<https://elsewhere.example{path}?page=2>; rel=\"next\""), 1),
        ("nonsense".to_owned(), 1),
    ] {
        let (pages, content, path) = (pages.clone(), content.clone(), path.clone());
        let server = Server::plain(move |seen| match seen.line.strip_prefix(&format!("GET {path}")) {
            Some("") => answer(200, &[("Content-Type", OCI_INDEX), ("Link", &link)], &pages[0]),
            Some("?page=2") => answer(200, &[("Content-Type", OCI_INDEX)], &pages[1]),
            _ => content.reply(seen),
        })
        .await;
        let found = client_of(&server).signatures(&image(&server), &[subject()]).await.unwrap();
        assert_eq!(found.len(), count);
    }
}

#[tokio::test]
async fn a_further_page_that_is_missing_is_no_end_of_the_list() {
    let first = about(&subject(), (BUNDLE, b"{1}"));
    let (page, path) = (list(&[&first]), referrers());
    for reply in [
        (|| answer(404, &[], b"")) as fn() -> Reply,
        || answer(400, &[], b""),
        || answer(200, &[("Content-Type", "text/html")], b"<html>"),
    ] {
        let content = Content::default().manifest("a", &first).blob(b"{1}");
        let (page, path) = (page.clone(), path.clone());
        let link = format!("<{path}?page=0>; rel=\"first\", <{path}?page=2>; title=\"a\"; rel=\"next\"");
        let server = Server::plain(move |seen| match seen.line.strip_prefix(&format!("GET {path}")) {
            Some("") => answer(200, &[("Content-Type", OCI_INDEX), ("Link", "<x>; rel=a"), ("Link", &link)], &page),
            Some("?page=2") => reply(),
            _ => content.reply(seen),
        })
        .await;
        assert!(client_of(&server).signatures(&image(&server), &[subject()]).await.is_err());
    }
}

#[tokio::test]
async fn attestations_keep_no_signature_from_being_found_and_are_not_kept_themselves() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let sbom = |at: usize| {
        let statement = json!({"predicateType": "https://cyclonedx.org/bom", "predicate": at}).to_string();
        json!({"dsseEnvelope": {"payload": STANDARD.encode(statement)}}).to_string().into_bytes()
    };
    let boms: Vec<Vec<u8>> = (0..100).map(sbom).collect();
    let mut manifests: Vec<Vec<u8>> = boms.iter().map(|bom| about(&subject(), (BUNDLE, bom))).collect();
    manifests.push(about(&subject(), (BUNDLE, b"{good}")));
    let listed = list(&manifests.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut content = Content::default().at(&referrers(), OCI_INDEX, &listed).blob(b"{good}");
    for (at, manifest) in manifests.iter().enumerate() {
        content = content.manifest(&format!("m{at}"), manifest);
    }
    for bom in &boms {
        content = content.blob(bom);
    }
    let found = collected(content).await.unwrap();
    assert_eq!((found.len(), found.last()), (5, Some(&bundle(b"{good}"))));
}

#[tokio::test]
async fn endless_pages_and_referrers_end() {
    let path = referrers();
    let link = format!("<{path}>; rel=\"next\"");
    let (empty, content) = (list(&[]), Content::default());
    let server = Server::plain(move |seen| match seen.line.contains("referrers") {
        true => answer(200, &[("Content-Type", OCI_INDEX), ("Link", &link)], &empty),
        false => content.reply(seen),
    })
    .await;
    let error = client_of(&server).signatures(&image(&server), &[subject()]).await.unwrap_err();
    assert!(matches!(error, Error::TooManyReferrers { .. }) && !error.is_transient(), "{error}");
    assert_eq!(server.lines().len(), 16);
    let many: Vec<_> = (0..5).map(|at| about(&subject(), (BUNDLE, format!("{{{at}}}").as_bytes()))).collect();
    let content =
        Content::default().at(&referrers(), OCI_INDEX, &list(&many.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    let server = Server::plain(move |seen| content.reply(seen)).await;
    let answers = AnswerLimits { referrers: 4, ..AnswerLimits::default() };
    let client = Client::new(Settings { answers, ..insecure(&[&server]) }).unwrap();
    let error = client.signatures(&image(&server), &[subject()]).await.unwrap_err().to_string();
    assert!(error.contains("more than 4 referrers"), "{error}");
}

#[tokio::test]
async fn what_can_not_be_a_signature_hides_none_that_is() {
    let good = about(&subject(), (BUNDLE, b"{good}"));
    let foreign = about(&Digest::of(b"another image"), (BUNDLE, b"{foreign}"));
    let unsigned = about(&subject(), ("application/spdx+json", b"{sbom}"));
    let (missing, huge) = (about(&subject(), (BUNDLE, b"{missing}")), about(&subject(), (BUNDLE, &[b' '; 300 << 10])));
    let broken = about(&subject(), (BUNDLE, b"{broken}"));
    let path = format!("/v2/team/guard/manifests/{}", Digest::of(&broken));
    let all = list(&[&foreign, b"absent", &unsigned, &missing, &huge, &broken, &good]);
    let mut listed: Value = serde_json::from_slice(&all).unwrap();
    listed["manifests"].as_array_mut().unwrap().insert(0, json!({"digest": "sha512:00", "size": 1}));
    let content = Content::default()
        .at(&referrers(), OCI_INDEX, listed.to_string().as_bytes())
        .manifest("a", &foreign)
        .manifest("b", &unsigned)
        .manifest("c", &missing)
        .manifest("d", &huge)
        .manifest("e", &good)
        .at(&path, OCI_MANIFEST, b"{}");
    let content = content.blob(b"{foreign}").blob(b"{good}").blob(b"{sbom}").blob(&[b' '; 300 << 10]);
    assert_eq!(collected(content).await, Ok(vec![bundle(b"{good}")]));
}

#[tokio::test]
async fn a_registry_that_fails_makes_no_image_unsigned() {
    let good = about(&subject(), (BUNDLE, b"{good}"));
    let content = Content::default().at(&referrers(), OCI_INDEX, &list(&[&good])).manifest("a", &good).blob(b"{good}");
    let blob = Digest::of(b"{good}").to_string();
    for (at, reply) in [
        ("referrers", (|| answer(503, &[], b"")) as fn() -> Reply),
        ("referrers", || answer(403, &[], b"")),
        (blob.as_str(), || answer(429, &[], b"")),
        (".sig", || Reply::Reset(Vec::new())),
        (blob.as_str(), || answer(401, &[("WWW-Authenticate", "Basic")], b"")),
    ] {
        let (content, at) = (content.clone(), at.to_owned());
        let server =
            Server::plain(move |seen| if seen.line.contains(&at) { reply() } else { content.reply(seen) }).await;
        assert!(client_of(&server).signatures(&image(&server), &[subject()]).await.is_err());
    }
}

#[tokio::test]
async fn lists_and_manifests_name_no_types_that_are_believed() {
    // A registry lists cosign's bundle under the empty type, and a stranger an SBOM as a bundle.
    let good = about(&subject(), (BUNDLE, b"{good}"));
    let mut listed: Value = serde_json::from_slice(&list(&[&good])).unwrap();
    listed["manifests"][0]["artifactType"] = json!("application/vnd.oci.empty.v1+json");
    let content = Content::default().at(&referrers(), OCI_INDEX, listed.to_string().as_bytes());
    assert_eq!(collected(content.manifest("a", &good).blob(b"{good}")).await, Ok(vec![bundle(b"{good}")]));
}
