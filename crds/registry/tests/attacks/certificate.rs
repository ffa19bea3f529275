//! An authority and a certificate for 127.0.0.1, made anew (RFC 5280, in DER).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// An authority, and what a server needs of it.
pub struct Authority {
    /// The authority's certificate, in PEM.
    pub pem: String,
    /// The server's certificate, in DER.
    pub certificate: Vec<u8>,
    /// The server's key, in PKCS #8.
    pub key: Vec<u8>,
}

impl Authority {
    /// Makes an authority, and with it a certificate for 127.0.0.1 or for another name.
    pub fn new(server_name: Option<&str>) -> Self {
        let random = SystemRandom::new();
        let keys = || EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let (authority, server) = (keys(), keys());
        let pair = |pkcs8: &[u8]| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).unwrap();
        let (signer, subject) = (pair(authority.as_ref()), pair(server.as_ref()));
        let is_authority = extension(&[0x55, 0x1d, 0x13], &sequence(&[0x01, 0x01, 0xff]));
        let name = match server_name {
            Some(name) => tagged(0x82, name.as_bytes()),
            None => tagged(0x87, &[127, 0, 0, 1]),
        };
        let named = extension(&[0x55, 0x1d, 0x11], &sequence(&name));
        let root = certificate("root", signer.public_key().as_ref(), &is_authority, &signer, &random);
        let pem = pem("CERTIFICATE", &root);
        let certificate = certificate("server", subject.public_key().as_ref(), &named, &signer, &random);
        Self { pem, certificate, key: server.as_ref().to_vec() }
    }

    /// Returns the settings of a server.
    pub fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(self.certificate.clone())], key)
            .unwrap()
    }
}

/// Returns bytes in PEM.
pub fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn certificate(subject: &str, key: &[u8], extension: &[u8], signer: &EcdsaKeyPair, random: &SystemRandom) -> Vec<u8> {
    // ecdsa-with-SHA256; id-ecPublicKey over prime256v1.
    let algorithm = sequence(&tagged(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
    let key_algorithm =
        [tagged(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tagged(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])];
    let validity = [tagged(0x17, b"200101000000Z"), tagged(0x18, b"20990101000000Z")];
    let to_be_signed = sequence(
        &[
            tagged(0xa0, &tagged(2, &[2])),
            tagged(2, &[1]),
            algorithm.clone(),
            name("root"),
            sequence(&validity.concat()),
            name(subject),
            sequence(&[sequence(&key_algorithm.concat()), bit_string(key)].concat()),
            tagged(0xa3, &sequence(extension)),
        ]
        .concat(),
    );
    let signature = signer.sign(random, &to_be_signed).unwrap();
    sequence(&[to_be_signed, algorithm, bit_string(signature.as_ref())].concat())
}

fn name(common: &str) -> Vec<u8> {
    let attribute = [tagged(6, &[0x55, 4, 3]), tagged(12, common.as_bytes())];
    sequence(&tagged(0x31, &sequence(&attribute.concat())))
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[tagged(6, id), tagged(4, value)].concat())
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tagged(3, &[&[0], bytes].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(0x30, content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut bytes = match len {
        0..128 => vec![tag, len as u8],
        128..256 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    bytes.extend_from_slice(content);
    bytes
}
