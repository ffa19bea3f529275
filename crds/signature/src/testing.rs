//! A key that tests sign with, and evidence by it.

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{DerSignature, SigningKey};
use serde_json::json;

use crate::dsse::{SIGNATURE_PREDICATE, pre_authentication_encoding};
use crate::encoding::{Hash, digest, to_base64};
use crate::evidence::{Evidence, Source, Subject};

/// The object that tests sign.
pub const OBJECT: &[u8] = b"\x7fELF: an object";

/// The repository that images of it are in.
pub const REPOSITORY: &str = "registry.example.com/team/guard";

/// A P-256 key.
pub struct TestKey(SigningKey);

impl TestKey {
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).unwrap())
    }

    pub fn pem(&self) -> String {
        // RFC 5480: the algorithm, and the head of a bit string of 65 bytes.
        let mut der =
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
                .to_vec();
        der.extend_from_slice(self.0.verifying_key().to_encoded_point(false).as_bytes());
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            to_base64(&der)
                .as_bytes()
                .chunks(64)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect::<Vec<_>>()
                .join("\n")
        )
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign_prehash(&Hash::Sha256.of(message)).unwrap();
        signature.as_bytes().to_vec()
    }

    /// A bundle with an envelope around this payload.
    pub fn envelope(&self, payload: &[u8]) -> serde_json::Value {
        let payload_type = "application/vnd.in-toto+json";
        let signature = self.sign(&pre_authentication_encoding(payload_type, payload));
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "a hint"}},
            "dsseEnvelope": {"payload": to_base64(payload), "payloadType": payload_type,
                "signatures": [{"sig": to_base64(&signature)}]},
        })
    }

    /// A bundle that says of something that it is signed.
    pub fn statement(&self, digest: &str) -> Evidence {
        bundle(&self.envelope(statement(SIGNATURE_PREDICATE, digest).to_string().as_bytes()))
    }

    /// A layer of a `.sig` tag.
    pub fn simple(&self, digest: &str) -> Evidence {
        let payload = json!({"critical": {"identity": {"docker-reference": REPOSITORY}, "optional": null,
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"}});
        let payload = payload.to_string().into_bytes();
        let signature = to_base64(&self.sign(&payload));
        Evidence::SimpleSigning { payload, signature, certificate: None, chain: None, bundle: None }
    }

    /// A bare signature over the object.
    pub fn detached(&self) -> Evidence {
        Evidence::Detached { signature: self.sign(OBJECT), key_hint: None }
    }
}

/// An in-toto statement.
pub fn statement(predicate: &str, digest: &str) -> serde_json::Value {
    let hex = digest.strip_prefix("sha256:").unwrap();
    json!({"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": hex}}],
        "predicateType": predicate, "predicate": {}})
}

pub fn bundle(json: &serde_json::Value) -> Evidence {
    Evidence::Bundle(json.to_string().into_bytes())
}

/// Digests of an image of the object.
pub struct Image {
    pub object: String,
    pub manifest: String,
    pub index: String,
}

impl Image {
    pub fn new() -> Self {
        Self { object: digest(OBJECT), manifest: digest(b"the manifest"), index: digest(b"the index") }
    }

    /// Calls a function with the subject that this image is.
    pub fn with<T>(&self, then: impl FnOnce(&Subject<'_>) -> T) -> T {
        then(&Subject {
            source: Source::Image { repository: REPOSITORY },
            object: OBJECT,
            object_digest: &self.object,
            image_digests: &[&self.manifest, &self.index],
        })
    }
}
