//! [`is_attestation`]: whether a bundle states something else than a signature, such as an SBOM. IO: none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// The predicate type of a signature (sigstore/cosign, specs/BUNDLE_SPEC.md).
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
}

/// Tells whether a bundle can be read as the statement of another predicate. One that can't be read may be a signature:
/// whoever judges it says what is wrong with it.
pub fn is_attestation(bundle: &[u8]) -> bool {
    let payload = serde_json::from_slice::<Bundle>(bundle).ok().map(|bundle| bundle.dsse_envelope.payload);
    let statement = payload.and_then(|payload| STANDARD.decode(payload).ok());
    let statement = statement.and_then(|statement| serde_json::from_slice::<Statement>(&statement).ok());
    statement.is_some_and(|statement| statement.predicate_type != SIGNATURE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_states_something_else_is_an_attestation() {
        let bundle = |payload: &str| json!({"dsseEnvelope": {"payload": STANDARD.encode(payload)}}).to_string();
        for (bundle, expected) in [
            (bundle(r#"{"predicateType": "https://cyclonedx.org/bom"}"#), true),
            (bundle(r#"{"predicateType": "https://sigstore.dev/cosign/sign/v1"}"#), false),
            (bundle("{}"), false),
            (r#"{"messageSignature": {}}"#.to_owned(), false),
            (r#"{"dsseEnvelope": {"payload": "%"}}"#.to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_attestation(bundle.as_bytes()), expected, "{bundle}");
        }
    }
}
