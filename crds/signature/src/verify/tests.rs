use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::encoding::{Hash, to_base64};
use crate::testing::{Image, OBJECT, TestKey, bundle, statement};

/// Verifies evidence against the key of this number, for the image of the object.
fn verify_by(number: u8, evidence: &Evidence) -> Result<Verified, Rejection> {
    let key = PublicKey::from_pem(&TestKey::new(number).pem()).unwrap();
    let keys = vec![NamedKey { name: "release", key: &key }];
    let (trust, now) = (Trust::none(), SystemTime::UNIX_EPOCH);
    Image::new().with(|subject| {
        let object = Hashes::new(OBJECT);
        verify(evidence, &Context { subject, object, keys, accepts_identities: false, trust: &trust, now })
    })
}

fn signed(payload: &Value) -> Evidence {
    bundle(&TestKey::new(1).envelope(payload.to_string().as_bytes()))
}

/// A statement about the image's manifest, changed by a function.
fn changed(change: impl FnOnce(&mut Value)) -> Evidence {
    let mut statement = statement(crate::SIGNATURE_PREDICATE, &Image::new().manifest);
    change(&mut statement);
    signed(&statement)
}

#[test]
fn only_a_signature_of_this_object_counts_whatever_the_key_has_signed() {
    assert_eq!(verify_by(1, &changed(|_| ())), Ok(Verified::Key("release".into())));
    let ok = changed(|statement| statement["_type"] = json!("https://in-toto.io/Statement/v0.1"));
    assert!(verify_by(1, &ok).is_ok());
    let several = changed(|statement| {
        let this = statement["subject"][0].clone();
        statement["subject"] = json!([{"name": "a", "digest": {"sha512": "ab"}}, {"digest": {"sha256": "00"}}, this]);
    });
    assert!(verify_by(1, &several).is_ok());
    for (evidence, expected) in [
        (changed(|it| it["predicateType"] = json!("https://spdx.dev/Document")), "it is an attestation of type"),
        (changed(|it| it["predicateType"] = json!("https://sigstore.dev/cosign/sign/v1 ")), "it is an attestation of"),
        (changed(|it| it["_type"] = json!("https://in-toto.io/Statement/v2")), "which is no in-toto statement"),
        (changed(|it| it["subject"] = json!([])), "it signs nothing with a SHA-256"),
        (changed(|it| it["subject"][0]["digest"] = json!({"sha1": "ab"})), "it signs nothing with a SHA-256"),
        (changed(|it| it["subject"] = json!({"digest": {}})), "`subject` is not an array"),
        (changed(|it| it["subject"] = json!(vec![json!({"digest": {"sha256": "00"}}); 65])), "more than 64 subjects"),
        (changed(|it| drop(it.as_object_mut().unwrap().remove("predicateType"))), "it has no `predicateType`"),
        (signed(&json!([])), "is not an object"),
    ] {
        let error = verify_by(1, &evidence).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
    let capital = changed(|it| {
        let digest = it["subject"][0]["digest"]["sha256"].as_str().unwrap().to_uppercase();
        it["subject"][0]["digest"]["sha256"] = json!(digest);
    });
    assert!(matches!(verify_by(1, &capital), Err(Rejection::Statement(_))));
}

#[test]
fn a_statement_that_two_readers_could_read_in_two_ways_is_refused() {
    let manifest = Image::new().manifest;
    let hex = manifest.strip_prefix("sha256:").unwrap();
    let text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document",
        "subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"{}"}}"#,
        crate::SIGNATURE_PREDICATE
    );
    let error = verify_by(1, &bundle(&TestKey::new(1).envelope(text.as_bytes()))).unwrap_err().to_string();
    assert!(error.contains("`predicateType` occurs twice"), "{error}");
}

#[test]
fn a_signature_covers_the_payload_its_type_and_nothing_else_decides() {
    let original =
        TestKey::new(1).envelope(statement(crate::SIGNATURE_PREDICATE, &Image::new().manifest).to_string().as_bytes());
    let change = |pointer: &str, value: Value| {
        let mut json = original.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        verify_by(1, &bundle(&json))
    };
    assert!(change("/verificationMaterial/publicKey/hint", json!("another")).is_ok());
    let other = statement(crate::SIGNATURE_PREDICATE, &Image::new().index).to_string();
    let payload = to_base64(other.as_bytes());
    assert_eq!(change("/dsseEnvelope/payload", json!(payload)), Err(Rejection::OtherKey));
    let error = change("/dsseEnvelope/payloadType", json!("text/plain")).unwrap_err();
    assert!(error.to_string().contains("its payload type is \"text/plain\""), "{error}");
    assert_eq!(change("/dsseEnvelope/signatures/0/sig", json!("")), Err(Rejection::OtherKey));
    assert_eq!(verify_by(2, &bundle(&original)), Err(Rejection::OtherKey));
}

