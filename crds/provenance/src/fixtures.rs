//! Images and signatures for tests: an image in each form, and a key that signs it as cosign does.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::Signer as _},
    pkcs8::{EncodePublicKey as _, LineEnding},
};
use serde_json::{Value, json};
use sockeye_image::{Digest, format::OBJECT};
use sockeye_signature::{Evidence, SIGNATURE_PREDICATE};

use crate::Archive;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// A key that signs.
pub struct Key(SigningKey);

impl Key {
    /// Returns the key of a number that is not zero.
    ///
    /// # Panics
    /// Panics for zero.
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).expect("a scalar"))
    }

    /// Returns the public key, in PEM.
    ///
    /// # Panics
    /// Never.
    pub fn public(&self) -> String {
        self.0.verifying_key().to_public_key_pem(LineEnding::LF).expect("a public key")
    }

    /// Signs an object's bytes.
    pub fn sign_object(&self, object: &[u8]) -> Evidence {
        let signature: DerSignature = self.0.sign(object);
        Evidence::Detached { signature: signature.as_bytes().to_vec(), key_hint: None }
    }

    /// Signs the digest of a manifest or an index, as a bundle.
    pub fn sign_image(&self, digest: &str) -> Evidence {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "", "digest": {"sha256": hex}}],
            "predicateType": SIGNATURE_PREDICATE,
            "predicate": {},
        });
        let statement = statement.to_string();
        // The encoding before authentication of DSSE's specification (protocol.md).
        let signed = format!("DSSEv1 {} {STATEMENT} {} {statement}", STATEMENT.len(), statement.len());
        let signature: DerSignature = self.0.sign(signed.as_bytes());
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "a key"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(statement),
                "payloadType": STATEMENT,
                "signatures": [{"sig": STANDARD.encode(signature.as_bytes())}],
            },
        });
        Evidence::Bundle(bundle.to_string().into_bytes())
    }
}

/// Returns a policy that requires a signature by this key for images of one repository and for inline objects, and
/// denies all others.
pub fn policy(mode: &str, repository: &str, key: &Key) -> String {
    let require = json!({"type": "Signature", "signature": {"keys": ["release"]}});
    let policy = json!({
        "mode": mode,
        "keys": {"release": key.public()},
        "rules": [
            {"name": "images", "match": {"repositories": [repository]}, "require": require},
            {"name": "inline", "match": {"sources": ["Inline"]}, "require": require},
            {"name": "builtins", "match": {"builtins": ["*"]}, "require": {"type": "Allow"}},
        ],
    });
    policy.to_string()
}

/// An image, and what is stored of it.
pub struct Image {
    /// The digest that its reference resolves to.
    pub digest: String,
    /// Index, manifest and layer.
    pub archive: Archive,
    /// The configuration, which no proof has.
    pub config: Vec<u8>,
}

/// Returns an image whose layer is the object.
pub fn image(object: &[u8]) -> Image {
    let config = b"{}".to_vec();
    let manifest = manifest(("application/vnd.oci.empty.v1+json", &config), (OBJECT, object));
    Image { digest: digest(&manifest), archive: Archive { manifest, ..Archive::default() }, config }
}

/// Returns an image of bpfman's form, whose layer has the object in an archive.
pub fn packed_image(object: &[u8]) -> Image {
    let layer = gzip(&tar("guard.o", object));
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Labels": {"io.ebpf.programs": "{}", "io.ebpf.maps": "{}"}},
    });
    let config = config.to_string().into_bytes();
    let manifest = manifest(
        ("application/vnd.oci.image.config.v1+json", &config),
        ("application/vnd.oci.image.layer.v1.tar+gzip", &layer),
    );
    let archive = Archive { manifest, layer: Some(layer), ..Archive::default() };
    Image { digest: digest(&archive.manifest), archive, config }
}

/// Returns an index of images, each with its architecture, and the archive of the image at a place in it.
pub fn index(images: &[(&str, &Image)], place: usize) -> Image {
    let entry = |(architecture, image): &(&str, &Image)| {
        json!({
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": image.archive.manifest.len(),
            "platform": {"architecture": architecture, "os": "linux"},
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": images.iter().map(entry).collect::<Vec<Value>>(),
    });
    let index = index.to_string().into_bytes();
    let Image { archive, config, .. } = images[place].1;
    let archive = Archive { index: Some(index.clone()), ..archive.clone() };
    Image { digest: digest(&index), archive, config: config.clone() }
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).as_str().to_owned()
}

/// Returns a manifest of a configuration and a layer, each with its media type.
fn manifest(config: (&str, &[u8]), layer: (&str, &[u8])) -> Vec<u8> {
    let descriptor = |(media_type, bytes): (&str, &[u8])| {
        let size = bytes.len();
        json!({"mediaType": media_type, "digest": digest(bytes), "size": size})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(layer)],
    });
    manifest.to_string().into_bytes()
}

/// Returns an archive with one file (POSIX ustar, "Interchange Format").
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    let size = format!("{:011o}", content.len());
    header[124..135].copy_from_slice(size.as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// Returns bytes as a gzip file (RFC 1952).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    gzip.extend(crc32(bytes).to_le_bytes());
    gzip.extend((bytes.len() as u32).to_le_bytes());
    gzip
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
