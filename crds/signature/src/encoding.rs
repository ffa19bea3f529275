//! Base64, hexadecimal digits and hashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Decodes base64 with its padding. Only the one canonical text of the bytes is taken.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Encodes bytes as base64.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
/// Returns the digest of the bytes as registries write it: `sha256:<64 hexadecimal digits>`.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Decodes 64 hexadecimal digits, small letters only.
pub fn from_hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Returns the 32 bytes of a digest as registries write it, if it is SHA-256.
pub fn digest_bytes(digest: &str) -> Option<[u8; 32]> {
    from_hex32(digest.strip_prefix("sha256:")?)
}

/// The hashes of one message, each made when it is first asked for.
pub struct Hashes<'a> {
    message: &'a [u8],
    made: [std::cell::OnceCell<Vec<u8>>; 3],
}

/// A hash function of the SHA-2 family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// Hashes a message.
    pub fn of(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

impl<'a> Hashes<'a> {
    /// Hashes nothing yet.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, made: Default::default() }
    }

    /// Returns the message.
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Returns one hash of the message.
    pub fn get(&self, hash: Hash) -> &[u8] {
        self.made[hash as usize].get_or_init(|| hash.of(self.message))
    }
}

/// Bytes as base64 text, for serde.
pub mod base64_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes bytes as base64 text.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_base64(bytes))
    }

    /// Reads bytes from base64 text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::from_base64(&text).ok_or_else(|| D::Error::custom("not base64"))
    }
}
