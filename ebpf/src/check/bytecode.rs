//! `spec.bytecode`: the source of the object's bytes.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sockeye_crds::{
    Reason, Refusal,
    names::{DIGEST_PREFIX, MAX_INLINE_BYTES, printable},
    program::{Bytecode, ConfigMapKeyRef},
};

use super::rules::{check_count, invalid, refuse};
use crate::programs;

/// Returns the object's bytes if the spec alone gives them, inline or as a builtin. `None` means that a ConfigMap or an
/// image has them.
pub fn embedded_bytes(bytecode: &Bytecode) -> Result<Option<Cow<'static, [u8]>>, Refusal> {
    check_source(bytecode)?;
    match bytecode {
        Bytecode { inline: Some(text), .. } => decode_inline(text).map(|bytes| Some(Cow::Owned(bytes))),
        Bytecode { builtin: Some(name), .. } => Ok(Some(Cow::Borrowed(programs::builtin(*name)))),
        _ => Ok(None),
    }
}

/// Decodes `spec.bytecode.inline`.
pub fn decode_inline(text: &str) -> Result<Vec<u8>, Refusal> {
    let field = "spec.bytecode.inline";
    let compact: String = text.split_ascii_whitespace().collect();
    let bytes = STANDARD
        .decode(&compact)
        .map_err(|e| refuse(Reason::InvalidSpec, format!("{field} is not base64: {e} Encode the file (base64)")))?;
    if bytes.len() > MAX_INLINE_BYTES {
        let message = format!(
            "{field} holds {} bytes; inline may hold {MAX_INLINE_BYTES}: strip the object (llvm-strip -g), or, on a \
             cluster, put it into a ConfigMap",
            bytes.len()
        );
        return Err(refuse(Reason::InvalidSpec, message));
    }
    Ok(bytes)
}

/// Encodes `spec.bytecode.inline`.
pub fn encode_inline(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Checks that exactly one source is set, and that the digest of a ConfigMap's bytes is one.
pub(super) fn check_source(bytecode: &Bytecode) -> Result<(), Refusal> {
    let Bytecode { inline, config_map_ref, image, builtin, signatures } = bytecode;
    let sources = [inline.is_some(), config_map_ref.is_some(), image.is_some(), builtin.is_some()];
    if sources.into_iter().filter(|is_set| *is_set).count() != 1 {
        let message = "spec.bytecode: exactly one of inline, configMapRef, image and builtin must be set";
        return Err(invalid(message.to_owned()));
    }
    check_count("spec.bytecode.signatures", signatures.len(), 0, 8)?;
    match config_map_ref {
        Some(config_map_ref) => check_digest_text("spec.bytecode.configMapRef", config_map_ref),
        None => Ok(()),
    }
}

/// Checks that the digest of a ConfigMap's bytes is one.
pub(super) fn check_digest_text(field: &str, ConfigMapKeyRef { digest, .. }: &ConfigMapKeyRef) -> Result<(), Refusal> {
    if is_digest(digest) {
        return Ok(());
    }
    Err(invalid(format!(
        "{field}.digest: {} is no digest: {DIGEST_PREFIX} and 64 hexadecimal digits in lower case, those that \
         sha256sum prints",
        printable(digest)
    )))
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix(DIGEST_PREFIX).unwrap_or_default().as_bytes();
    digits.len() == 64 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks that the bytes of a ConfigMap, of which this is the digest, are those that the spec means. Bytes from another
/// source have no digest in the spec.
pub(super) fn check_digest(bytecode: &Bytecode, found: &str) -> Result<(), Refusal> {
    match &bytecode.config_map_ref {
        Some(config_map_ref) => check_same_digest("spec.bytecode.configMapRef", config_map_ref, found),
        None => Ok(()),
    }
}

/// Checks that the bytes of a ConfigMap, of which `found` is the digest, are those that a field means.
pub(super) fn check_same_digest(
    field: &str,
    ConfigMapKeyRef { name, key, digest }: &ConfigMapKeyRef,
    found: &str,
) -> Result<(), Refusal> {
    if digest == found {
        return Ok(());
    }
    let message = format!(
        "{field}.digest is {digest}, but the digest of the bytes in key {} of ConfigMap {} is {found}: put the bytes \
         back, or correct the digest if these are to run",
        printable(key),
        printable(name)
    );
    Err(refuse(Reason::DigestMismatch, message))
}