#[test]
fn a_signature_of_the_file_is_over_the_objects_bytes() {
    let key = TestKey::new(1);
    let message = |digest: Value, signature: &[u8]| {
        bundle(&json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {}},
            "messageSignature": {"messageDigest": digest, "signature": to_base64(signature)},
        }))
    };
    let digest = |hash: Hash, name: &str, of: &[u8]| json!({"algorithm": name, "digest": to_base64(&hash.of(of))});
    use Hash::{Sha256, Sha512};
    let signature = key.sign(OBJECT);
    assert!(verify_by(1, &message(Value::Null, &signature)).is_ok());
    assert!(verify_by(1, &message(digest(Sha256, "SHA2_256", OBJECT), &signature)).is_ok());
    assert!(verify_by(1, &message(digest(Sha512, "SHA2_512", OBJECT), &signature)).is_ok());
    let other = message(digest(Sha256, "SHA2_256", b"another"), &key.sign(b"another"));
    assert_eq!(verify_by(1, &other), Err(Rejection::OtherFile));
    let claimed = message(digest(Sha256, "SHA2_256", OBJECT), &key.sign(b"another"));
    assert_eq!(verify_by(1, &claimed), Err(Rejection::OtherKey));
    // A signature of the manifest's bytes is no signature of the object.
    assert_eq!(verify_by(1, &message(Value::Null, &key.sign(b"the manifest"))), Err(Rejection::OtherKey));
}

#[test]
fn the_sig_form_is_strict_too() {
    let payload = |kind: &str, digest: &str| {
        let payload = json!({"critical": {"image": {"docker-manifest-digest": digest}, "type": kind}}).to_string();
        let signature = to_base64(&TestKey::new(1).sign(payload.as_bytes()));
        Evidence::SimpleSigning {
            payload: payload.into_bytes(),
            signature,
            certificate: None,
            chain: None,
            bundle: None,
        }
    };
    let manifest = Image::new().manifest;
    assert!(verify_by(1, &payload("cosign container image signature", &manifest)).is_ok());
    assert!(verify_by(1, &payload(crate::SIGNATURE_PREDICATE, &manifest)).is_ok());
    let error = verify_by(1, &payload("atomic container signature", &manifest)).unwrap_err();
    assert!(error.to_string().contains("its payload is of type \"atomic container signature\""), "{error}");
    let Evidence::SimpleSigning { payload, signature, .. } = TestKey::new(1).simple(&manifest) else { unreachable!() };
    let with = |signature: String, certificate: Option<&str>| Evidence::SimpleSigning {
        payload: payload.clone(),
        signature,
        certificate: certificate.map(str::to_owned),
        chain: None,
        bundle: None,
    };
    assert_eq!(verify_by(1, &with(signature.clone() + "\n", None)), Err(Rejection::SignatureText));
    assert_eq!(verify_by(1, &with(signature, Some(""))), Err(Rejection::IdentityInSimpleSigning));
}

/// The content of an accepted bundle.
fn envelope_of(evidence: &Evidence) -> Option<(String, Vec<u8>)> {
    let Evidence::Bundle(text) = evidence else { return None };
    match Bundle::read(text).ok()?.content {
        Content::Envelope { payload_type, payload, .. } => Some((payload_type, payload)),
        Content::Message { .. } => None,
    }
}

proptest! {
    /// Whatever is changed in a bundle's text: nothing panics, and what still verifies says what was signed.
    #[test]
    fn no_change_of_a_bundle_changes_what_is_signed(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..4),
    ) {
        let original = changed(|_| ());
        let Evidence::Bundle(mut text) = original.clone() else { unreachable!() };
        for (at, kind, byte) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        let edited = Evidence::Bundle(text);
        if verify_by(1, &edited).is_ok() {
            prop_assert_eq!(envelope_of(&edited), envelope_of(&original));
        }
    }
}
