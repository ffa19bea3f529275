//! Judgements of objects by their proofs, and of every way to exchange a part of one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::SystemTime;

use sockeye_provenance::{
    Archive, Chain, Claim, Error, Judgement, Source, Verifier,
    fixtures::{Image, Key, image, index, packed_image, policy},
};
use sockeye_signature::Signer;

const REPOSITORY: &str = "registry.example/team/guard";

/// Bytes that begin as an ELF file of eBPF does.
fn object(last: u8) -> Vec<u8> {
    let mut object = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xf7\0\x01\0\0\0".to_vec();
    object.resize(1500, 7);
    object.push(last);
    object
}

fn verifier() -> Verifier {
    Verifier::read(&policy("Enforce", REPOSITORY, &Key::new(1)), None).unwrap()
}

fn of_image(image: &Image) -> Source {
    Source::Image { repository: REPOSITORY.to_owned(), digest: image.digest.clone() }
}

fn judge(source: &Source, object: &[u8], archive: &Archive) -> Result<Judgement, Error> {
    // As it is stored and read again.
    let archive = Archive::decode(&archive.encode().unwrap()).unwrap();
    verifier().judge(&Claim { source, object, archive: &archive }, Chain::Followed, SystemTime::now())
}

fn signed(mut image: Image, key: &Key) -> Image {
    image.archive.evidence.push(key.sign_image(&image.digest));
    image
}

fn is_accepted(judged: Result<Judgement, Error>) -> bool {
    judged.is_ok_and(|judged| judged.objection.is_none())
}

#[test]
fn signed_images_of_every_form_are_accepted_and_the_signer_is_named() {
    let (key, bytes) = (Key::new(1), object(1));
    let plain = signed(image(&bytes), &key);
    let packed = signed(packed_image(&bytes), &key);
    let (amd64, arm64) = (packed_image(&bytes), packed_image(&object(2)));
    let of_index = signed(index(&[("amd64", &amd64), ("arm64", &arm64)], 0), &key);
    for image in [plain, packed, of_index] {
        let judged = judge(&of_image(&image), &bytes, &image.archive).unwrap();
        assert_eq!(judged.objection, None);
        assert_eq!(judged.signed_by, [Signer::Key { hint: "release".into() }]);
    }
    // The manifest is signed, and not the index that names it.
    let mut of_manifest = index(&[("amd64", &amd64), ("arm64", &arm64)], 0);
    of_manifest.archive.evidence.push(key.sign_image(&amd64.digest));
    assert!(is_accepted(judge(&of_image(&of_manifest), &bytes, &of_manifest.archive)));
}

#[test]
fn signed_bytes_without_an_image_are_accepted() {
    let bytes = object(1);
    let archive = Archive { evidence: vec![Key::new(1).sign_object(&bytes)], ..Archive::default() };
    assert!(is_accepted(judge(&Source::Inline, &bytes, &archive)));
    let judged = judge(&Source::Inline, &object(2), &archive).unwrap();
    assert!(judged.objection.is_some_and(|objection| !objection.is_denial && objection.message.contains("inline")));
}

#[test]
fn an_exchanged_part_is_refused() {
    let (key, bytes, other) = (Key::new(1), object(1), object(2));
    let good = signed(packed_image(&bytes), &key);
    let bad = signed(packed_image(&other), &Key::new(2));
    let with = |edit: &dyn Fn(&mut Archive)| {
        let mut archive = good.archive.clone();
        edit(&mut archive);
        archive
    };
    let unsigned = with(&|archive| archive.evidence.clear());
    let of_another_key = with(&|archive| archive.evidence = vec![Key::new(2).sign_image(&good.digest)]);
    let of_another_image = with(&|archive| archive.evidence = vec![key.sign_image(&bad.digest)]);
    for archive in [&unsigned, &of_another_key, &of_another_image] {
        let judged = judge(&of_image(&good), &bytes, archive).unwrap();
        assert!(judged.objection.is_some_and(|objection| objection.message.contains("images")));
    }
    let other_layer = with(&|archive| archive.layer.clone_from(&bad.archive.layer));
    let other_manifest = with(&|archive| archive.manifest.clone_from(&bad.archive.manifest));
    let other_chain = with(&|archive| {
        archive.layer.clone_from(&bad.archive.layer);
        archive.manifest.clone_from(&bad.archive.manifest);
    });
    let invented_index = with(&|archive| archive.index = Some(b"{}".to_vec()));
    for archive in [&other_layer, &other_manifest, &other_chain, &invented_index] {
        for object in [&bytes, &other] {
            let judged = judge(&of_image(&good), object, archive);
            assert!(matches!(judged, Err(Error::Chain { .. })), "{judged:?}");
        }
    }
    let judged = judge(&of_image(&good), &other, &good.archive);
    assert!(matches!(judged, Err(Error::OtherObject(_))), "{judged:?}");
    // All of it exchanged, with the signature of the good one.
    let mut all = bad.archive.clone();
    all.evidence.clone_from(&good.archive.evidence);
    assert!(!is_accepted(judge(&of_image(&bad), &other, &all)));
}

#[test]
fn another_repository_is_denied_whoever_signed() {
    let bytes = object(1);
    let image = signed(image(&bytes), &Key::new(1));
    let source = Source::Image { repository: "registry.example/other".to_owned(), digest: image.digest.clone() };
    let judged = judge(&source, &bytes, &image.archive).unwrap();
    assert!(judged.objection.is_some_and(|objection| objection.is_denial));
}

#[test]
fn a_layer_that_is_not_stored_is_named_with_the_remedy() {
    let bytes = object(1);
    let mut image = signed(packed_image(&bytes), &Key::new(1));
    image.archive.layer = None;
    let error = judge(&of_image(&image), &bytes, &image.archive).unwrap_err();
    assert!(matches!(error, Error::NoLayer(_)), "{error}");
    assert!(error.to_string().contains("policy.nodes.verify") && error.to_string().contains("4 MiB"), "{error}");
    // Whoever followed the chain when the image was pulled needs no layer.
    let (source, archive) = (&of_image(&image), &image.archive);
    let judged = verifier().judge(&Claim { source, object: &bytes, archive }, Chain::Trusted, SystemTime::now());
    assert!(is_accepted(judged));
}

#[test]
fn a_policy_that_cannot_be_applied_is_refused() {
    let error = |text: &str| Verifier::read(text, None).unwrap_err().to_string();
    assert!(error("{").contains("cannot be read"));
    assert!(error(r#"{"mode": "Off"}"#).contains("Off"));
    let identities = r#"{"mode": "Warn", "default": {"type": "Signature", "signature": {"identities": [{"subject":
        "a@example.com", "issuer": "https://issuer.example"}]}}}"#;
    assert!(error(identities).contains("no trust root"));
}
