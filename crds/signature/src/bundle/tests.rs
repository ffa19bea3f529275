use serde_json::{Value, json};

use super::*;
use crate::testing::{TestKey, statement};

fn envelope() -> Value {
    let digest = crate::encoding::digest(b"a manifest");
    TestKey::new(1).envelope(statement(crate::SIGNATURE_PREDICATE, &digest).to_string().as_bytes())
}

fn read(json: &Value) -> Result<Bundle, BundleError> {
    Bundle::read(json.to_string().as_bytes())
}

/// A bundle with a part set, or taken out where the value is null.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = envelope();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name)
    } else {
        parent.insert(name.into(), value)
    };
    json
}

#[test]
fn versions_0_1_to_0_3_are_read() {
    for media_type in MEDIA_TYPES {
        assert!(read(&with("/mediaType", json!(media_type))).is_ok(), "{media_type}");
    }
    for other in ["application/vnd.dev.sigstore.bundle.v0.4+json", "application/json", ""] {
        assert_eq!(read(&with("/mediaType", json!(other))).unwrap_err(), BundleError::MediaType(other.into()));
    }
}

#[test]
fn the_signer_is_a_key_or_a_certificate_and_one_of_them() {
    let material = |material: Value| read(&with("/verificationMaterial", material)).map(|bundle| bundle.signer);
    let certificate = || Ok(ClaimedSigner::Certificate(vec![1]));
    assert_eq!(material(json!({"publicKey": {"hint": "a"}})), Ok(ClaimedSigner::Key { hint: "a".into() }));
    assert_eq!(material(json!({"publicKey": {}, "certificate": null})), Ok(ClaimedSigner::Key { hint: "".into() }));
    assert_eq!(material(json!({"certificate": {"rawBytes": "AQ=="}})), certificate());
    let chain = json!({"x509CertificateChain": {"certificates": [{"rawBytes": "AQ=="}, {"rawBytes": "Ag=="}]}});
    assert_eq!(material(chain), certificate());
    assert_eq!(material(json!({})), Err(BundleError::Material));
    let both = json!({"publicKey": {}, "certificate": {"rawBytes": "AQ=="}});
    assert_eq!(material(both), Err(BundleError::Material));
    assert!(material(json!({"x509CertificateChain": {"certificates": []}})).is_err());
    assert!(material(json!({"certificate": {"rawBytes": "AQ"}})).is_err());
}

#[test]
fn the_content_is_an_envelope_with_one_signature_or_a_message() {
    assert!(matches!(read(&envelope()).unwrap().content, Content::Envelope { .. }));
    let signature = json!({"sig": "AQ=="});
    let signatures = |list: Value| read(&with("/dsseEnvelope/signatures", list)).unwrap_err();
    assert_eq!(signatures(json!([])), BundleError::Signatures(0));
    assert_eq!(signatures(json!([signature, signature])), BundleError::Signatures(2));
    assert_eq!(read(&with("/dsseEnvelope", Value::Null)).unwrap_err(), BundleError::Content);
    let message = |digest: Value| {
        let mut json = with("/dsseEnvelope", Value::Null);
        json["messageSignature"] = json!({"signature": "AQ==", "messageDigest": digest});
        read(&json).map(|bundle| bundle.content)
    };
    let found = message(json!({"algorithm": "SHA2_384", "digest": "AQ=="})).unwrap();
    assert!(matches!(found, Content::Message { digest: Some((Hash::Sha384, digest)), .. } if digest == [1]));
    assert!(matches!(message(Value::Null).unwrap(), Content::Message { digest: None, .. }));
    assert!(matches!(message(json!({})).unwrap(), Content::Message { digest: None, .. }));
    assert!(message(json!({"digest": "AQ=="})).is_err());
    let error = message(json!({"algorithm": "SHA1", "digest": "AQ=="})).unwrap_err();
    assert_eq!(error, BundleError::DigestAlgorithm("SHA1".into()));
    assert_eq!(read(&with("/messageSignature", json!({"signature": "AQ=="}))).unwrap_err(), BundleError::Content);
}

#[test]
fn a_bundle_that_lacks_a_part_says_which() {
    for (pointer, expected) in [
        ("/mediaType", "it has no `mediaType`"),
        ("/verificationMaterial", "it has no `verificationMaterial`"),
        ("/dsseEnvelope/payload", "it has no `dsseEnvelope.payload`"),
        ("/dsseEnvelope/payloadType", "it has no `dsseEnvelope.payloadType`"),
        ("/dsseEnvelope/signatures", "it has no `dsseEnvelope.signatures`"),
    ] {
        assert_eq!(read(&with(pointer, Value::Null)).unwrap_err().to_string(), expected);
    }
    let error = read(&with("/dsseEnvelope/payload", json!("e30"))).unwrap_err();
    assert_eq!(error.to_string(), "`dsseEnvelope.payload` is not base64");
}

#[test]
fn what_has_to_be_verified_is_bounded() {
    let entries = |count: usize| {
        let material = json!({
            "x509CertificateChain": {"certificates": vec![json!({"rawBytes": "AQ=="}); count]},
            "tlogEntries": vec![json!({}); count],
            "timestampVerificationData": {"rfc3161Timestamps": vec![json!({}); count]},
        });
        material.as_object().unwrap().clone()
    };
    for name in ["x509CertificateChain", "tlogEntries", "timestampVerificationData"] {
        let mut material = entries(8);
        assert!(read(&with("/verificationMaterial", material.clone().into())).is_ok(), "{name}");
        material.insert(name.into(), entries(9)[name].clone());
        let error = read(&with("/verificationMaterial", material.into())).unwrap_err();
        assert!(matches!(error, BundleError::TooMany(_)), "{name}: {error}");
    }
}
