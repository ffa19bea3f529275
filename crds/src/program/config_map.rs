//! `ConfigMapKeyRef`: bytes in a ConfigMap.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key in a ConfigMap, and the digest of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// The name of the ConfigMap, in the namespace that sockeye is installed in.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in binaryData; of a list of entries also in data.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// The SHA-256 digest of the bytes: `sha256:` and 64 hexadecimal digits. Other bytes are refused, so that who may
    /// write the ConfigMap can't change what runs.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
}
