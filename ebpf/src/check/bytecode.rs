//! `spec.bytecode`: the source of the object's bytes.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sockeye_crds::{Reason, Refusal, names::MAX_INLINE_BYTES, program::Bytecode};

use super::rules::{invalid, refuse};
use crate::programs;

/// Returns the object's bytes if the spec alone gives them, inline or as a builtin. `None` means that a ConfigMap has
/// them.
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
    let bytes =
        STANDARD.decode(&compact).map_err(|e| refuse(Reason::InvalidSpec, format!("{field} is not base64: {e}")))?;
    if bytes.len() > MAX_INLINE_BYTES {
        let message = format!(
            "{field} holds {} bytes; inline may hold {MAX_INLINE_BYTES}: put the object into a ConfigMap, or strip it \
             (llvm-strip -g)",
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

/// Checks that exactly one source is set.
pub(super) fn check_source(Bytecode { inline, config_map, builtin }: &Bytecode) -> Result<(), Refusal> {
    match [inline.is_some(), config_map.is_some(), builtin.is_some()].map(usize::from).iter().sum() {
        1 => Ok(()),
        _ => Err(invalid("spec.bytecode: exactly one of inline, configMap and builtin must be set".to_owned())),
    }
}
